"""Transformations of images and their parameters."""

import math

import pytest
import torch

from lit_gen.models import PublishedTransformation

FULL = PublishedTransformation(ramp=None)
NAMES = ("mirror", "right", "down", "rotation", "zoom", "squeeze", "lightness", "saturation", "hue")


def changed(images: torch.Tensor, **numbers: float) -> torch.Tensor:
    """The images in the transformation with these numbers, masks in a channel behind."""
    vector = torch.tensor([[numbers.get(name, 0.0) for name in NAMES]]).expand(len(images), -1)
    return torch.cat(FULL(images[:, :3], images[:, 3:], vector), 1)


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.rand(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def test_the_zero_vector_changes_nothing_at_all(pictures: torch.Tensor) -> None:
    assert torch.equal(changed(pictures), pictures)


def test_geometry_against_exact_movements(pictures: torch.Tensor) -> None:
    close = {"atol": 1e-5, "rtol": 0}
    torch.testing.assert_close(changed(pictures, mirror=1), pictures.flip(3), **close)
    torch.testing.assert_close(changed(pictures, rotation=math.pi / 2), torch.rot90(pictures, 1, (2, 3)), **close)
    moved = changed(pictures, right=2 / 16, down=-3 / 16)
    torch.testing.assert_close(moved[:, :, :-3, 2:], pictures[:, :, 3:, :-2], **close)
    assert not moved[:, :, -3:].any()
    # Mirrored first, then turned.
    both = changed(pictures, mirror=1, rotation=math.pi / 2)
    torch.testing.assert_close(both, torch.rot90(pictures.flip(3), 1, (2, 3)), **close)


def test_zoom_and_squeeze_by_their_areas() -> None:
    block = torch.zeros(1, 4, 64, 64)
    block[:, :, 24:40, 20:44] = 1
    wide = changed(block, zoom=math.log(1.5), squeeze=2 * math.log(1.25))[0, 3]
    rows, columns = (wide > 0.5).any(1).sum(), (wide > 0.5).any(0).sum()
    assert rows == pytest.approx(16 * 1.5 / 1.25, abs=1)
    assert columns == pytest.approx(24 * 1.5 * 1.25, abs=1)


def test_colours_against_what_they_mean(pictures: torch.Tensor) -> None:
    dim = torch.cat([pictures[:, :3] / 2, pictures[:, 3:]], 1)
    colours = dim[:, :3]
    torch.testing.assert_close(changed(dim, lightness=math.log(1.5))[:, :3], 1.5 * colours)
    grey = changed(dim, saturation=-30)[:, :3]
    torch.testing.assert_close(grey, colours.mean(1, keepdim=True).expand_as(grey))
    # A third of a turn about the grey axis takes red to green, green to blue, and blue to red.
    torch.testing.assert_close(changed(dim, hue=2 * math.pi / 3)[:, :3], colours.roll(1, 1))
    assert torch.equal(changed(dim, hue=1.0)[:, 3], dim[:, 3]), "masks have no colour"


def test_objects_stay_in_the_frame() -> None:
    masks = torch.zeros(200, 1, 32, 32)
    masks[:, :, 10:30, 6:14] = 1
    torch.manual_seed(0)
    parameters = FULL.draw(masks, 0)
    assert FULL.fits(masks, parameters).float().mean() > 0.99
    _, moved = FULL(masks.expand(-1, 3, -1, -1), masks, parameters)
    zoom = torch.exp(2 * parameters[:, 4])
    inside = FULL.fits(masks, parameters)
    torch.testing.assert_close(moved.sum((1, 2, 3))[inside] / 160, zoom[inside], atol=0.15, rtol=0.05)
    assert not FULL.fits(masks, torch.tensor([[0, 0.6, 0, 0, 0, 0, 0, 0, 0.0]]).expand(200, -1)).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_drawn_is_full_precision_whatever_the_masks_are(dtype: torch.dtype) -> None:
    masks = torch.zeros(50, 1, 16, 16, dtype=dtype)
    masks[:, :, 5:9, 4:12] = 1
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        parameters = FULL.draw(masks, 0)
        images, moved = FULL(masks.expand(-1, 3, -1, -1), masks, parameters)
    finally:
        torch.set_default_dtype(before)
    assert parameters.dtype == images.dtype == moved.dtype == torch.float32
    assert parameters[:, 1:].unique().numel() == 50 * 8, "not rounded"


def test_mixed_precision_leaves_transformations_as_they_are(pictures: torch.Tensor) -> None:
    numbers = {"rotation": 0.2, "right": 0.05, "zoom": 0.1, "hue": 0.3}
    plain = changed(pictures, **numbers)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = changed(pictures, **numbers)
    assert torch.equal(mixed, plain)


def test_places_move_forward_as_the_inverse_says() -> None:
    torch.manual_seed(0)
    parameters = torch.cat([torch.tensor([[0.0], [1.0]]).repeat(5, 1), 0.5 * torch.randn(10, 8)], 1).double()
    places = torch.randn(10, 2, 6).double()
    size = (48, 20)
    moved = torch.cat([FULL.forward_places(parameters, places, size), torch.ones(10, 1, 6)], 1)
    torch.testing.assert_close(FULL.affine(parameters, size) @ moved, places)


def test_turning_keeps_shapes_where_images_are_not_square() -> None:
    block = torch.zeros(1, 4, 64, 32)
    block[:, :, 28:36, 8:24] = 1
    turned = changed(block, rotation=math.pi / 2)[0, 3] > 0.5
    assert (turned.any(1).sum(), turned.any(0).sum()) == (16, 8)
    # Against the pixels' own coordinates: x to the right, y upwards, counter-clockwise.
    angle = 0.4
    found = changed(block, rotation=angle, right=1 / 8, down=1 / 16)[0, 3]
    x, y = torch.meshgrid(torch.arange(32) - 15.5 - 4, 31.5 + 4 - torch.arange(64), indexing="xy")
    back_x = math.cos(angle) * x + math.sin(angle) * y
    back_y = math.cos(angle) * y - math.sin(angle) * x
    inside = (back_x.abs() < 8) & (back_y.abs() < 4)
    assert ((found > 0.5) == inside).float().mean() > 0.99


def test_whether_an_object_fits_is_judged_where_it_is_drawn() -> None:
    # Upright, 40 of 64 pixels; lying, it would need 40 of 32.
    masks = torch.zeros(2, 1, 64, 32)
    masks[:, :, 12:52, 12:20] = 1
    parameters = torch.zeros(2, 9)
    parameters[0, 3] = math.pi / 2
    parameters[1, 3] = 0.2
    assert FULL.fits(masks, parameters).tolist() == [False, True]


def test_ranges_grow_with_the_steps() -> None:
    masks = torch.zeros(500, 1, 8, 8)
    masks[:, :, 3:5, 3:5] = 1
    transformation = PublishedTransformation(ramp=1e-2, length=28)
    torch.manual_seed(0)
    largest = [transformation.draw(masks, step)[:, 1:].abs().amax(0) for step in (0, 100, 10_000)]
    assert largest[0].shape == (27,)
    assert not largest[0].any()
    ranges = torch.tensor([*transformation.ranges, *19 * [0.0]])
    for share, found in zip((math.tanh(0.5), 1.0), largest[1:]):
        assert (found <= share * ranges + 1e-6).all()
        assert (found[:8] > 0.9 * share * ranges[:8]).all()


def test_impossible_ranges_are_refused() -> None:
    with pytest.raises(ValueError, match="mirror must be a probability"):
        PublishedTransformation(mirror=2)
    with pytest.raises(ValueError, match="length must be at least 9, got 8"):
        PublishedTransformation(length=8)
