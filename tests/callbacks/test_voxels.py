"""Pictures of voxels, and the callback that logs them."""

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from lit_gen.callbacks import SampleGrid, VoxelGrid, default_callbacks, render_voxels
from lit_gen.data import Synthetic
from lit_gen.models import VAE
from lit_gen.rendering import VIEW, camera, render
from tests.callbacks.tiny import small, trainer, vae

SHAPE = (1, 9, 8, 7)


def one(*place: slice | int, shape: tuple[int, ...] = (10, 10, 10)) -> torch.Tensor:
    voxels = torch.zeros(1, 1, *shape)
    voxels[0, 0][place] = 1
    return voxels


def seen(picture: torch.Tensor) -> torch.Tensor:
    return (picture < 0.99).any(0)


def centre(picture: torch.Tensor) -> tuple[float, float]:
    """Row and column of the middle of what is seen, from -1 to 1."""
    rows, columns = seen(picture).nonzero(as_tuple=True)
    half = len(picture[0]) / 2
    return float((rows.min() + rows.max() + 1) / 2 / half - 1), float(
        (columns.min() + columns.max() + 1) / 2 / half - 1
    )


@pytest.mark.parametrize(("azimuth", "elevation"), [(0, 0), (30, 20), (-60, 25), (135, -40), (200, 80)])
def test_a_voxel_appears_where_the_camera_projects_it(azimuth: float, elevation: float) -> None:
    place = (7, 2, 8)
    (picture,) = render_voxels(one(*place), azimuth, elevation, size=128)
    turn, tilt = math.radians(azimuth), math.radians(elevation)
    x, y, z = (index + 0.5 - 5 for index in place)
    across = -x * math.sin(turn) + y * math.cos(turn)
    up = z * math.cos(tilt) - (x * math.cos(turn) + y * math.sin(turn)) * math.sin(tilt)
    half = VIEW * max(50**0.5, 50**0.5 * abs(math.sin(tilt)) + 5 * math.cos(tilt))
    row, column = centre(picture)
    assert row == pytest.approx(-up / half, abs=0.03)
    assert column == pytest.approx(across / half, abs=0.03)


def test_camera_axes_are_orthonormal_and_right_handed() -> None:
    right, forward, up = camera(40.0, 30.0)
    axes = torch.stack([right, forward, up])
    assert torch.allclose(axes @ axes.T, torch.eye(3), atol=1e-6)
    assert torch.det(axes) == pytest.approx(1, abs=1e-6)


def test_the_nearest_voxel_hides_those_behind() -> None:
    near, both = one(9, slice(4, 6), slice(4, 6)), one(slice(3, 10), slice(4, 6), slice(4, 6))
    difference = (render_voxels(near, 0, 0) - render_voxels(both, 0, 0)).abs().amax(1)[0]
    hidden = seen(render_voxels(both, 0, 0)[0])
    assert torch.equal(hidden, seen(render_voxels(near, 0, 0)[0]))
    assert difference.max() < 0.15, "the same face; only its surroundings differ"


def test_area_of_a_block() -> None:
    (picture,) = render_voxels(one(slice(2, 8), slice(2, 8), slice(3, 7)), 0, 0, size=200)
    scale = 100 / (VIEW * 50**0.5)
    assert seen(picture).sum() == pytest.approx(6 * 4 * scale**2, rel=0.03)


def test_light_comes_from_above_and_corners_are_dark() -> None:
    block = one(slice(2, 8), slice(2, 8), slice(2, 8))
    (picture,) = render_voxels(block, 0, 45, size=100)
    top, front = picture[:, 40, 50].mean(), picture[:, 75, 50].mean()
    assert top > 1.15 * front
    stairs = one(slice(1, 5), slice(1, 9), slice(1, 9)) + one(slice(5, 9), slice(1, 9), slice(1, 3))
    (picture,) = render_voxels(stairs, 0, 45, size=100)
    column = picture[:, :, 50].mean(0)
    assert column[40:60].min() < 0.8 * column[75], "where the step meets the wall"


