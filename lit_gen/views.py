"""Objects seen from somewhere: what a data set of views says of its images, and what a model of views takes."""

from typing import NamedTuple

import torch
from torch import Tensor


class Views(NamedTuple):
    """What B images show, and from where."""

    classes: Tensor  # (B,) int64, or (B, num_classes) weights of a mixture
    azimuth: Tensor  # (B,) radians, counter-clockwise from above
    elevation: Tensor  # (B,) radians, upwards


class ViewTarget(NamedTuple):
    """The target of a batch of B images."""

    classes: Tensor  # (B,) int64
    azimuth: Tensor  # (B,) radians, counter-clockwise from above
    elevation: Tensor  # (B,) radians, upwards
    mask: Tensor  # (B, 1, H, W) in [0, 1]: how much of each pixel the object covers

    @property
    def views(self) -> Views:
        """All but the mask."""
        return Views(self.classes, self.azimuth, self.elevation)


def encode_view(azimuth: Tensor, elevation: Tensor) -> Tensor:
    """Sine and cosine of both angles: ``(B,)`` twice, in radians, to ``(B, 4)``; whole turns make no difference.

    >>> encode_view(torch.zeros(1), torch.zeros(1))
    tensor([[0., 1., 0., 1.]])
    """
    return torch.stack([azimuth.sin(), azimuth.cos(), elevation.sin(), elevation.cos()], 1)
