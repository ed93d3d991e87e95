"""Three digits in the three colours of one image: a thousand modes that can be counted."""

from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from lit_gen.data.base import DataInfo, ImageDataModule, ImageSet
from lit_gen.data.digits import Digits
from lit_gen.data.loader import ResidentImages, Split, derived_seed
from lit_gen.data.mnist import MNIST

Source = Literal["mnist", "digits"]
PLANES = 3


def stack_digits(digits: Tensor, labels: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Put digits on top of each other, each in a colour of its own.

    Args:
        digits: uint8 ``(M, 1, H, W)``.
        labels: ``(M,)``, 0 to 9.
        chosen: ``(N, 3)`` which digit is red, green and blue.

    Returns:
        uint8 ``(N, 3, H, W)``, and the class of each: its three digits read as a number.
    """
    places = 10 ** torch.arange(PLANES - 1, -1, -1)
    return digits[:, 0][chosen], (labels[chosen] * places).sum(1)


class StackedMNIST(ImageDataModule):
    """Three random digits as red, green and blue: 128,000 train, 5,000 val, 26,000 test, 28x28, a thousand classes.

    How many of the thousand a generator makes is what ``ModeCoverage`` counts (Metz et al. 2017, Unrolled generative
    adversarial networks, https://arxiv.org/abs/1611.02163; Lin et al. 2018, PacGAN, https://arxiv.org/abs/1712.04086).
    Images are made on the spot and are the same everywhere; those of a split show digits of that split of the source
    alone, where the published sets draw from all 70,000.

    Example:
        >>> data = StackedMNIST(source="digits", num_train=100, num_val=10, num_test=10, batch_size=20)
        >>> next(iter(data.train_dataloader()))[0].shape, data.num_classes
        (torch.Size([20, 3, 8, 8]), 1000)

    Args:
        source: ``mnist``, or the embedded ``digits`` of 8x8.
        root: folder of MNIST, or into which it is downloaded.
        num_train: images to train on.
        num_val: images for validation, besides those.
        num_test: images for testing.
    """

    channel_choices: ClassVar[tuple[int, ...]] = (PLANES,)

    def __init__(
        self,
        source: Source = "mnist",
        root: str = "data",
        num_train: int = 128_000,
        num_val: int = 5_000,
        num_test: int = 26_000,
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
        self._counts = (num_train, num_val, num_test)
        super().__init__(**kwargs)

    def describe(self) -> DataInfo:
        shape = (PLANES, *self.digits.image_shape[1:])
        return DataInfo(shape, 10**PLANES, *self._counts, official=("train", "val", "test"))

    def prepare_data(self) -> None:
        """Download the digits if they are not there."""
        self.digits.prepare_data()

    def load(self, part: Split) -> ImageSet:
        source, labels = self.digits.split(part)
        assert isinstance(source, ResidentImages)
        assert isinstance(labels, Tensor)
        count = dict(zip(get_args(Split), self._counts, strict=True))[part]
        # NumPy promises never to change what this old generator gives.
        draws = np.random.RandomState(derived_seed("stacked digits", part) % 2**32)
        chosen = torch.from_numpy(draws.randint(0, len(labels), (count, PLANES)))
        return ImageSet(*stack_digits(source.images, labels, chosen))

    def remarks(self) -> list[str]:
        return [f"of {self.digits.name}"]
