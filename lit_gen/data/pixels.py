"""Conversions of whole uint8 image tensors ``(N, C, H, W)``, done once at setup."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_gen.data.loader import CHUNK, BatchTransform


def luminance(images: Tensor) -> Tensor:
    """Grey levels ``(N, 1, H, W)`` of colours ``(N, 3, H, W)``: ITU-R 601-2 luma, bit for bit as Pillow rounds it."""
    weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32).view(1, 3, 1, 1)
    return (((images * weights).sum(1, keepdim=True) + 0x8000) >> 16).to(torch.uint8)


def to_shape(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Convert channels (3 to 1: luminance; 1 to 3: repeated) and resize to exactly (H, W) by antialiased bilinear.

    Args:
        images: uint8 ``(N, C, H, W)`` with C equal to that of ``shape``, or 1 or 3.
        shape: ``(C, H, W)`` wanted; of voxels, ``(1, D, H, W)`` as they are.

    Returns:
        uint8 ``(N, *shape)``; the same tensor if nothing has to be done.
    """
    if images.shape[1:] == shape:
        return images
    channels, height, width = shape
    result = torch.empty(len(images), *shape, dtype=torch.uint8)
    for chunk, out in zip(torch.split(images, CHUNK), torch.split(result, CHUNK), strict=True):
        if chunk.shape[1] == 3 and channels == 1:
            chunk = luminance(chunk)
        if chunk.shape[-2:] != (height, width):
            chunk = F.interpolate(chunk, size=(height, width), mode="bilinear", antialias=True)
        out.copy_(chunk.expand(-1, channels, -1, -1))
    return result


def binarize_once(images: Tensor, seed: int) -> Tensor:
    """Draw every pixel as 0 or 255, with its grey level as the probability of 255; binary images stay as they are."""
    generator = torch.Generator().manual_seed(seed)
    draw = BatchTransform(binarization="stochastic")
    return torch.cat([draw(chunk, generator).mul_(255).to(torch.uint8) for chunk in torch.split(images, CHUNK)])
