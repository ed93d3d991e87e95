"""Street View House Numbers: whole numbers, cut out of the photographs."""

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lit_gen.data.base import DataInfo, ImageDataModule, ImageSet
from lit_gen.data.files import decode, stored_shape
from lit_gen.data.loader import BatchLoader, InMemory, Split, derived_seed
from lit_gen.data.pixels import to_shape

STORED, CUT = 64, 54
"""Pixels to which the cut-out numbers are resized, and those of the random square that a batch shows."""
MARGIN = 0.3
"""Part by which the box about all digits is made wider and higher."""
SIZES = {"train": 33_402, "extra": 202_353, "test": 13_068}
"""Photographs in each folder as published."""


class Number(NamedTuple):
    """A photograph and the box about all digits of its house number, in pixels."""

    name: str
    left: float
    top: float
    right: float
    bottom: float


def read_numbers(path: Path) -> list[Number]:
    """The boxes in a ``digitStruct.mat``, an HDF5 file, each about all digits of a photograph.

    Raises:
        ImportError: there is no h5py.
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or is another file.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"{path.name} is an HDF5 file, which takes h5py to read: pip install 'lit-gen[svhn]' (or h5py)"
        ) from error
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with h5py.File(path) as file:
            names, boxes = (file["digitStruct"][field][:, 0] for field in ("name", "bbox"))
            return [_number(file, name, box) for name, box in zip(names, boxes, strict=True)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no digitStruct.mat of SVHN's format 1 ({error!r}): fetch it again") from error


def _number(file: Any, name: Any, box: Any) -> Number:
    def values(field: str) -> np.ndarray:
        stored = file[box][field]
        # A single digit stands there itself, several as references to their values.
        if stored.shape[0] == 1:
            return stored[:, 0].astype(float)
        return np.array([file[reference][0, 0] for reference in stored[:, 0]], float)

    left, top = values("left"), values("top")
    right, bottom = left + values("width"), top + values("height")
    text = "".join(map(chr, file[name][:, 0]))
    return Number(text, left.min(), top.min(), right.max(), bottom.max())


def cut_out(path: Path, number: Number) -> Tensor:
    """The number in a photograph with a margin about it, resized: uint8 ``(3, 64, 64)``."""
    shape = stored_shape(path, sideways_png=False)
    pixels = decode(path, (3, *shape[1:]), resize=False)
    height, width = shape[1:]
    across, down = MARGIN / 2 * (number.right - number.left), MARGIN / 2 * (number.bottom - number.top)
    # Boxes may reach beyond the photograph.
    left, right = max(0, math.floor(number.left - across)), min(width, math.ceil(number.right + across))
    top, bottom = max(0, math.floor(number.top - down)), min(height, math.ceil(number.bottom + down))
    if left >= right or top >= bottom:
        raise ValueError(f"the box of {path} ({number[1:]}) lies outside it: fetch the files again")
    return to_shape(pixels[:, top:bottom, left:right].contiguous()[None], (3, STORED, STORED))[0]


class Crops(InMemory):
    """Squares cut out of images in memory: about the centre, or anywhere, anew in every epoch.

    Args:
        images: ``(N, C, H, W)`` uint8.
        size: height and width of the squares.
        shape: ``(C, H, W)`` to which they are converted.
        seed: of the places.
        random: whether they lie anywhere.
    """

    def __init__(self, images: Tensor, size: int, shape: tuple[int, ...], seed: int, random: bool = False) -> None:
        self.images, self.size, self.shape, self.seed, self.random = images, size, shape, seed, random
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        span = torch.tensor(self.images.shape[2:]) - self.size
        if self.random:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, "crops", epoch))
            drawn = torch.rand(len(self), 2, generator=generator)
            corners = torch.minimum((drawn * (span + 1)).long(), span)
        else:
            corners = (span // 2).expand(len(self), 2)
        self.corners = corners.to(self.device)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def device(self) -> torch.device:
        return self.images.device

    @property
    def nbytes(self) -> int:
        return self.images.nbytes

    def to(self, device: torch.device) -> "Crops":
        return Crops(self.images.to(device), self.size, self.shape, self.seed, self.random)

    def centred(self) -> "Crops":
        """The squares in the middle of the same images."""
        return Crops(self.images, self.size, self.shape, self.seed)

    def take(self, indices: Tensor) -> "Crops":
        return Crops(self.images[indices], self.size, self.shape, self.seed, self.random)

    def fetch(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        corners = self.corners  # of the epoch in which this pass began
        side = torch.arange(self.size, device=self.device)
        channels = torch.arange(self.images.shape[1], device=self.device)[:, None, None]
        for indices in batches:
            rows, columns = (corner[:, None] + side for corner in corners[indices].unbind(1))
            places = indices[:, None, None, None], channels, rows[:, None, :, None], columns[:, None, None, :]
            yield to_shape(self.images[places], self.shape)


class SVHNNumbers(ImageDataModule):
    """Whole house numbers (Netzer et al. 2011, format 1): 231,054 train, 4,701 val, 13,068 test, 54x54 colour.

    Preprocessed as for DRAW (Goodfellow et al. 2013, https://arxiv.org/abs/1312.6082, section 5.1): the box about all
    digits, made larger by 30 percent, is cut out and resized to 64x64; training shows squares of 54x54 at random places
    of it, anew in every epoch, evaluation those in the middle. (DRAW counts 231,053 training images.)

    There is no download: unpack ``train.tar.gz``, ``extra.tar.gz`` and ``test.tar.gz`` of
    http://ufldl.stanford.edu/housenumbers in ``root``. What is cut out is kept there, in files
    ``numbers_64x64_<folder>.npy``, if they can be written. The cropped digits of 32x32 are :class:`SVHN`.

    Args:
        root: folder that holds the folders ``train``, ``extra`` and ``test``.
        extra: whether to train on the folder ``extra`` besides ``train``, which alone has 33,402 photographs.
    """

    def __init__(self, root: str = "data", extra: bool = True, **kwargs: Any) -> None:
        root = str(root)  # a Path would make the checkpoint unreadable with weights_only=True
        self.root = Path(root).expanduser()
        self.extra = extra
        super().__init__(**kwargs)
        if self.binarization == "static":
            raise ValueError("binarization=static does not fit SVHNNumbers: its images are cut anew in every epoch")

    def describe(self) -> DataInfo:
        total = sum(self._counted(folder) for folder in self._folders("train"))
        return DataInfo((3, CUT, CUT), 0, total, min(4_701, max(1, total // 10)), self._counted("test"))

    def _folders(self, part: Split) -> list[str]:
        return ["test"] if part == "test" else ["train", *(["extra"] if self.extra else [])]

    def _kept(self, folder: str) -> Path:
        return self.root / f"numbers_{STORED}x{STORED}_{folder}.npy"

    def _counted(self, folder: str) -> int:
        """Photographs in a folder: as many as were kept from it, or else as published."""
        kept = self._kept(folder)
        return len(np.load(kept, mmap_mode="r")) if kept.is_file() else SIZES[folder]

    def prepare_data(self) -> None:
        """Cut the numbers out of the photographs, and keep them.

        Raises:
            FileNotFoundError: the photographs are not there.
        """
        for folder in (*self._folders("train"), "test"):
            if self._kept(folder).is_file():
                continue
            numbers = self._cut_out(folder)
            try:
                handle, name = tempfile.mkstemp(dir=self.root, suffix=".npy")
            except OSError as error:
                rank_zero_info(f"{self.name}: what was cut out cannot be kept in {self.root} ({error})")
                return
            with os.fdopen(handle, "wb") as file:
                np.save(file, numbers)
            Path(name).replace(self._kept(folder))

    def _cut_out(self, folder: str) -> np.ndarray:
        place = self.root / folder
        if not (place / "digitStruct.mat").is_file():
            raise FileNotFoundError(
                f"{self.name} is not in {self.root} (no {folder}/digitStruct.mat). Unpack {folder}.tar.gz of"
                " http://ufldl.stanford.edu/housenumbers there, or name the folder that holds it with --data.root"
                f"{'; set data.extra=false to do without extra' if folder == 'extra' else ''}; the cropped digits of"
                " 32x32 are the data set SVHN"
            )
        numbers = read_numbers(place / "digitStruct.mat")
        rank_zero_info(f"{self.name}: cutting {len(numbers):,} numbers out of the photographs in {place}")
        images = np.empty((len(numbers), 3, STORED, STORED), np.uint8)
        for image, number in zip(images, numbers, strict=True):
            image[:] = cut_out(place / number.name, number).numpy()
        return images

    def load(self, part: Split) -> ImageSet:
        kept = [(folder, self._kept(folder)) for folder in self._folders(part)]
        images = [np.load(path) if path.is_file() else self._cut_out(folder) for folder, path in kept]
        seed = derived_seed(self.seed, part)
        return ImageSet(Crops(torch.from_numpy(np.concatenate(images)), CUT, self.image_shape, seed), None)

    def _loader(
        self, split: Split, batch_size: int, shuffle: bool = False, training: bool | None = None
    ) -> BatchLoader:
        self._load([split])
        images, _ = self._parts[split]
        assert isinstance(images, Crops)
        images.random = split == "train"
        loader = super()._loader(split, batch_size, shuffle, training)
        if not loader.training:
            assert isinstance(loader.images, Crops)
            loader.images = loader.images.centred()
        return loader

    def native_size(self) -> str:
        return f"{CUT}x{CUT}"

    def remarks(self) -> list[str]:
        facts = [f"numbers with a margin of {MARGIN:.0%}, resized to {STORED}x{STORED}"]
        facts.append(f"random squares of {CUT}x{CUT} in training, the middle ones in evaluation")
        return [*facts, f"photographs of {' and '.join(self._folders('train'))}"]