def test_empty_and_full_grids_of_any_shape() -> None:
    pictures = render_voxels(torch.stack([torch.zeros(SHAPE), torch.ones(SHAPE), torch.full(SHAPE, 0.5)]), size=16)
    assert pictures.shape == (3, 3, 16, 16)
    assert (pictures[[0, 2]] == 1).all(), "a probability of one half is not above one half"
    assert seen(pictures[1]).float().mean() > 0.4
    assert pictures.isfinite().all()
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    lower = render_voxels(torch.full((1, *SHAPE), 0.5), size=16, threshold=0.4)
    assert torch.allclose(lower[0], pictures[1], atol=1e-5)
    with pytest.raises(ValueError, match=r"voxels must be \(N, 1, D, H, W\), got \(1, 9, 8, 7\)"):
        render_voxels(torch.zeros(SHAPE))


def data() -> Synthetic:
    return Synthetic(image_shape=SHAPE, num_classes=3, num_train=20, num_val=10, num_test=10, batch_size=10)


def test_voxel_grid(tmp_path: Path) -> None:
    callback = VoxelGrid(num_samples=3, columns=2, size=32, frames=4, threshold=0.2)
    trainer(tmp_path, callback, SampleGrid(num_samples=2)).fit(VAE(SHAPE, 2, small, small), data())
    sizes = {}
    for key in ("voxels", "voxel_reconstructions", "turntable", "samples"):
        (path,) = (tmp_path / "images" / "val" / key).iterdir()
        with Image.open(path) as image:
            sizes[key] = (*image.size, getattr(image, "n_frames", 1))
    assert sizes["voxels"] == (2 * 66 + 2, 2 * 66 + 2, 1)  # two by two pictures of 32, enlarged to 64
    assert sizes["voxel_reconstructions"] == (2 * 66 + 2, 4 * 66 + 2, 1)
    assert sizes["turntable"] == (2 * 66 + 2, 2 * 66 + 2, 4)
    assert sizes["samples"] == (2 * 98 + 2, 98 + 2, 1)


def test_voxel_grid_is_for_voxels(tmp_path: Path) -> None:
    assert any(isinstance(callback, VoxelGrid) for callback in default_callbacks(VAE(SHAPE, 2, small, small)))
    assert not any(isinstance(callback, VoxelGrid) for callback in default_callbacks(vae()))
    assert not VoxelGrid().applies(vae())


@pytest.mark.parametrize("options", [{"threshold": 1.0}, {"frames": -1}, {"fps": 0}, {"size": 0}])
def test_wrong_arguments(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must (not )?be"):
        VoxelGrid(**options)  # type: ignore[arg-type]


def test_masks_and_paint_lie_where_the_shape_is() -> None:
    voxels = one(slice(2, 8), slice(2, 8), slice(2, 8))
    paint = torch.zeros(1, 3, 10, 10, 10)
    paint[:, 0, :, :, :5], paint[:, 1, :, :, 5:] = 1, 1  # red below, green above
    images, masks = render(voxels, 0, 0, size=80, paint=paint)
    assert masks.shape == (1, 1, 80, 80)
    assert torch.equal(masks[0, 0] > 0, seen(images[0]))
    assert torch.equal(masks, render(voxels, 0, 0, size=80).masks)
    inside = masks[0, 0] == 1
    below, above = images[0, :, 41:][:, inside[41:]], images[0, :, :39][:, inside[:39]]
    assert (below[0] > below[1]).all()
    assert (above[1] > above[0]).all()
    assert (images[0][:, masks[0, 0] == 0] == 1).all()


def test_paint_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be \(1, 3, 10, 10, 10\), got \(1, 10, 10, 10\)"):
        render(one(1, 1, 1), paint=torch.zeros(1, 10, 10, 10))
