"""What the doctor finds in Boltzmann machines, and that it finds nothing in health."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from lit_gen.callbacks import Doctor
from lit_gen.callbacks.symptoms import HiddenUnits, distance_moved
from lit_gen.data import Digits
from lit_gen.models import DBM, RBM
from lit_gen.models.negative_phase import ContrastiveDivergence, PersistentContrastiveDivergence
from tests.callbacks.test_doctor import told
from tests.callbacks.tiny import data, trainer


class Still(RBM):
    """Its parameters stay as they are given."""

    def on_train_start(self) -> None:
        pass


def still(model: type[RBM] = Still, **arguments: Any) -> RBM:
    return model(
        (1, 8, 8), 6, sample_steps=3, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0), **arguments
    )


def examine(folder: Path, model: pl.LightningModule, epochs: int = 4, **arguments: Any) -> pl.Trainer:
    run = trainer(folder, Doctor(), max_epochs=epochs)
    run.fit(model, data(**{"num_val": 100, **arguments}))
    return run


@pytest.mark.parametrize(("number", "found"), [(2, False), (4, True)])
def test_hidden_units_that_are_always_off_or_on(
    number: int, found: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = still()
    with torch.no_grad():
        model.hidden_bias[1:number] = -9
        model.hidden_bias[0] = 9
    run = examine(tmp_path, model)
    assert run.callback_metrics["val/active_hidden_units"] == 6 - number
    assert (f"of 6 hidden units {number - 1} are off and 1 on for every image" in told(caplog)) is found
    assert told(caplog).count("Doctor") == found


def test_few_images_condemn_no_unit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = still()
    with torch.no_grad():
        model.hidden_bias.fill_(-9)
    examine(tmp_path, model, num_val=50)
    assert "Doctor" not in told(caplog)


def test_hidden_units_by_hand() -> None:
    probabilities = torch.tensor([[0.01, 0.99, 0.5, 0.01], [0.04, 0.96, 0.5, 0.01], [0.01, 0.97, 0.5, 0.9]])
    hidden = HiddenUnits()
    hidden.add(probabilities[:2])
    hidden.add(probabilities[2:])
    assert hidden.count == 3
    assert hidden.dead().tolist() == [True, False, False, False]
    assert hidden.saturated().tolist() == [False, True, False, False]


class Stuck(PersistentContrastiveDivergence):
    """Its chains stay at the images where they began."""

    def __call__(self, machine: Any, data: Any, keep: bool) -> Any:
        if self.chains is None:
            self.chains = data
        return self.chains


class Alike(PersistentContrastiveDivergence):
    """Its chains move, all of them together."""

    def __call__(self, machine: Any, data: Any, keep: bool) -> Any:
        if keep:
            self.chains = (torch.rand(1, 64).round().repeat(10, 1),)
        return self.chains or data


@pytest.mark.parametrize(
    ("phase", "found"),
    [(Stuck, True), (Alike, True), (PersistentContrastiveDivergence, False), (ContrastiveDivergence, False)],
)
def test_chains_that_do_not_mix(phase: Any, found: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    examine(tmp_path, still(negative_phase=phase), epochs=5)
    assert told(caplog).count("the persistent chains do not mix") == found
    assert told(caplog).count("Doctor") == found


def test_distance_moved() -> None:
    chains = torch.rand(50, 1, 4, 4).round()
    assert distance_moved(chains, chains) == 0
    assert distance_moved(chains, torch.rand(50, 1, 4, 4).round()) == pytest.approx(1, abs=0.1)


def test_weights_that_explode(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Explodes(Still):
        def on_train_epoch_end(self) -> None:
            with torch.no_grad():
                self.weight[0, 0] += 15

    examine(tmp_path, still(Explodes), epochs=3)
    assert "weights explode" not in told(caplog), "two validations of 30 and 45 do not last"
    examine(tmp_path, still(Explodes), epochs=6)
    assert told(caplog).count("weights explode") == 1


@pytest.mark.parametrize(("start", "rise", "found"), [(0, 10, True), (90, 0, False), (0, 0.001, False)])
def test_overfitting(start: float, rise: float, found: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A gap that grows past what images differ by among themselves; not one that is only large, or only grows."""

    class Forgets(Still):
        """Images that it was not trained on become the less likely, the longer it trains."""

        unknown = 0.0

        def visible_free_energy(self, visible: torch.Tensor) -> torch.Tensor:
            return super().visible_free_energy(visible) + self.unknown

        def on_validation_epoch_start(self) -> None:
            self.unknown = 0.0
            super().on_validation_epoch_start()
            self.unknown = start + rise * self.current_epoch

    examine(tmp_path, still(Forgets), epochs=6)
    assert told(caplog).count("and the gap grows") == found
    assert told(caplog).count("Doctor") == found


def test_nothing_is_found_in_health(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Digits, as configs/rbm/digits.yaml has them, in a shorter run; and a deep machine in all of its stages."""
    source = Digits(batch_size=100, binarization="stochastic")
    for phase in (ContrastiveDivergence, PersistentContrastiveDivergence):
        model = RBM(
            (1, 8, 8),
            32,
            negative_phase=phase,
            sample_steps=5,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.5, weight_decay=2e-4),
        )
        trainer(tmp_path, Doctor(patience=2), max_epochs=6, check_val_every_n_epoch=2).fit(model, source)
    deep = DBM(
        (1, 8, 8),
        [16, 8],
        pretraining_epochs=2,
        joint_epochs=3,
        discriminative_epochs=3,
        num_classes=10,
        sample_steps=5,
    )
    run = trainer(tmp_path, Doctor(patience=2), max_epochs=6)
    run.fit(deep, source)
    assert run.callback_metrics["val/active_hidden_units"] == 24
    assert "Doctor" not in told(caplog)
