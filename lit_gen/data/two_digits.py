"""Two digits at random places of one image."""

from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from lit_gen.data.base import DataInfo, ImageDataModule, ImageSet
from lit_gen.data.digits import Digits
from lit_gen.data.loader import CHUNK, ResidentImages, Split, derived_seed
from lit_gen.data.mnist import MNIST

Source = Literal["mnist", "digits"]


def scatter_digits(digits: Tensor, chosen: Tensor, places: Tensor, size: int) -> Tensor:
    """Put digits on black images; where they overlap, intensities are added up to white.

    Args:
        digits: uint8 ``(M, 1, h, w)``.
        chosen: ``(N, K)`` which digits each image shows.
        places: ``(N, K, 2)`` row and column of their upper left corners.
        size: height and width of the images.

    Returns:
        uint8 ``(N, 1, size, size)``.
    """
    height, width = digits.shape[-2:]
    within = (size * torch.arange(height)[:, None] + torch.arange(width)).flatten()
    images = torch.zeros(len(chosen), size * size, dtype=torch.int16)
    for which, (rows, columns) in zip(chosen.unbind(1), places.permute(1, 2, 0), strict=True):
        pixels = (size * rows + columns)[:, None] + within
        images.scatter_add_(1, pixels, digits[which].flatten(1).to(torch.int16))
    return images.clamp(max=255).to(torch.uint8).view(-1, 1, size, size)


class TwoDigits(ImageDataModule):
    """Two digits at random places of a black image: 60,000 train, 5,000 val, 10,000 test, 60x60 grey.

    Source: Gregor et al. 2015, DRAW, section 4.3 (https://arxiv.org/abs/1502.04623). Images are made on the spot and
    are the same everywhere; those of a split show digits of that split of the source alone.

    Example:
        >>> data = TwoDigits(source="digits", num_train=100, num_val=10, num_test=10, batch_size=20)
        >>> next(iter(data.train_dataloader()))[0].shape
        torch.Size([20, 1, 17, 17])

    Args:
        source: ``mnist``, or the embedded ``digits`` of 8x8.
        root: folder of MNIST, or into which it is downloaded.
        canvas_size: height and width. Default: 60, and 17 for the embedded digits, which fill as much of it.
        num_train: images to train on.
        num_val: images for validation, besides those.
        num_test: images for testing.
    """

    def __init__(
        self,
        source: Source = "mnist",
        root: str = "data",
        canvas_size: int | None = None,
        num_train: int = 60_000,
        num_val: int = 5_000,
        num_test: int = 10_000,
        **kwargs: Any,
    ) -> None:
        root = str(root)
        if source not in get_args(Source):
            raise ValueError(f"source must be one of {', '.join(get_args(Source))}; got {source!r}")
        if num_train < 1 or min(num_val, num_test) < 0:
            raise ValueError(
                "num_train must be at least 1, num_val and num_test at least 0;"
                f" got {num_train}, {num_val} and {num_test}"
            )
        self.digits: ImageDataModule = MNIST(root) if source == "mnist" else Digits()
        side = self.digits.image_shape[-1]
        self.canvas_size = round(60 / 28 * side) if canvas_size is None else canvas_size
        if self.canvas_size < side:
            raise ValueError(f"canvas_size must hold a digit of {side}x{side}, got {canvas_size}")
        self._counts = (num_train, num_val, num_test)
        super().__init__(**kwargs)

    def describe(self) -> DataInfo:
        return DataInfo((1, self.canvas_size, self.canvas_size), 0, *self._counts, ("train", "val", "test"))

    def prepare_data(self) -> None:
        """Download the digits if they are not there."""
        self.digits.prepare_data()

    def load(self, part: Split) -> ImageSet:
        digits = self._source(part)
        count = dict(zip(get_args(Split), self._counts, strict=True))[part]
        free = self.canvas_size - digits.shape[-1] + 1
        # NumPy promises never to change what this old generator gives.
        draws = np.random.RandomState(derived_seed("two digits", part) % 2**32)
        chosen = torch.from_numpy(draws.randint(0, len(digits), (count, 2)))
        places = torch.from_numpy(draws.randint(0, free, (count, 2, 2)))
        images = [
            scatter_digits(digits, which, where, self.canvas_size)
            for which, where in zip(torch.split(chosen, CHUNK), torch.split(places, CHUNK), strict=True)
        ]
        return ImageSet(torch.cat(images) if count else torch.zeros(0, *self.info.shape, dtype=torch.uint8), None)

    def _source(self, part: Split) -> Tensor:
        """The digits of this split, uint8 ``(M, 1, h, w)``."""
        source = {
            "train": self.digits.train_dataloader,
            "val": self.digits.val_dataloader,
            "test": self.digits.test_dataloader,
        }[part]().images  # type: ignore[union-attr]
        assert isinstance(source, ResidentImages)
        return source.images

    def remarks(self) -> list[str]:
        return [f"of {self.digits.name}"]
