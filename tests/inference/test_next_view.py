"""The next view is the one that settles what a shape may be."""

import math

import torch
from torch import Tensor

from lit_gen.inference.next_view import view_information

SHAPE = (1, 3, 3, 3)


def worlds() -> Tensor:
    """Two equally likely shapes, ``(2, 1, 3, 3, 3)``: a wall, which hides what is on its far side, with or without."""
    shapes = torch.zeros(2, *SHAPE)
    shapes[:, :, :, 1] = 1  # the wall across y
    shapes[1, 0, 1, 2, 1] = 1  # behind its middle
    return shapes


def recognize(voxels: Tensor, observed: Tensor) -> Tensor:
    """The posterior over :func:`worlds` by comparing what has been seen."""
    differ = ((voxels[:, None] != worlds()) & observed[:, None]).flatten(2).any(2)
    return torch.softmax(torch.where(differ, -torch.inf, 0.0), 1)


def test_only_views_that_tell_the_worlds_apart_have_information() -> None:
    voxels = worlds()[:1]
    observed = torch.zeros(1, *SHAPE, dtype=torch.bool)
    observed[:, :, :, :2] = True  # seen from -y: free space and the wall
    guesses = worlds()[:, None]
    information = view_information(recognize, guesses, voxels, observed, ["-y", "+y", "+x", "-z"])
    expected = torch.tensor([[0.0, math.log(2), math.log(2), math.log(2)]])
    torch.testing.assert_close(information, expected)


def test_nothing_is_left_to_learn_once_it_has_been_seen() -> None:
    voxels = worlds()
    observed = torch.ones(2, *SHAPE, dtype=torch.bool)
    information = view_information(recognize, worlds()[:, None].expand(-1, 2, -1, -1, -1, -1), voxels, observed, ["+y"])
    torch.testing.assert_close(information, torch.zeros(2, 1))


def test_what_has_not_been_seen_does_not_matter() -> None:
    voxels, guesses = worlds()[:1], worlds()[:, None]
    observed = torch.zeros(1, *SHAPE, dtype=torch.bool)
    observed[:, :, :, :2] = True
    changed = torch.where(observed, voxels, 1 - voxels)
    ours, others = (view_information(recognize, guesses, some, observed, ["+y", "+z"]) for some in (voxels, changed))
    assert torch.equal(ours, others)
