"""What one look at a solid tells of it: the input of shape completion."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

View = Literal["+x", "-x", "+y", "-y", "+z", "-z"]

SIDES: dict[View, tuple[int, bool]] = {
    "+x": (2, True), "-x": (2, False), "+y": (3, True), "-y": (3, False), "+z": (4, True), "-z": (4, False),
}  # fmt: skip
"""Dimension along which the camera looks, and whether it stands at its large end."""


class DepthObservation(NamedTuple):
    """Voxels as a depth camera leaves them."""

    observed: Tensor
    """(B, 1, D, H, W) bool: free as far as the camera sees, or the surface it sees; the rest is unknown."""
    values: Tensor
    """(B, 1, D, H, W): the voxels where they are observed, 0 elsewhere."""


def observe_depth(voxels: Tensor, view: View, threshold: float = 0.5) -> DepthObservation:
    """What an orthographic depth camera reveals of voxels (the 2.5-D input of Wu et al. 2015, section 3.2).

    The camera looks along an axis: each of its rays observes free voxels up to the first solid one, and that one. All
    behind it is unknown, and a ray that meets nothing observes the whole of its way as free.

    Example:
        >>> voxels = torch.tensor([0.0, 1.0, 1.0, 0.0]).view(1, 1, 4, 1, 1)
        >>> observe_depth(voxels, "-x").observed.flatten().tolist()
        [True, True, False, False]
        >>> observe_depth(voxels, "+x").observed.flatten().tolist()
        [False, False, True, True]

    Args:
        voxels: ``(B, 1, D, H, W)`` in [0, 1]; D, H and W are x, y and z.
        view: side of the grid on which the camera stands: ``-y`` looks towards large y.
        threshold: voxels above this are solid.

    Returns:
        The mask of observed voxels and their values.

    Raises:
        ValueError: no such view, or no voxels.
    """
    if view not in SIDES:
        raise ValueError(f"view must be one of {', '.join(SIDES)}, the side on which the camera stands; got {view!r}")
    if voxels.ndim != 5:
        raise ValueError(f"voxels must be (B, 1, D, H, W), got {tuple(voxels.shape)}")
    dim, from_far_end = SIDES[view]
    solid = (voxels > threshold).to(torch.int32)
    solid = solid.flip(dim) if from_far_end else solid
    in_front = solid.cumsum(dim) - solid  # solid voxels between the camera and this one
    observed = in_front == 0
    observed = observed.flip(dim) if from_far_end else observed
    return DepthObservation(observed, voxels * observed)
