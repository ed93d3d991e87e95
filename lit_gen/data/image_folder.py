"""Any folder of images."""

import hashlib
import math
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torchvision.datasets.folder import IMG_EXTENSIONS

from lit_gen.data.base import CHANNELS, DataInfo, ImageSet
from lit_gen.data.files import ImageFilesDataModule, stored_shape
from lit_gen.data.loader import Split

SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}
HEADERS = 256
"""At most so many image files, evenly spaced, are looked at before anything is decoded."""


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

    Unless ``channels`` says otherwise the images are in colour if any is among up to 256 that are looked at, else grey.
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
        looked_at = [folder / name for name in names[:: math.ceil(len(names) / HEADERS)]]
        sizes_matter = self.image_size is None and not isinstance(self.crop, int)
        shapes = [stored_shape(path, sideways_png=sizes_matter) for path in looked_at]
        size = shapes[0][1:]
        differing = [(path, shape[1:]) for path, shape in zip(looked_at, shapes, strict=True) if shape[1:] != size]
        if differing and sizes_matter:
            path, other = differing[0]
            raise ValueError(
                f"images differ in size: {looked_at[0]} is {size[0]}x{size[1]}, {path} is "
                f"{other[0]}x{other[1]}. Give the size that all shall have (--data.image_size 64)"
            )
        self._one_size = not differing or isinstance(self.crop, int)
        channels = self._common_channels({shape[0] for shape in shapes}, len(shapes))
        return (channels, self.crop, self.crop) if isinstance(self.crop, int) else (channels, *size)

    def _common_channels(self, found: set[int], looked_at: int) -> int:
        """Colour if any is (3 channels, or 4 with transparency), else grey (1, or 2 with transparency)."""
        channels = 3 if max(found) >= 3 else 1
        if self.channels is None and found != {channels}:
            white = "" if found <= {1, 3} else ", transparent pixels put on white"
            rank_zero_info(
                f"{self.name}: {looked_at:,} files looked at have {' or '.join(map(str, sorted(found)))} channels; all "
                f"images are given {channels} ({CHANNELS[channels]}){white}. --data.channels (1, 3 or 4) chooses others"
            )
        return channels

    def native_size(self) -> str:
        return super().native_size() if self._one_size else "various sizes"

    @cached_property
    def digest(self) -> str:
        """Tells folders apart: first 8 hexadecimal digits of the SHA-256 of all files' relative names and sizes."""
        sha = hashlib.sha256()
        for part, folder in self.folders.items():
            for name in self.files[part]:
                line = f"{part}/{Path(name).as_posix()}\0{(folder / name).stat().st_size}\n"
                sha.update(line.encode(errors="surrogateescape"))  # names need not be valid UTF-8
        return sha.hexdigest()[:8]

    def load(self, part: Split) -> ImageSet:
        folder, names = self.folders[part], self.files[part]
        images = self.image_files([str(folder / name) for name in names])
        if not self.classes:
            return ImageSet(images, None)
        number = {name: i for i, name in enumerate(self.classes)}
        return ImageSet(images, torch.tensor([number[_class_of(name)] for name in names]))

    def remarks(self) -> list[str]:
        name = self.folders["train"].name
        return [f"folder {name} (sha256 {self.digest} of names and sizes)", *super().remarks()]
