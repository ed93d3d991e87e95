"""The pictures of free energies and the pseudo-likelihood, as they are logged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_gen.callbacks import EnergyLandscape, PseudoLikelihood, default_callbacks
from lit_gen.callbacks.charts import Chart, Panel, ticks
from lit_gen.callbacks.landscape import DREAMS, IMAGES, Look, between, draw
from lit_gen.inference import pseudo_log_likelihood
from lit_gen.models import RBM
from lit_gen.networks import GaussianVisible
from tests.callbacks.tiny import data, trainer, vae


def rbm(**arguments: Any) -> RBM:
    return RBM((1, 8, 8), 6, sample_steps=3, **arguments)


def near(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Where a picture ``(H, W, 3)`` has about this colour."""
    distance = np.abs(picture.astype(int) - np.array(color)).max(2)
    return np.asarray(distance < 40)


def test_binary_pixels_are_exchanged_one_by_one() -> None:
    start, end = torch.zeros(4, 1, 5, 5), torch.ones(4, 1, 5, 5)
    way = between(start, end, 11, binary=True)
    assert torch.equal(way[0], start)
    assert torch.equal(way[-1], end)
    assert set(way.unique().tolist()) == {0.0, 1.0}
    exchanged = way.flatten(2).sum(2)
    assert (way.diff(dim=0) >= 0).all(), "a pixel that was exchanged stays so"
    assert exchanged[5].mean().item() == pytest.approx(12.5, abs=5)
    line = between(start, end, 5, binary=False)
    assert line[:, 0, 0, 0, 0].tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_a_picture_for_each_epoch_and_test(tmp_path: Path) -> None:
    callback, model = EnergyLandscape(num_images=8, steps=4, rows=2, every_n_epochs=1), rbm()
    run = trainer(tmp_path, callback, max_epochs=12)
    before = model.weight.detach().clone()
    run.fit(model, data())
    assert not torch.equal(before, model.weight)
    names = sorted(path.name for path in (tmp_path / "images" / "val" / "energy_landscape").iterdir())
    assert len(names) == 12
    epochs = [look.epoch for look in callback._looks]
    assert epochs[0] == 0
    assert epochs[-1] == 11
    assert len(epochs) <= 8
    last = callback._looks[-1]
    assert last.images.mean().item() == pytest.approx(0, abs=1e-9)
    assert torch.equal(last.way[-1], last.dreams)
    state = callback.state_dict()
    resumed = EnergyLandscape()
    resumed.load_state_dict(state)
    assert torch.equal(resumed._looks[-1].way, last.way)
    run.test(model, data(), verbose=False)
    assert len(list((tmp_path / "images" / "test" / "energy_landscape").iterdir())) == 1
    assert len(callback._looks) == len(epochs), "a test belongs to no curve of training"


def test_free_energies_are_those_of_the_model(tmp_path: Path) -> None:
    model, callback = rbm(initial_weight_std=1.0), EnergyLandscape(num_images=6)
    source = data()
    source.setup("fit")
    images = next(iter(source.val_dataloader()))[0][:6]
    with torch.no_grad():
        look = callback._look(3, model, images)
        energies = model.free_energy(images).double()
    torch.testing.assert_close(look.images, energies - energies.mean())
    assert look.way.shape == (25, 6)
    dreams = model.dream(50)
    assert dreams.shape == (50, 1, 8, 8)
    assert set(dreams.unique().tolist()) == {0.0, 1.0}
    grey = rbm(visible=GaussianVisible).dream(50)
    assert grey.min() < 0, "the noise of the pixels is there"
    assert not grey.requires_grad


def test_what_the_picture_shows() -> None:
    """Images around 0 and dreams around 50: blue left, orange right, and a ridge on the way."""
    images, dreams = torch.randn(100).double(), 50 + torch.randn(100).double()
    weights = torch.linspace(0, 1, 9).double()[:, None]
    way = images + weights * (dreams - images) + 400 * weights * (1 - weights)
    picture = draw([Look(0, images, dreams, way), Look(7, images, dreams, way)])
    assert picture.shape[0] == 3
    pixels = (picture * 255).byte().permute(1, 2, 0).numpy()
    blue, orange = (np.nonzero(near(pixels[45:-60, :495], color))[1] for color in (IMAGES, DREAMS))
    # Baselines run along the whole width; most of each colour is where its own histogram is.
    assert np.median(blue) < np.median(orange)
    dark = np.nonzero(near(pixels[:, 605:965], (10, 40, 90)))
    ends = [dark[0][dark[1] < 20].min(), dark[0][dark[1] > 340].min()]
    assert dark[0].min() < min(ends) - 50, "the middle of the way lies higher"
    constant = torch.zeros(5).double()
    assert draw([Look(0, constant, constant, torch.zeros(3, 5).double())]).isfinite().all()


def test_axes() -> None:
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(-1234, 987) == [-1000, -500, 0, 500]
    chart = Chart(100, 80)
    panel = Panel(chart, (10, 20, 90, 60), (0, 4), (-1, 1))
    assert panel.place(1, 0) == (30, 40)
    assert panel.place(9, 7) == (90, 20), "what is outside lies on the edge"
    panel.curve([0, 4], [0, 0], (255, 0, 0), 4)
    red = near((chart.tensor() * 255).byte().permute(1, 2, 0).numpy(), (255, 0, 0))
    assert red[40, 12:88].all()
    assert not red[30].any()
    panel.band([1, 3], [-1, -1], [1, 1], (0, 0, 255), 0.5)
    colors = (chart.tensor() * 255).round().int()
    assert colors[:, 30, 50].tolist() == pytest.approx([127, 127, 255], abs=2)
    assert colors[:, 30, 20].tolist() == [255, 255, 255]
    assert colors[:, 15, 50].tolist() == [255, 255, 255]


def test_pseudo_likelihood_is_logged(tmp_path: Path) -> None:
    model = rbm(initial_weight_std=0.5)
    source = data(num_test=13)
    (result,) = trainer(tmp_path, PseudoLikelihood()).test(model, source, verbose=False)
    images = torch.cat([batch for batch, _ in source.test_dataloader()])
    exact = pseudo_log_likelihood(model.visible_free_energy, images.flatten(1))
    runs = [model.pseudo_log_likelihood(images).mean().item() for _ in range(400)]
    spread = torch.tensor(runs).std().item()
    assert sum(runs) / 400 == pytest.approx(exact.mean().item(), abs=4 * spread / 20)
    assert result["test/pseudo_log_likelihood"] == pytest.approx(exact.mean().item(), abs=5 * spread)
    (again,) = trainer(tmp_path, PseudoLikelihood()).test(model, source, verbose=False)
    assert again["test/pseudo_log_likelihood"] == result["test/pseudo_log_likelihood"]


def test_grey_pixels_have_none(tmp_path: Path) -> None:
    (result,) = trainer(tmp_path, PseudoLikelihood()).test(rbm(), data(binarization="none"), verbose=False)
    assert "test/pseudo_log_likelihood" not in result


def test_who_has_them() -> None:
    names = {type(callback).__name__ for callback in default_callbacks(rbm())}
    assert names >= {"EnergyLandscape", "PseudoLikelihood"}
    assert "PseudoLikelihood" not in {
        type(callback).__name__ for callback in default_callbacks(rbm(visible=GaussianVisible))
    }
    assert not {"EnergyLandscape", "PseudoLikelihood"} & {
        type(callback).__name__ for callback in default_callbacks(vae())
    }
    with pytest.raises(ValueError, match="steps and rows must be at least 2, got 1 and 8"):
        EnergyLandscape(steps=1)
