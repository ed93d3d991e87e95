"""Images made up on the spot, for tests and first steps."""

import math
from typing import Any

import torch

from lit_gen.data.base import DataInfo, ImageDataModule, ImageSet
from lit_gen.data.loader import Split, derived_seed


class Synthetic(ImageDataModule):
    """Soft bars at a random place: the class is the bar's direction and, with several channels, its colour.

    Args:
        image_shape: (channels, height, width) of the images as made, before ``image_size`` and ``channels``; or
            (1, depth, height, width) for voxels, where a bar ends in depth too.
        num_classes: number of classes; 0 for images without labels.
        num_train: images to train on.
        num_val: images for validation, besides those.
        num_test: images for testing.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...] = (1, 28, 28),
        num_classes: int = 10,
        num_train: int = 1000,
        num_val: int = 100,
        num_test: int = 200,
        **kwargs: Any,
    ) -> None:
        voxels = len(image_shape) == 4 and image_shape[0] == 1
        if not (len(image_shape) == 3 or voxels) or min(image_shape) < 1:
            raise ValueError(
                "image_shape must be three positive numbers (channels, height, width), or four"
                f" (1, depth, height, width) for voxels; got {image_shape}"
            )
        if min(num_classes, num_val, num_test) < 0 or num_train < 1:
            raise ValueError(
                "num_train must be at least 1; num_val, num_test and num_classes at least 0; "
                f"got {num_train}, {num_val}, {num_test} and {num_classes}"
            )
        self._made = DataInfo((*image_shape,), num_classes, num_train, num_val, num_test, ("train", "val", "test"))
        super().__init__(**kwargs)

    def describe(self) -> DataInfo:
        return self._made

    def load(self, part: Split) -> ImageSet:
        channels, *depth, height, width = self.info.shape
        total = {"train": self.info.train_size, "val": self.info.val_size, "test": self.info.test_size}[part]
        kinds = max(1, self.info.num_classes)
        generator = torch.Generator().manual_seed(derived_seed("synthetic", part))
        kind = torch.randint(kinds, (total,), generator=generator)
        angle = (kind * (math.pi / kinds)).view(-1, 1, 1)
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        offset = torch.rand(total, 1, 1, generator=generator) - 0.5
        distance = x * angle.cos() + y * angle.sin() - offset
        bar = torch.exp(-((distance / 0.25) ** 2))  # (N, H, W)
        # Hue by class: channel c of class k is lit by a cosine of period `kinds`, shifted by a third of it per channel.
        hue = kind.view(-1, 1) / kinds + torch.arange(channels) / max(3, channels)
        colour = 0.6 + 0.4 * torch.cos(2 * math.pi * hue) if channels > 1 else torch.ones(total, 1)
        images = bar[:, None] * colour[:, :, None, None]
        if depth:
            middle = torch.rand(total, 1, generator=generator) - 0.5
            along = torch.exp(-(((torch.linspace(-1, 1, *depth) - middle) / 0.5) ** 2))  # (N, D)
            images = along[:, None, :, None, None] * images[:, :, None]
        images = (255 * images).round().to(torch.uint8)
        return ImageSet(images, kind if self.info.num_classes else None)
