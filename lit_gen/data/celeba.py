"""CelebA: aligned photographs of faces."""

from typing import Any

from torchvision import datasets

from lit_gen.data.base import DataInfo, ImageSet
from lit_gen.data.files import Crop, ImageFilesDataModule
from lit_gen.data.loader import Split
from lit_gen.data.torchvision_sets import TorchvisionDataModule


class CelebA(TorchvisionDataModule, ImageFilesDataModule):
    """Faces of celebrities (Liu et al. 2015), aligned, 218x178: 162,770 train, 19,867 val, 19,962 test (official).

    The download comes from Google Drive through ``gdown`` (``pip install gdown``), which is often refused for a day.

    Args:
        attribute: the attribute that is the target, 1 where a face has it (Smiling, Eyeglasses, ...). Default: none.
        crop: pixels of the square that is cut out about the centre before resizing; None for the whole picture.
        image_size: height and width, or one number for a square; None for the size of the crop.
    """

    required = (
        "celeba/img_align_celeba",
        "celeba/list_eval_partition.txt",
        "celeba/list_attr_celeba.txt",
        "celeba/identity_CelebA.txt",
        "celeba/list_bbox_celeba.txt",
        "celeba/list_landmarks_align_celeba.txt",
    )

    def __init__(
        self,
        root: str = "data",
        attribute: str | None = None,
        crop: Crop = 148,
        image_size: int | tuple[int, int] | None = 64,
        **kwargs: Any,
    ) -> None:
        self.attribute = attribute
        super().__init__(root, crop=crop, image_size=image_size, **kwargs)

    def describe(self) -> DataInfo:
        shape = (3, self.crop, self.crop) if isinstance(self.crop, int) else (3, 218, 178)
        table = self.root / "celeba" / "list_attr_celeba.txt"
        if table.exists():
            self._check_attribute(table.read_text().split("\n", 2)[1].split())
        classes = 0 if self.attribute is None else 2
        return DataInfo(shape, classes, 162_770, 19_867, 19_962, official=("train", "val", "test"))

    def dataset(self, part: Split, download: bool = False) -> datasets.CelebA:
        return datasets.CelebA(str(self.root), split="valid" if part == "val" else part, download=download)

    def load(self, part: Split) -> ImageSet:
        stored = self.read(part)
        self._check_attribute(stored.attr_names)
        folder = self.root / "celeba" / "img_align_celeba"
        targets = None if self.attribute is None else stored.attr[:, stored.attr_names.index(self.attribute)]
        return ImageSet(self.image_files([str(folder / name) for name in stored.filename]), targets)

    def _check_attribute(self, names: list[str]) -> None:
        if self.attribute is not None and self.attribute not in names:
            raise ValueError(f"CelebA has no attribute {self.attribute!r}; it has {', '.join(names)}")
