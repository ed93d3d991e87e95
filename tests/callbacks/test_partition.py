"""Log-likelihoods of machines whose partition function is known exactly."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.utils.data import DataLoader, TensorDataset

from lit_gen.callbacks import BestAndLast, Filters, LogPartition, ProgressBar, default_callbacks
from lit_gen.callbacks.images import centred
from lit_gen.models import DBM, RBM
from tests.callbacks.test_images import read, tiles
from tests.callbacks.tiny import data, trainer, vae


def rbm(**arguments: Any) -> RBM:
    return RBM((1, 8, 8), 6, sample_steps=3, **arguments)


def test_log_likelihood_is_that_of_enumeration(tmp_path: Path) -> None:
    model = rbm(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.2))
    run = trainer(tmp_path, LogPartition(200, 300, 50, raise_images=10), max_epochs=20)
    # 13 images: the second batch is smaller, and must count less.
    source = data(num_test=13)
    run.fit(model, source)
    (result,) = run.test(model, source, verbose=False)
    images = torch.cat([batch for batch, _ in source.test_dataloader()])
    exact = (-model.free_energy(images).mean() - model.exact_log_partition()).item()
    assert exact < -5
    for direction in ("ais", "reverse_ais"):
        assert result[f"test/log_likelihood_{direction}"] == pytest.approx(exact, abs=0.1)
        assert result[f"test/log_partition_{direction}"] == pytest.approx(model.exact_log_partition().item(), abs=0.1)
        assert 0 < result[f"test/log_partition_{direction}_standard_error"] < 0.1
        assert 100 < result[f"test/log_partition_{direction}_effective_sample_size"] <= 200.01
        ends = [result[f"test/log_partition_{direction}_{end}"] for end in ("low", "high")]
        middle, error = (result[f"test/log_partition_{direction}{name}"] for name in ("", "_standard_error"))
        assert ends == pytest.approx([middle - 3 * error, middle + 3 * error], abs=1e-4)
    assert result["test/log_likelihood_low"] < exact < result["test/log_likelihood_high"]
    assert result["test/log_likelihood_high"] - result["test/log_likelihood_low"] < 1
    assert result["test/log_likelihood_raise"] == pytest.approx(exact, abs=0.2)
    assert 0 < result["test/log_partition_raise_standard_error"] < 0.2
    (again,) = run.test(model, source, verbose=False)
    for name, value in result.items():
        assert "log_" not in name or again[name] == value, f"{name} depends on the state of the global generator"


def test_a_bound_is_called_one(tmp_path: Path) -> None:
    model = DBM((1, 8, 8), [6, 5], pretraining_epochs=0, sample_steps=3)
    run, source = trainer(tmp_path, LogPartition(200, 100, 20), max_epochs=3), data(num_test=13)
    run.fit(model, source)
    (result,) = run.test(model, source, verbose=False)
    images = torch.cat([batch for batch, _ in source.test_dataloader()])
    exact = (-model.free_energy_bound(images).mean() - model.exact_log_partition()).item()
    for name in ("ais", "reverse_ais"):
        assert result[f"test/lower_bound_{name}"] == pytest.approx(exact, abs=0.1)
    assert result["test/lower_bound_low"] < exact < result["test/lower_bound_high"]
    assert not any("log_likelihood" in name for name in result)


def test_measured_with_averaged_weights_during_training(tmp_path: Path) -> None:
    averaging = EMAWeightAveraging(decay=1.0, update_starting_at_step=0)
    model, values = rbm(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.2)), []

    class Seen(pl.Callback):
        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if not trainer.sanity_checking:
                values.append(float(trainer.callback_metrics["val/log_likelihood_ais"]))

    watcher = LogPartition(5, 10, 2, stages=["val"])
    trainer(tmp_path, averaging, watcher, Seen(), max_epochs=3).fit(model, data())
    # With a decay of 1 the average stays where the first step left it.
    assert values[0] == values[1] == values[2]


def test_a_contradiction_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """All pixels on or all off: the images are off, where the chains stay, and nearly all of the machine is on."""
    model = rbm()
    with torch.no_grad():
        model.weight.fill_(0.5)
        model.visible.get_parameter("bias").fill_(-1.5 + 0.15)
        model.hidden_bias.fill_(-16)
    dark = TensorDataset(torch.zeros(4, 1, 8, 8), torch.zeros(4))
    loader = DataLoader(dark, batch_size=4)
    (result,) = trainer(tmp_path, LogPartition(50, 300, 5)).test(model, loader, verbose=False)
    assert "contradict each other" in caplog.text
    exact = -model.free_energy(dark.tensors[0]).mean().item() - model.exact_log_partition().item()
    assert result["test/log_likelihood_low"] > exact + 1, "reverse AIS is no bound here"
    assert result["test/log_likelihood_high"] > exact, "AIS is"


def test_a_bar_where_the_trainer_has_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    callback = LogPartition(5, 10, 2, raise_images=5)
    trainer(tmp_path, callback).test(rbm(), data(), verbose=False)
    assert "AIS" not in capfd.readouterr().err
    trainer(tmp_path, callback, ProgressBar(), enable_progress_bar=True).test(rbm(), data(), verbose=False)
    shown = capfd.readouterr().err
    for name, steps in (("\rAIS", 9), ("reverse AIS", 9), ("RAISE", 10)):
        assert f"{name}: " in shown
        assert f"0/{steps}" in shown


def test_filters_lie_around_grey(tmp_path: Path) -> None:
    weights = torch.zeros(2, 1, 2, 2)
    weights[0, 0, 0, 0], weights[0, 0, 1, 1] = 4.0, -2.0
    shown = centred(weights)
    assert shown[0].flatten().tolist() == [1.0, 0.5, 0.5, 0.25]
    assert shown[1].eq(0.5).all(), "a unit without weights is grey"
    model = rbm(initial_weight_std=1.0)
    run = trainer(tmp_path, Filters(num_filters=4, columns=2))
    run.test(model, data(), verbose=False)
    grid = tiles(read(tmp_path / "images" / "test" / "filters" / "00000000.png"), 2, 2)
    strongest = model.filters()[model.weight.norm(dim=0).argmax()][0]
    expected = 0.5 + 0.5 * strongest / strongest.abs().max()
    assert (torch.tensor(grid[0, 0, ::8, ::8] / 255.0) - expected).abs().max() < 0.003


def test_defaults_of_an_energy_model(tmp_path: Path) -> None:
    names = {type(callback).__name__ for callback in default_callbacks(rbm())}
    assert names >= {"LogPartition", "Filters", "Trajectory", "ReconstructionGrid", "SampleGrid"}
    assert not names & {"LatentGrid", "ImportanceBound"}
    (checkpoints,) = [found for found in default_callbacks(rbm()) if isinstance(found, BestAndLast)]
    run = trainer(tmp_path, checkpoints, max_epochs=2)
    run.fit(rbm(), data())
    best = torch.load(checkpoints.best_model_path, weights_only=True)
    assert best["global_step"] == 12, "the newest is the best"


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="LogPartition needs a free energy, and VAE has none: leave it out"):
        trainer(tmp_path, LogPartition()).fit(vae(), data())
    with pytest.raises(ValueError, match="num_chains must be at least 1, got 0"):
        LogPartition(0)
    with pytest.raises(ValueError, match="raise_images must be 0 or at least 2, to tell their spread; got 1"):
        LogPartition(raise_images=1)


def test_filters_of_voxels_are_scaled_by_their_largest_weight() -> None:
    weights = torch.tensor([[-1.0, 2.0], [4.0, 0.0]]).view(1, 1, 2, 2, 1).expand(1, 1, 2, 2, 2) * torch.tensor([1, 0.5])
    shown = centred(weights)
    assert shown.amax() == 1
    torch.testing.assert_close(shown, 0.5 + weights / 8)
