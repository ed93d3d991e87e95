"""A single depth view of voxels."""

import itertools
from typing import get_args

import pytest
import torch

from lit_gen.inference import observe_depth
from lit_gen.inference.depth import View

VIEWS = get_args(View)


@pytest.mark.parametrize("view", VIEWS)
def test_every_ray_observes_up_to_its_first_solid_voxel(view: View) -> None:
    voxels = torch.rand(3, 1, 4, 5, 6) * (torch.rand(3, 1, 4, 5, 6) < 0.6)
    observed, values = observe_depth(voxels, view)
    axis = "xyz".index(view[1])
    sides = voxels.shape[2:]
    expected = torch.zeros_like(observed)
    rays = itertools.product(range(3), *[range(side) for number, side in enumerate(sides) if number != axis])
    for shape, *across in rays:
        order = range(sides[axis])
        for step in reversed(order) if view[0] == "+" else order:
            place = across.copy()
            place.insert(axis, step)
            expected[shape, 0][tuple(place)] = True
            if voxels[shape, 0][tuple(place)] > 0.5:
                break
    assert torch.equal(observed, expected)
    assert torch.equal(values, torch.where(expected, voxels, 0))


@pytest.mark.parametrize("view", VIEWS)
def test_what_is_hidden_does_not_matter(view: View) -> None:
    voxels = (torch.rand(2, 1, 5, 5, 5) < 0.3).float()
    observed, values = observe_depth(voxels, view)
    assert not observed.all()
    changed = observe_depth(torch.where(observed, voxels, 1 - voxels), view)
    assert torch.equal(changed.observed, observed)
    assert torch.equal(changed.values, values)


def test_an_empty_grid_is_observed_as_a_whole() -> None:
    assert observe_depth(torch.zeros(1, 1, 3, 3, 3), "+z").observed.all()
    table = torch.zeros(1, 1, 3, 3, 3)
    table[..., 1] = 1
    above, below = observe_depth(table, "+z").observed, observe_depth(table, "-z").observed
    assert [layer.all().item() for layer in above.unbind(-1)] == [False, True, True]
    assert [layer.all().item() for layer in below.unbind(-1)] == [True, True, False]


def test_threshold() -> None:
    faint = torch.full((1, 1, 2, 1, 1), 0.3)
    assert observe_depth(faint, "-x").observed.all()
    assert observe_depth(faint, "-x", threshold=0.1).observed.sum() == 1


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"view must be one of \+x, -x.*got 'front'"):
        observe_depth(torch.zeros(1, 1, 2, 2, 2), "front")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"voxels must be \(B, 1, D, H, W\), got \(2, 2, 2\)"):
        observe_depth(torch.zeros(2, 2, 2), "+x")
