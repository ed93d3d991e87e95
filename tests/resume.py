"""The property that every model inherits: a run that was stopped and resumed equals the run that was not."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from lit_gen.callbacks import AtomicCheckpointIO, BestAndLast, ExactResume
from lit_gen.callbacks.evaluation import seed_generators
from lit_gen.models.base import LitGenModule


class Crash(Exception):
    """Stands for kill -9: nothing is saved on the way out."""


class Recorder(pl.Callback):
    """Writes down the terms of every batch, and interrupts one.

    Args:
        interrupt_at: number of the batch, counted over epochs.
        how: sends SIGTERM, or crashes.
    """

    def __init__(self, interrupt_at: int | None = None, how: str = "signal") -> None:
        self.interrupt_at = interrupt_at
        self.how = how
        self.terms: list[dict[str, Tensor]] = []
        self.steps: list[int] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if len(self.terms) != self.interrupt_at:
            return
        if self.how == "crash":
            raise Crash
        # The handler itself, so that a test process without handlers is not killed by mistake.
        handler = signal.getsignal(signal.SIGTERM)
        assert callable(handler)
        handler(signal.SIGTERM, None)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, LitGenModule)
        self.terms.append({name: value.clone() for name, value in pl_module.last_values.items()})
        self.steps.append(trainer.fit_loop.epoch_loop._batches_that_stepped)


def fit(
    model: pl.LightningModule,
    data: pl.LightningDataModule,
    folder: Path,
    recorder: Recorder,
    checkpoint: Path | None = None,
    callbacks: tuple[pl.Callback, ...] = (),
    **arguments: Any,
) -> pl.Trainer:
    """Fit with the callbacks that a run of the command line has for resuming."""
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        inference_mode=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[recorder, *callbacks, BestAndLast(every_n_train_steps=2), ExactResume()],
        plugins=[AtomicCheckpointIO()],
        **{"max_epochs": 2, **arguments},
    )
    seed_generators(1)
    trainer.fit(model, data, ckpt_path=checkpoint)
    return trainer


def assert_exact_resume(
    make_model: Callable[[], pl.LightningModule],
    make_data: Callable[[], pl.LightningDataModule],
    tmp_path: Path,
    interrupt_at: int = 3,
    make_callbacks: Callable[[], tuple[pl.Callback, ...]] = tuple,
    **arguments: Any,
) -> None:
    """Check that losses, weights and optimizer are equal bit for bit after a signal, and after a crash, in mid-epoch.

    Args:
        make_model: builds the model; called under a fixed seed.
        make_data: builds the data, with more than ``interrupt_at + 1`` batches in an epoch.
        tmp_path: an empty folder.
        interrupt_at: number of the batch in which the run is interrupted.
        make_callbacks: builds other callbacks of the run.
        arguments: of the trainer; two epochs unless it says otherwise.
    """

    def build() -> pl.LightningModule:
        torch.manual_seed(0)
        return make_model()

    whole_model, whole = build(), Recorder()
    whole_run = fit(whole_model, make_data(), tmp_path / "whole", whole, callbacks=make_callbacks(), **arguments)
    for how in ("signal", "crash"):
        folder = tmp_path / how
        before = Recorder(interrupt_at, how)
        with pytest.raises(SystemExit if how == "signal" else Crash) as caught:
            fit(build(), make_data(), folder, before, callbacks=make_callbacks(), **arguments)
        if how == "signal":
            assert caught.value.code == 128 + signal.SIGTERM
            assert len(before.terms) > interrupt_at, "the batch is brought to its end"
        checkpoint = folder / "checkpoints" / "last.ckpt"
        loops = torch.load(checkpoint, weights_only=True)["loops"]
        done = loops["fit_loop"]["epoch_loop.batch_progress"]["total"]["processed"]
        assert 0 < done < len(whole.terms)
        # Nothing of the resumed model may come from its own initialisation.
        torch.manual_seed(2)
        model, after = make_model(), Recorder()
        run = fit(model, make_data(), tmp_path / f"{how}-on", after, checkpoint, make_callbacks(), **arguments)
        assert before.steps[:done] + after.steps == whole.steps, "the logger's axis is shifted"
        resumed = before.terms[:done] + after.terms
        assert len(resumed) == len(whole.terms), "batches are missing or come twice"
        for number, (ours, theirs) in enumerate(zip(resumed, whole.terms, strict=True)):
            assert ours.keys() == theirs.keys()
            for name in ours:
                assert torch.equal(ours[name], theirs[name]), f"{how}: {name} differs in batch {number}"
        for name, value in whole_model.state_dict().items():
            assert torch.equal(model.state_dict()[name], value), f"{how}: {name} differs at the end"
        for ours, theirs in zip(run.optimizers, whole_run.optimizers, strict=True):
            torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
