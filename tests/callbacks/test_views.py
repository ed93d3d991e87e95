"""Turntables, view grids and morphs, and the measure of views held out."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lit_gen.callbacks import ClassMorph, HeldOutViews, Turntable, ViewGrid, default_callbacks
from lit_gen.callbacks.held_out_views import SeenViews, view_errors
from lit_gen.data import SyntheticChairs
from lit_gen.models import ChairGenerator
from lit_gen.models.base import RenderedViews
from lit_gen.networks import Shape, UpConvNetwork
from lit_gen.views import Views, ViewTarget
from tests.callbacks.tiny import trainer, vae

SHAPE = (3, 16, 16)


def network(input_shape: Shape, output_shape: Shape) -> UpConvNetwork:
    return UpConvNetwork(input_shape, output_shape, 4, 6, [4, 4], [4, 4])


def generator() -> ChairGenerator:
    torch.manual_seed(0)
    return ChairGenerator(SHAPE, 4, [(0, 20), (90, 20), (180, 30)], network)


def data(**arguments: Any) -> SyntheticChairs:
    return SyntheticChairs(4, grid=12, azimuths=8, image_size=16, batch_size=8, **arguments)


def test_pictures_of_views(tmp_path: Path) -> None:
    shown = [Turntable(3, 3, frames=4), ViewGrid(3, 5, (0, 20, 40)), ClassMorph(2, frames=5)]
    run = trainer(tmp_path, *shown)
    run.test(generator(), data(), verbose=False)
    images = tmp_path / "images" / "test"
    with Image.open(images / "turntable" / "00000000.gif") as turntable:
        assert 2 <= turntable.n_frames <= 4, "frames that look alike are one"  # type: ignore[attr-defined]
    with Image.open(images / "morphs" / "00000000.gif") as morphs:
        assert 2 <= morphs.n_frames <= 5  # type: ignore[attr-defined]
    sizes = {"azimuths": (5, 3), "elevations": (3, 3), "morphs": (7, 2)}
    for name, (columns, rows) in sizes.items():
        with Image.open(images / name / "00000000.png") as picture:
            assert picture.size == (66 * columns + 2, 66 * rows + 2), name


def test_a_morph_of_two_objects_goes_from_one_to_the_other(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ChairGenerator(SHAPE, 2, [(0, 20), (90, 20), (180, 30)], network)
    trainer(tmp_path, ClassMorph(1, frames=3)).test(
        model, SyntheticChairs(2, grid=12, azimuths=8, image_size=16, batch_size=8), verbose=False
    )
    with Image.open(tmp_path / "images" / "test" / "morphs" / "00000000.gif") as morph:
        assert morph.n_frames == 3, "frames that look alike are one"  # type: ignore[attr-defined]


def test_models_of_views_have_them_by_default_and_others_have_not() -> None:
    kinds = {type(callback) for callback in default_callbacks(generator())}
    assert {Turntable, ViewGrid, ClassMorph, HeldOutViews} <= kinds
    assert not {Turntable, HeldOutViews} & {type(callback) for callback in default_callbacks(vae())}


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ValueError, match="fps must be positive"):
        Turntable(fps=0)
    with pytest.raises(ValueError, match="degrees from -90 to 90"):
        ViewGrid(elevations=[100])
    with pytest.raises(ValueError, match="weights must be at least one"):
        ClassMorph(weights=[])


def test_errors_of_what_is_known() -> None:
    images, masks = torch.full((2, 3, 4, 4), 0.5), torch.zeros(2, 1, 4, 4)
    masks[:, :, :2] = 1
    found = view_errors(RenderedViews(images, masks), images, masks)
    assert found["mse"].tolist() == [0, 0]
    assert found["iou"].tolist() == [1, 1]
    shown = images.clone()
    shown[0, :, :2] += 0.1
    shown[1, :, 2:] += 0.3  # outside of the mask
    half = masks.clone()
    half[0, :, 1] = 0
    half[1, :, 2] = 1
    found = view_errors(RenderedViews(shown, half), images, masks)
    assert found["mse"].tolist() == pytest.approx([0.01, 0])
    assert float(found["psnr"][0]) == pytest.approx(20, abs=1e-3)
    assert found["iou"].tolist() == pytest.approx([1 / 2, 2 / 3])


def seen() -> SeenViews:
    """Of class 0 views at 0, 90 and 200 degrees, of class 1 one at 100: images as grey as their number."""
    degrees = torch.tensor([[0.0, 20], [90, 20], [200, 20], [100, 20], [80, 60]])
    classes = torch.tensor([0, 0, 0, 1, 0])
    grey = (torch.arange(5.0) / 5).view(5, 1, 1, 1)
    target = ViewTarget(classes, degrees[:, 0].deg2rad(), degrees[:, 1].deg2rad(), grey.expand(5, 1, 2, 2))
    return SeenViews([(grey.expand(5, 3, 2, 2), target)])


def views(number: int, azimuth: float, elevation: float = 20) -> Views:
    return Views(torch.tensor([number]), torch.tensor([azimuth]).deg2rad(), torch.tensor([elevation]).deg2rad())


@pytest.mark.parametrize(
    ("number", "azimuth", "nearest", "interpolated"),
    [
        (0, 30.0, 0.0, 1 / 3 * 0.2),
        (0, 150.0, 0.4, 50 / 110 * 0.2 + 60 / 110 * 0.4),
        (0, 320.0, 0.0, 40 / 160 * 0.4),  # between 200 and 360
        (0, 90.0, 0.2, 0.2),
        (1, 30.0, 0.6, 0.6),  # the only one
    ],
)
def test_views_that_stand_in(number: int, azimuth: float, nearest: float, interpolated: float) -> None:
    stand_in, wanted = seen(), views(number, azimuth)
    for found, value in ((stand_in.nearest(wanted), nearest), (stand_in.interpolated(wanted), interpolated)):
        assert float(found.images.mean()) == pytest.approx(value, abs=0.003)
        assert float(found.masks.mean()) == pytest.approx(value, abs=0.003)


def test_another_elevation_is_nearer_from_above() -> None:
    assert float(seen().nearest(views(0, 84.0, 58)).images.mean()) == pytest.approx(0.8, abs=0.003)
    assert seen().few(torch.tensor([0, 1, 0])).tolist() == [False, True, False]


def weights(places: list[tuple[int, float, float]], wanted: Views) -> dict[tuple[int, float, float], float]:
    """How much of each view (class, azimuth and elevation in degrees) is in the interpolated one."""
    degrees = torch.tensor([place[1:] for place in places]).deg2rad()
    # The picture of each view has one white pixel, its own.
    pixels = torch.eye(len(places)).view(-1, 1, 1, len(places))
    target = ViewTarget(torch.tensor([place[0] for place in places]), *degrees.unbind(1), pixels)
    found = SeenViews([(pixels.expand(-1, 3, -1, -1), target)]).interpolated(wanted)
    torch.testing.assert_close(found.images[0, 0], found.masks[0, 0])
    return {place: round(share, 3) for place, share in zip(places, found.masks.flatten().tolist()) if share > 1e-3}


def angle(azimuth: float, elevation: float, other_azimuth: float, other_elevation: float) -> float:
    """Between two directions in degrees, by the law of cosines on the sphere; in degrees."""
    turn = math.radians(azimuth - other_azimuth)
    low, high = math.radians(elevation), math.radians(other_elevation)
    cosine = math.sin(low) * math.sin(high) + math.cos(low) * math.cos(high) * math.cos(turn)
    return math.degrees(math.acos(cosine))


DENSE = [(0, 30.0 * n, elevation) for n in range(12) for elevation in (20.0, 30.0)]
SPARSE = [(1, 0.0, 20.0), (1, 90.0, 30.0), (1, 180.0, 20.0), (1, 270.0, 30.0)]


@pytest.mark.parametrize("elevation", [20.0, 30.0])
def test_few_views_are_interpolated_at_all_elevations(elevation: float) -> None:
    for azimuth in range(5, 360, 10):
        before, after = SPARSE[azimuth // 90], SPARSE[(azimuth // 90 + 1) % 4]
        near, far = (angle(azimuth, elevation, *place[1:]) for place in (before, after))
        expected = {before: far / (near + far), after: near / (near + far)}
        assert weights(DENSE + SPARSE, views(1, azimuth, elevation)) == pytest.approx(expected, abs=0.002)
    # From where there is a view at another elevation: that one.
    assert weights(DENSE + SPARSE, views(1, 90, 20)) == {SPARSE[1]: 1}


def test_many_views_are_interpolated_at_the_next_elevation() -> None:
    for elevation in (20.0, 30.0):
        halves = {(0, 30.0, elevation): 0.5, (0, 60.0, elevation): 0.5}
        assert weights(DENSE + SPARSE, views(0, 45, elevation)) == pytest.approx(halves, abs=0.002)


def test_between_elevations_pixels_of_both_are_mixed_and_beyond_them_those_of_the_next() -> None:
    quarter = {
        (0, azimuth, elevation): share for azimuth in (30.0, 60.0) for elevation, share in ((20, 0.35), (30, 0.15))
    }
    assert weights(DENSE, views(0, 45, 23)) == pytest.approx(quarter, abs=0.004)
    assert weights(DENSE, views(0, 60, 25)) == pytest.approx({(0, 60, 20): 0.5, (0, 60, 30): 0.5}, abs=0.004)
    for elevation, level in ((10, 20), (40, 30)):
        assert weights(DENSE, views(0, 60, elevation)) == {(0, 60, level): 1}


class Oracle(ChairGenerator):
    """Knows all views of the data by heart: a renderer in the place of a network."""

    stored: SeenViews | None = None

    def render_views(self, views: Views) -> RenderedViews:
        if self.stored is None:
            self.stored = SeenViews(data(held_out_every=0).train_dataloader())
        return self.stored.nearest(Views(*(part.cpu() for part in views)))


def test_held_out_views_are_measured(tmp_path: Path) -> None:
    torch.manual_seed(0)
    oracle = Oracle(SHAPE, 4, network=network)
    few = data(few_view_classes=1, few_views=2)
    results = trainer(tmp_path, HeldOutViews(6, 3)).test(oracle, few, verbose=False)[0]
    for group in ("", "transfer_"):
        assert results[f"test/{group}view_mse"] < 1e-5
        assert results[f"test/{group}view_iou"] == pytest.approx(1, abs=1e-3)
        for other in ("nearest_", "interpolated_"):
            assert results[f"test/{other}{group}view_mse"] > 1e-3
            assert results[f"test/{other}{group}view_iou"] < 0.99
    # With fewer views these are farther away.
    assert results["test/nearest_transfer_view_iou"] < results["test/nearest_view_iou"]
    with Image.open(tmp_path / "images" / "test" / "held_out_views" / "00000000.png") as picture:
        assert picture.size == (66 * 3 + 2, 66 * 8 + 2)


def test_elevations_that_are_held_out_are_measured_apart(tmp_path: Path) -> None:
    torch.manual_seed(0)

    class Flat(ChairGenerator):
        """Knows elevations up to 30 degrees; from higher up it shows nothing."""

        def render_views(self, views: Views) -> RenderedViews:
            known = Oracle.render_views(self, views)  # type: ignore[arg-type]
            low = (views.elevation < math.radians(35))[:, None, None, None]
            return RenderedViews(*(part.where(low, 0) for part in known))

        stored = SeenViews(data(held_out_every=0, elevations=[20.0, 30.0, 40.0]).train_dataloader())

    options = {"elevations": [20.0, 30.0, 40.0], "held_out_elevations": [40.0], "few_view_classes": 1, "few_views": 2}
    run = trainer(tmp_path, HeldOutViews(6, 3))
    results = run.test(Flat(SHAPE, 4, network=network), data(**options), verbose=False)[0]
    for group, known in (("", True), ("transfer_", True), ("elevation_", False), ("transfer_elevation_", False)):
        assert (results[f"test/{group}view_iou"] == pytest.approx(1, abs=1e-3)) is known
        assert results[f"test/{group}view_iou"] > 0 if known else results[f"test/{group}view_iou"] == 0
        for other in ("nearest_", "interpolated_"):
            assert 0.1 < results[f"test/{other}{group}view_iou"] < 0.99


def test_measure_is_idle_without_views_or_data(tmp_path: Path) -> None:
    loader = data().test_dataloader()
    results = trainer(tmp_path, HeldOutViews()).test(generator(), loader, verbose=False)[0]
    assert "test/loss" in results
    assert math.isfinite(results["test/loss"])
    assert not any("view" in name for name in results)
