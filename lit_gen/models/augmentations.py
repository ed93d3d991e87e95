"""Random changes of what a discriminator sees, through which gradients pass, to be injected into a model.

Zhao, Liu, Lin, Zhu & Han 2020, Differentiable augmentation for data-efficient GAN training
(https://arxiv.org/abs/2006.10738).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from lit_gen.networks import Recorded


class Augmentation(Recorded, ABC):
    """Changes images at random, each in its own way, differentiably."""

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)``, as the discriminator's network sees them, changed."""


class DiffAugment(Augmentation):
    """Brightness, saturation and contrast, then translation, then a hole (Zhao et al. 2020, appendix A).

    Images and generated ones are changed alike, when the discriminator is updated and when the generator is, so that
    the generator does not learn to make changed images. Meant for little data: the discriminator sees an image often,
    and never twice the same. Strengths are those of the authors' program, for pixels in [-1, 1].

    Args:
        color: brightness by up to 0.5, saturation times 0 to 2, contrast times 0.5 to 1.5.
        translation: largest shift, as a part of the side; what comes in is 0. 0 for no shifts.
        cutout: side of the hole, as a part of the image's; what is cut out is 0. 0 for no holes.
    """

    def __init__(self, color: bool = True, translation: float = 0.125, cutout: float = 0.5) -> None:
        if not 0 <= translation < 1 or not 0 <= cutout < 1:
            raise ValueError(
                f"translation and cutout are parts of the image's side, in [0, 1), got {translation} and {cutout}"
            )
        if not color and translation == cutout == 0:
            raise ValueError("this DiffAugment would change nothing; leave the augmentation out to do without")
        self.color = color
        self.translation = translation
        self.cutout = cutout

    def __call__(self, images: Tensor) -> Tensor:
        count, device = len(images), images.device
        height, width = images.shape[2:]
        if self.color:
            brightness, saturation, contrast = torch.rand(3, count, device=device, dtype=images.dtype)
            images = brighten(images, brightness - 0.5)
            images = saturate(images, 2 * saturation)
            images = change_contrast(images, contrast + 0.5)
        if self.translation > 0:
            images = translate(
                images, *(_integers(-reach, reach, images) for reach in _parts(images, self.translation))
            )
        if self.cutout > 0:
            tall, wide = _parts(images, self.cutout)
            top = _integers(0, height - tall % 2, images) - tall // 2
            left = _integers(0, width - wide % 2, images) - wide // 2
            images = cut_out(images, top, left, (tall, wide))
        return images


AugmentationFactory = Callable[[], Augmentation]


def brighten(images: Tensor, shift: Tensor) -> Tensor:
    """Images ``(B, C, H, W)`` plus a number for each, ``(B,)``."""
    return images + shift.view(-1, 1, 1, 1)


def saturate(images: Tensor, factor: Tensor) -> Tensor:
    """Images whose colours are the factor ``(B,)`` times as far from the grey of their pixel; grey ones stay."""
    return _stretch(images, images.mean(1, keepdim=True), factor)


def change_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Images whose values are the factor ``(B,)`` times as far from their mean over pixels and channels."""
    return _stretch(images, images.mean((1, 2, 3), keepdim=True), factor)


def translate(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Images moved by whole pixels, ``(B,)`` each; what comes in is 0."""
    rows, row_inside = _sources(images.shape[2], down)
    columns, column_inside = _sources(images.shape[3], right)
    each = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images.movedim(1, 3)[each, rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
    inside = row_inside[:, :, None] & column_inside[:, None, :]
    return (moved * inside[..., None]).movedim(3, 1)


def cut_out(images: Tensor, top: Tensor, left: Tensor, size: tuple[int, int]) -> Tensor:
    """Images with a hole of zeros, as much of it as lies within them.

    Args:
        images: ``(B, C, H, W)``.
        top: ``(B,)`` first row of the hole, which may be negative.
        left: ``(B,)`` first column.
        size: height and width of the hole.
    """
    rows = torch.arange(images.shape[2], device=images.device) - top[:, None]
    columns = torch.arange(images.shape[3], device=images.device) - left[:, None]
    in_rows, in_columns = (rows >= 0) & (rows < size[0]), (columns >= 0) & (columns < size[1])
    return images * ~(in_rows[:, None, :, None] & in_columns[:, None, None, :])


def _stretch(images: Tensor, middle: Tensor, factor: Tensor) -> Tensor:
    return middle + factor.view(-1, 1, 1, 1) * (images - middle)


def _parts(images: Tensor, share: float) -> list[int]:
    """A part of height and width in whole pixels."""
    return [int(side * share + 0.5) for side in images.shape[2:]]


def _integers(low: int, high: int, images: Tensor) -> Tensor:
    """One of low to high for each image, ``(B,)``."""
    return torch.randint(low, high + 1, (len(images),), device=images.device)


def _sources(side: int, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Where each pixel of a side comes from, cut off at the edges, and whether it comes from within: ``(B, side)``."""
    wanted = torch.arange(side, device=shift.device) - shift[:, None]
    return wanted.clamp(0, side - 1), (wanted >= 0) & (wanted < side)
