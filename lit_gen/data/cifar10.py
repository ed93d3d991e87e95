"""CIFAR-10: small colour photographs in ten classes."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets

from lit_gen.data.base import DataInfo, ImageSet
from lit_gen.data.loader import Split
from lit_gen.data.torchvision_sets import TorchvisionDataModule


def read_mosaic(path: Path) -> Tensor:
    """1,000 images uint8 ``(1000, 3, 32, 32)`` from a lossless picture of 25 rows of 40.

    Raises:
        ValueError: if the file is no such picture.
    """
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
        tiles = pixels.reshape(25, 32, 40, 32, 3).transpose(0, 2, 4, 1, 3)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no mosaic of 25 x 40 images of 32x32 ({error}): fetch it again") from error
    return torch.from_numpy(np.ascontiguousarray(tiles).reshape(1000, 3, 32, 32))


class CIFAR10(TorchvisionDataModule):
    """Colour photographs in ten classes (Krizhevsky 2009): 45,000 train, 5,000 val, 10,000 test, 32x32.

    Besides the official archive it reads a folder ``root/cifar10`` of lossless mosaics ``cifar10_00.webp`` to
    ``cifar10_50.webp``, 1,000 images each in official order, with ``cifar10_labels.npz``. Those have 1,000 test images
    only: an FID needs more, so take it against training statistics and say so.
    """

    required = tuple(
        f"cifar-10-batches-py/{name}"
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
    )

    def describe(self) -> DataInfo:
        self.mosaics = bool(super().missing()) and any((self.root / "cifar10").glob("cifar10_*.webp"))
        test_size = 1_000 if self.mosaics else 10_000
        return DataInfo((3, 32, 32), num_classes=10, train_size=50_000, val_size=5_000, test_size=test_size)

    def dataset(self, part: Split, download: bool = False) -> datasets.CIFAR10:
        return datasets.CIFAR10(self.root, train=part == "train", download=download)

    def missing(self) -> list[str]:
        return [] if self.mosaics else super().missing()

    def load(self, part: Split) -> ImageSet:
        if self.mosaics:
            return self._load_mosaics(part)
        stored = self.read(part)
        return ImageSet(torch.from_numpy(stored.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(stored.targets))

    def _load_mosaics(self, part: Split) -> ImageSet:
        folder = self.root / "cifar10"
        if not (folder / "cifar10_labels.npz").exists():
            raise FileNotFoundError(
                f"{folder / 'cifar10_labels.npz'} is not there: it belongs to the mosaics beside it"
            )
        with np.load(folder / "cifar10_labels.npz") as stored:
            train, test = stored["train"], stored["test_first1000"]
        labels, first = (train, 0) if part == "train" else (test, len(train) // 1000)
        paths = [folder / f"cifar10_{first + i:02}.webp" for i in range(len(labels) // 1000)]
        if missing := [path.name for path in paths if not path.exists()]:
            raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}: fetch it again")
        return ImageSet(torch.cat([read_mosaic(path) for path in paths]), torch.from_numpy(labels).long())

    def remarks(self) -> list[str]:
        return ["only 1,000 of the 10,000 test images"] if self.mosaics else []
