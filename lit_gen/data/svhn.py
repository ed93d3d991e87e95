"""Street View House Numbers: cropped digits."""

import torch
from torchvision import datasets

from lit_gen.data.base import DataInfo, ImageSet
from lit_gen.data.loader import Split
from lit_gen.data.torchvision_sets import TorchvisionDataModule


class SVHN(TorchvisionDataModule):
    """Digits cropped from house numbers (Netzer et al. 2011): 68,257 train, 5,000 val, 26,032 test, 32x32 colour."""

    required = ("train_32x32.mat", "test_32x32.mat")

    def describe(self) -> DataInfo:
        return DataInfo((3, 32, 32), num_classes=10, train_size=73_257, val_size=5_000, test_size=26_032)

    def dataset(self, part: Split, download: bool = False) -> datasets.SVHN:
        return datasets.SVHN(str(self.root), split=part, download=download)

    def load(self, part: Split) -> ImageSet:
        stored = self.read(part)
        return ImageSet(torch.from_numpy(stored.data).contiguous(), torch.from_numpy(stored.labels).long())
