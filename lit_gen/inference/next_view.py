"""Where to look next: the view that is expected to tell most of what a shape is."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lit_gen.inference.depth import View, observe_depth

Recognize = Callable[[Tensor, Tensor], Tensor]
"""Voxels ``(B, 1, D, H, W)`` and which of them have been seen -> p(class given those), ``(B, K)``."""


def view_information(
    recognize: Recognize, guesses: Tensor, voxels: Tensor, observed: Tensor, views: Sequence[View]
) -> Tensor:
    """Mutual information of the class and what a camera would see from each view, given what has been seen.

    I(y; view) = H(y given seen) - E_guess H(y given seen and what the view would show of the guess); the best next view
    has the largest.

    Source: Wu et al. 2015, 3D ShapeNets, section 4.

    Args:
        recognize: gives class probabilities of half-seen shapes.
        guesses: ``(P, B, 1, D, H, W)`` in [0, 1], draws from p(voxels given seen); above 0.5 is solid.
        voxels: ``(B, 1, D, H, W)``; what they are where they are not observed does not matter.
        observed: of the same shape, bool.
        views: sides of the grid where the camera may stand next.

    Returns:
        ``(B, len(views))`` nats; an estimate, which may be a little below 0.
    """
    now = entropy(recognize(voxels, observed))
    solid = torch.where(observed, voxels, (guesses > 0.5).to(voxels))
    shapes, seen = solid.flatten(0, 1), observed.expand_as(solid).flatten(0, 1)
    then = [entropy(recognize(shapes, seen | observe_depth(shapes, view).observed)) for view in views]
    return now[:, None] - torch.stack(then, 1).unflatten(0, (len(guesses), -1)).mean(0)


def entropy(probabilities: Tensor) -> Tensor:
    """Of classes, in nats: ``(B, K) -> (B,)``."""
    return -torch.xlogy(probabilities, probabilities).sum(1)
