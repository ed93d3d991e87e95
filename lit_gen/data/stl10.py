"""STL-10: larger colour photographs, most of them without labels."""

from typing import Any

import torch
from torchvision import datasets

from lit_gen.data.base import DataInfo, ImageSet
from lit_gen.data.loader import Split
from lit_gen.data.torchvision_sets import TorchvisionDataModule


class STL10(TorchvisionDataModule):
    """Colour photographs in ten classes (Coates et al. 2011): 4,500 train, 500 val, 8,000 test, 96x96.

    Args:
        unlabeled: train on the 100,000 unlabelled photographs as well; then there are no labels at all. They take 3 GB
            as stored, twice that while they are read.
    """

    required = tuple(f"stl10_binary/{name}.bin" for name in ("train_X", "train_y", "unlabeled_X", "test_X", "test_y"))

    def __init__(self, root: str = "data", unlabeled: bool = False, **kwargs: Any) -> None:
        self.unlabeled = unlabeled
        super().__init__(root, **kwargs)

    def describe(self) -> DataInfo:
        if self.unlabeled:
            return DataInfo((3, 96, 96), num_classes=0, train_size=105_000, val_size=5_000, test_size=8_000)
        return DataInfo((3, 96, 96), num_classes=10, train_size=5_000, val_size=500, test_size=8_000)

    def dataset(self, part: Split, download: bool = False) -> datasets.STL10:
        split = "train+unlabeled" if part == "train" and self.unlabeled else part
        return datasets.STL10(str(self.root), split=split, download=download)

    def load(self, part: Split) -> ImageSet:
        stored = self.read(part)
        targets = None if self.unlabeled else torch.from_numpy(stored.labels).long()
        return ImageSet(torch.from_numpy(stored.data).contiguous(), targets)

    def remarks(self) -> list[str]:
        return ["trained on labelled and unlabelled images"] if self.unlabeled else []
