"""Looking at a model leaves no trace in its training."""

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor

from lit_gen.callbacks import (
    Doctor,
    FirstBatchCallback,
    GenerationMetrics,
    ImportanceBound,
    LatentGrid,
    ReconstructionGrid,
    SampleGrid,
    evaluation,
)
from lit_gen.callbacks.evaluation import first
from lit_gen.models.base import HasTrajectory
from tests.callbacks.tiny import data, trainer, vae


def draws() -> tuple[float, float, float]:
    return torch.rand(()).item(), random.random(), np.random.rand()  # noqa: NPY002


def test_evaluation_forks_every_generator_and_restores_every_mode(tmp_path: Path) -> None:
    model = vae()
    model.trainer = trainer(tmp_path)
    model.train()
    model.decoder.eval()  # frozen by its user
    expected = {name: module.training for name, module in model.named_modules()}
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = draws()
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    with evaluation(model, seed=5):
        inside = draws()
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
    with suppress(KeyError), evaluation(model, seed=5):
        assert draws() == inside
        raise KeyError
    assert {name: module.training for name, module in model.named_modules()} == expected
    assert torch.is_grad_enabled()
    assert draws() == before


def test_no_callback_changes_the_training(tmp_path: Path) -> None:
    def weights(*callbacks: pl.Callback) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = vae()
        trainer(tmp_path, *callbacks, max_epochs=2).fit(model, data())
        return model.state_dict()

    watchers = [SampleGrid(), ReconstructionGrid(), LatentGrid(), Doctor(), ImportanceBound(3, ["val"])]
    watched = weights(*watchers, GenerationMetrics("pixels", ["fid"]))
    for name, value in weights().items():
        assert torch.equal(value, watched[name]), name
    assert len(list(tmp_path.rglob("*.png"))) == 2 * 5


class Weights(FirstBatchCallback):
    """Records a weight as it is shown."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.seen: list[tuple[str, int, Tensor]] = []

    def show(self, trainer: pl.Trainer, model: Any, stage: str, images: Tensor, condition: Any) -> None:
        assert images.shape == (10, 1, 8, 8)
        self.seen.append((stage, trainer.current_epoch, model.decoder.layers[0].bias.clone()))


@pytest.mark.parametrize("averaging_first", [True, False])
def test_averaged_weights_are_those_shown(averaging_first: bool, tmp_path: Path) -> None:
    averaging, shown, model = EMAWeightAveraging(decay=0.9), Weights(), vae()
    callbacks = [averaging, shown] if averaging_first else [shown, averaging]
    run = trainer(tmp_path, *callbacks)
    run.fit(model, data())
    assert averaging._average_model is not None
    averaged = averaging._average_model.module.decoder.layers[0].bias
    assert torch.equal(shown.seen[-1][2], averaged)


def test_acts_once_in_each_evaluation_that_is_due(tmp_path: Path) -> None:
    shown = Weights(every_n_epochs=3)
    run = trainer(tmp_path, shown, max_epochs=5)
    model = vae()
    run.fit(model, data())
    run.test(model, data(), verbose=False)
    assert [(stage, epoch) for stage, epoch, _ in shown.seen][:2] == [("val", 2), ("val", 4)]
    assert [stage for stage, _, _ in shown.seen] == ["val", "val", "test"]


def test_idle_without_the_capability(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Never(Weights):
        capability = HasTrajectory

    shown = Never()
    with caplog.at_level("INFO"):
        trainer(tmp_path, shown).fit(vae(), data())
    assert shown.seen == []
    assert "Never is idle: VAE is no HasTrajectory model" in caplog.text


def test_conditions_of_any_make_are_cut() -> None:
    tensor = torch.arange(6)
    assert first(None, 2) is None
    cut = first({"class": tensor, "parts": (tensor, [tensor]), "name": "fixed"}, 2)
    assert cut["class"].tolist() == [0, 1]
    assert cut["parts"][1][0].tolist() == [0, 1]
    assert cut["name"] == "fixed"


def test_needs_sensible_arguments() -> None:
    with pytest.raises(ValueError, match="every_n_epochs must be at least 1, got 0"):
        SampleGrid(every_n_epochs=0)
