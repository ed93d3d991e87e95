"""Any folder of images."""

import os
from pathlib import Path
from typing import Any

import torch
from torchvision.datasets.folder import IMG_EXTENSIONS

from lit_gen.data.base import DataInfo, ImageSet
from lit_gen.data.files import ImageFilesDataModule, stored_shape
from lit_gen.data.loader import Split

SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}
HEADERS = 64
"""Image files of which the size is compared before anything is decoded."""


def list_images(folder: Path) -> list[str]:
    """Image files below a folder, as sorted relative paths; hidden files and folders are left out.

    Raises:
        FileNotFoundError: if there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: name the folder that holds the images")
    found: list[str] = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        images = [name for name in names if name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".")]
        found += [os.path.relpath(os.path.join(parent, name), folder) for name in images]
    if not found:
        raise FileNotFoundError(f"no images below {folder}: looked for files ending in {', '.join(IMG_EXTENSIONS)}")
    return sorted(found)


def _class_of(name: str) -> str:
    """First folder of a relative path; a dot if it is in none."""
    return str(Path(name).parent).split(os.sep)[0]


class ImageFolder(ImageFilesDataModule):
    """A folder of images of any size and any number of channels; its subfolders, if it has several, are the classes.

    Validation and test images are taken out of it, a tenth each unless told otherwise; test images may also lie in a
    folder of their own.

    Args:
        root: folder of images, searched through all its subfolders.
        test_root: folder of test images, with the same class folders. Default: test images are taken out of ``root``.
        test_size: how many are taken out; 0 for none. Default: a tenth.
    """

    def __init__(self, root: str, test_root: str | None = None, test_size: int | None = None, **kwargs: Any) -> None:
        root = str(root)  # a Path would make the checkpoint unreadable with weights_only=True
        test_root = None if test_root is None else str(test_root)
        if test_size is not None and (test_root is not None or test_size < 0):
            raise ValueError(f"test_size={test_size}: must not be negative, and cannot be combined with test_root")
        self.folders: dict[Split, Path] = {"train": Path(root).expanduser()}
        if test_root is not None:
            self.folders["test"] = Path(test_root).expanduser()
        self._test_size = test_size
        super().__init__(**kwargs)

    def describe(self) -> DataInfo:
        self.files = {part: list_images(folder) for part, folder in self.folders.items()}
        self.classes = self._class_folders()
        """Names of the class folders, in the order of the targets; empty if there are no labels."""
        total = len(self.files["train"])
        tenth = max(1, total // 10)
        test_size = tenth if self._test_size is None else self._test_size
        if "test" in self.files:
            test_size = len(self.files["test"])
        return DataInfo(self._common_shape(), len(self.classes), total, tenth, test_size, tuple(self.files))

    def _class_folders(self) -> list[str]:
        parents = {part: {_class_of(name) for name in names} for part, names in self.files.items()}
        classes = parents["train"]
        if {name.lower() for name in classes} <= SPLIT_NAMES:
            root = self.folders["train"]
            raise ValueError(
                f"the folders in {root} ({', '.join(sorted(classes))}) look like splits, not classes: "
                f"name one of them as root (and test_root={root / 'test'})"
            )
        if "." in classes or len(classes) < 2:
            return []
        if unknown := parents.get("test", set()) - classes:
            raise ValueError(
                f"class folders of {self.folders['test']} that {self.folders['train']} does not have: "
                f"{', '.join(sorted(map(repr, unknown)))}. Both need the same"
            )
        return sorted(classes)

    def _common_shape(self) -> tuple[int, int, int]:
        folder, names = self.folders["train"], self.files["train"]
        first = stored_shape(folder / names[0])
        if self.image_size is None and not isinstance(self.crop, int):
            for name in names[:: max(1, len(names) // HEADERS)]:
                shape = stored_shape(folder / name)
                if shape[1:] != first[1:]:
                    raise ValueError(
                        f"images differ in size: {folder / names[0]} is {first[1]}x{first[2]}, {folder / name} is "
                        f"{shape[1]}x{shape[2]}. Give the size that all shall have (--data.image_size 64)"
                    )
        return (first[0], self.crop, self.crop) if isinstance(self.crop, int) else first

    def load(self, part: Split) -> ImageSet:
        folder, names = self.folders[part], self.files[part]
        images = self.image_files([str(folder / name) for name in names])
        if not self.classes:
            return ImageSet(images, None)
        number = {name: i for i, name in enumerate(self.classes)}
        return ImageSet(images, torch.tensor([number[_class_of(name)] for name in names]))

    def remarks(self) -> list[str]:
        return [f"folder {self.folders['train'].name}", *super().remarks()]
