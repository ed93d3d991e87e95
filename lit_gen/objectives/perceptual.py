"""How unlike two images are: by their pixels, by features of a network, and whatever their position.

Dosovitskiy & Brox 2016, Generating images with perceptual similarity metrics based on deep networks
(https://arxiv.org/abs/1602.02644).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def half_squares(values: Tensor, targets: Tensor) -> Tensor:
    """Half the sum of squared differences of each image, ``(B, ...) -> (B,)``: the Euclidean loss of Caffe."""
    return 0.5 * (values - targets).square().flatten(1).sum(1)


def unexplained(layers: Sequence[Tensor], targets: Sequence[Tensor], spreads: Tensor) -> Tensor:
    """Squared differences in units of what there is to explain, averaged over layers.

    0 for equal values, 1 on average for the mean of the data in place of each image, 2 for another image of the data.
    Such a number is the same whatever the scale of the values, and whatever their number.

    Args:
        layers: values of each layer, ``(B, ...)``.
        targets: what they should be.
        spreads: ``(L,)`` sum over the units of a layer of their variance over the data.

    Returns:
        ``(B,)``.
    """
    parts = [2 * half_squares(ours, theirs) for ours, theirs in zip(layers, targets, strict=True)]
    return (torch.stack(parts, 1) / spreads).mean(1)


def shift(images: Tensor, down: int, right: int) -> Tensor:
    """Images ``(B, C, H, W)`` moved by whole pixels; pixels of the edge are repeated where nothing came from."""
    for dim, by in ((2, down), (3, right)):
        size = images.shape[dim]
        images = images.index_select(dim, (torch.arange(size, device=images.device) - by).clamp(0, size - 1))
    return images


def shift_tolerant_error(images: Tensor, targets: Tensor, reach: int = 1, margin: int | None = None) -> Tensor:
    """Squared error of each pixel, averaged, of the best of all shifts by up to ``reach`` pixels, ``(B,)``.

    It is small where an image differs from its target by its position alone. Pixels at the edge, which a shift would
    have to invent, are not compared: what an error without shifts is of the same pixels, ``reach`` 0 with this
    ``margin`` says.

    Args:
        images: ``(B, C, H, W)``.
        targets: of the same shape, which are moved.
        reach: pixels in each direction.
        margin: pixels left out on each side, ``reach`` at least, which None stands for.

    Raises:
        ValueError: nothing would be left to compare, or a margin too small for the shifts.
    """
    margin = reach if margin is None else margin
    height, width = images.shape[2] - 2 * margin, images.shape[3] - 2 * margin
    if not 0 <= reach <= margin or min(height, width) < 1:
        raise ValueError(
            f"reach must be at least 0, margin at least as much, and pixels of {tuple(images.shape[2:])} be left within"
            f" it, got {reach} and {margin}"
        )
    middle = images[:, :, margin : margin + height, margin : margin + width]
    starts = range(margin - reach, margin + reach + 1)
    errors = [
        (middle - targets[:, :, down : down + height, right : right + width]).square().flatten(1).mean(1)
        for down in starts
        for right in starts
    ]
    return torch.stack(errors).amin(0)
