"""MNIST and the sets made in its image: 28x28 grey, 60,000 + 10,000 images, in idx files."""

import gzip
import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from lit_gen.data.base import DataInfo, ImageSet
from lit_gen.data.loader import Split
from lit_gen.data.torchvision_sets import TorchvisionDataModule

PUBLISHED_MD5 = {
    "train": "db28b1a6ae0fe70cbd3da91acf46e477",
    "valid": "bf37822a04e94123630de6a7dfd9c9ef",
    "test": "14e41ae11040adba6ab8cb291eda0dd8",
}
"""Checksums of the text of the fixed binarized MNIST files."""


def read_idx(path: Path) -> Tensor:
    """Read a uint8 array in idx format (yann.lecun.com/exdb/mnist), or its gzipped copy beside it.

    Raises:
        FileNotFoundError: if there is neither.
        ValueError: if the file is truncated or something else.
    """
    data = _read_maybe_gzipped(path)
    dims = data[3] if len(data) >= 4 and data[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(data, ">i4", count=dims, offset=4).tolist() if len(data) >= 4 + 4 * dims else []
    if not dims or len(data) != 4 + 4 * dims + int(np.prod(shape)):
        raise ValueError(f"{path} is no complete idx file of bytes: delete it, to have it downloaded again")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(shape).copy())


def read_amat(path: Path, md5: str) -> Tensor:
    """Read binary images ``(N, 1, 28, 28)``, as 0 and 255, from a text of 784 numbers a line, or its gzipped copy.

    Raises:
        FileNotFoundError: if there is neither.
        ValueError: if it is not the published file.
    """
    text = _read_maybe_gzipped(path)
    found = hashlib.md5(text, usedforsecurity=False).hexdigest()
    if found != md5:
        raise ValueError(f"{path} is not the published file (md5 {found}, expected {md5}): fetch it again")
    symbols = np.frombuffer(text, np.uint8)
    bits = symbols[(symbols == ord("0")) | (symbols == ord("1"))] - ord("0")
    return torch.from_numpy(bits.reshape(-1, 1, 28, 28) * np.uint8(255))


def _read_maybe_gzipped(path: Path) -> bytes:
    if path.exists():
        return path.read_bytes()
    try:
        return gzip.decompress(_gzipped(path).read_bytes())
    except (OSError, EOFError) as error:
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(f"neither {path} nor {_gzipped(path).name} beside it is there") from error
        raise ValueError(f"{_gzipped(path)} cannot be decompressed ({error}): delete it and fetch it again") from error


def _gzipped(path: Path) -> Path:
    return path.with_name(path.name + ".gz")


class IdxDataModule(TorchvisionDataModule):
    """A set in MNIST's files, gzipped or not."""

    torchvision_class: ClassVar[type[datasets.MNIST]]

    def describe(self) -> DataInfo:
        return DataInfo((1, 28, 28), num_classes=10, train_size=60_000, val_size=10_000, test_size=10_000)

    def dataset(self, part: Split, download: bool = False) -> datasets.MNIST:
        return self.torchvision_class(self.root, train=part == "train", download=download)

    def copies(self, name: str) -> list[Path]:
        return [self.root / name, _gzipped(self.root / name)]

    def load(self, part: Split) -> ImageSet:
        # torchvision wants the files un-gzipped beside, which a read-only folder does not allow.
        self.require()
        images, labels = self.required[:2] if part == "train" else self.required[2:]
        return ImageSet(read_idx(self.root / images)[:, None], read_idx(self.root / labels).long())


def _idx_files(folder: str) -> tuple[str, ...]:
    return tuple(
        f"{folder}/raw/{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    )


class MNIST(IdxDataModule):
    """Handwritten digits (LeCun et al. 1998): 50,000 train, 10,000 val, 10,000 test, 28x28 grey.

    With ``binarization: static`` the published fixed binarization (Larochelle & Murray 2011) is used if its three files
    ``binarized_mnist_{train,valid,test}.amat[.gz]`` lie in ``root/binarized_mnist``: its own split, without labels.
    Otherwise pixels are drawn once from our own split; the two do not compare, and :attr:`protocol` says which it was.
    """

    torchvision_class = datasets.MNIST
    required = _idx_files("MNIST")

    def describe(self) -> DataInfo:
        self.published = self._published_files()
        if self.published:
            return DataInfo((1, 28, 28), 0, 50_000, 10_000, 10_000, official=("train", "val", "test"))
        return super().describe()

    def _published_files(self) -> dict[Split, Path]:
        """The files of the published binarization, if it was asked for, fits and is there."""
        if self.binarization != "static" or self.image_size not in (None, (28, 28)):
            return {}
        folder = self.root / "binarized_mnist"
        files = {name: folder / f"binarized_mnist_{name}.amat" for name in PUBLISHED_MD5}
        missing = [path.name for path in files.values() if not path.exists() and not _gzipped(path).exists()]
        if len(missing) == len(files):
            return {}
        if missing:
            raise FileNotFoundError(f"{folder} lacks {', '.join(missing)} of the published files: add or remove")
        return {"train": files["train"], "val": files["valid"], "test": files["test"]}

    def missing(self) -> list[str]:
        return [] if self.published else super().missing()

    def load(self, part: Split) -> ImageSet:
        if not self.published:
            return super().load(part)
        return ImageSet(read_amat(self.published[part], PUBLISHED_MD5["valid" if part == "val" else part]), None)

    def remarks(self) -> list[str]:
        if self.binarization != "static":
            return []
        ours = f"drawn once with seed {self.seed}, not the published files"
        return ["the published files of Larochelle & Murray (2011)" if self.published else ours]


class FashionMNIST(IdxDataModule):
    """Articles of clothing (Xiao et al. 2017): 50,000 train, 10,000 val, 10,000 test, 28x28 grey."""

    torchvision_class = datasets.FashionMNIST
    required = _idx_files("FashionMNIST")


class KMNIST(IdxDataModule):
    """Cursive Japanese characters (Clanuwat et al. 2018): 50,000 train, 10,000 val, 10,000 test, 28x28 grey."""

    torchvision_class = datasets.KMNIST
    required = _idx_files("KMNIST")
