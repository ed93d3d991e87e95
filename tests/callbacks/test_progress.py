"""The bar is drawn as often as eyes can follow, and last of all complete."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import TQDMProgressBar

from lit_gen.callbacks.profiler import Unprofiled
from lit_gen.callbacks.progress import INTERVAL, ProgressBar


class Counted:
    """Counts how often tqdm draws."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.drawn = 0.0, []
        monkeypatch.setattr("lit_gen.callbacks.progress.time.monotonic", lambda: self.now)

    def run(self, bar: TQDMProgressBar, steps: int, seconds_a_step: float) -> list[int]:
        self.drawn = []
        for step in range(1, steps + 1):
            self.now += seconds_a_step
            if bar._should_update(step, steps):
                self.drawn.append(step)
        return self.drawn


def test_fast_steps_are_not_all_drawn_but_the_last_is(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Counted(monkeypatch).run(ProgressBar(), 600, 0.005)
    assert drawn[0] == 1
    assert drawn[-1] == 600
    assert 25 <= len(drawn) <= 33


def test_slow_steps_are_all_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Counted(monkeypatch).run(ProgressBar(), 5, 2 * INTERVAL) == [1, 2, 3, 4, 5]


def test_a_disabled_bar_is_never_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    bar = ProgressBar()
    bar.disable()
    assert Counted(monkeypatch).run(bar, 5, 1.0) == []


class Linear(pl.LightningModule):
    """The smallest model that a trainer takes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: int, batch_idx: int) -> torch.Tensor:
        return self.layer.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_asks_the_bar_and_the_profiler(capsys: pytest.CaptureFixture[str]) -> None:
    """Guards the private name that the bar overrides."""
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_model_summary=False,
        callbacks=[ProgressBar()], profiler=Unprofiled(),
    )  # fmt: skip
    trainer.fit(Linear(), list(range(500)))
    output = capsys.readouterr().out
    assert "500/500" in output
    assert output.count("Epoch 0:") < 100
