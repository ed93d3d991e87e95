"""When a run validates."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from lit_gen.callbacks import BestAndLast, SampleGrid, ValidateAtEnd
from lit_gen.callbacks.evaluation import seed_generators
from tests.callbacks.tiny import data, trainer, vae
from tests.resume import Crash, Recorder, assert_exact_resume, fit


class Validated(pl.Callback):
    """Notes the epochs after which there is a validation."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.epochs.append(trainer.current_epoch)


@pytest.mark.parametrize("sanity", [0, 2])
@pytest.mark.parametrize(
    ("every", "max_epochs", "expected"),
    [(10, 2, [1]), (2, 5, [1, 3, 4]), (2, 4, [1, 3]), (1, 2, [0, 1]), (10, 1, [0])],
)
def test_the_last_epoch_validates(
    every: int, max_epochs: int, expected: list[int], sanity: int, tmp_path: Path
) -> None:
    seen, keeper = Validated(), BestAndLast()
    run = trainer(
        tmp_path,
        keeper,
        ValidateAtEnd(),
        SampleGrid(),
        seen,
        max_epochs=max_epochs,
        check_val_every_n_epoch=every,
        num_sanity_val_steps=sanity,
    )
    run.fit(vae(), data())
    assert seen.epochs == expected
    assert run.check_val_every_n_epoch == every, "the trainer is as it was"
    assert keeper.monitor == "val/loss"
    assert Path(keeper.best_model_path).is_file()
    pictures = sorted(path.parent.name for path in tmp_path.rglob("*.png"))
    assert len(pictures) == len(expected)
    assert not (tmp_path / "images" / "train").exists()


def test_without_validation_nothing_changes(tmp_path: Path) -> None:
    seen = Validated()
    trainer(tmp_path, ValidateAtEnd(), seen, check_val_every_n_epoch=10, limit_val_batches=0).fit(vae(), data())
    assert seen.epochs == []


def test_validation_by_batches_is_left_alone(tmp_path: Path) -> None:
    seen = Validated()
    run = trainer(tmp_path, ValidateAtEnd(), seen, max_epochs=2, check_val_every_n_epoch=None, val_check_interval=5)
    run.fit(vae(), data())
    assert seen.epochs == [0, 1]  # after batches 5 and 10 of 12
    assert run.check_val_every_n_epoch is None


def test_the_trainer_is_as_it_was_after_an_error(tmp_path: Path) -> None:
    class Fails(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
            assert trainer.check_val_every_n_epoch == 1
            raise RuntimeError("stop")

    run = trainer(tmp_path, ValidateAtEnd(), Fails(), check_val_every_n_epoch=10)
    with pytest.raises(RuntimeError, match="stop"):
        run.fit(vae(), data())
    assert run.check_val_every_n_epoch == 10


@pytest.mark.parametrize("interrupt_at", [3, 8], ids=["first epoch", "last epoch"])
def test_resumed_run_equals_uninterrupted_run(interrupt_at: int, tmp_path: Path) -> None:
    assert_exact_resume(vae, data, tmp_path, interrupt_at, lambda: (ValidateAtEnd(),), check_val_every_n_epoch=10)


def test_a_run_resumed_within_the_last_epoch_validates(tmp_path: Path) -> None:
    with pytest.raises(Crash):
        fit(vae(), data(), tmp_path / "first", Recorder(9, "crash"), check_val_every_n_epoch=10)
    seen, checkpoint = Validated(), tmp_path / "first" / "checkpoints" / "last.ckpt"
    callbacks = (ValidateAtEnd(), seen)
    fit(vae(), data(), tmp_path / "on", Recorder(), checkpoint, callbacks, check_val_every_n_epoch=10)
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 8
    assert seen.epochs == [1]


def test_the_last_batch_waits_for_the_validation_when_stopped(tmp_path: Path) -> None:
    """ExactResume stops at no batch that a validation follows, and here the last of the last epoch is one."""
    seen, recorder = Validated(), Recorder(11)
    fit(vae(), data(), tmp_path, recorder, callbacks=(ValidateAtEnd(), seen), check_val_every_n_epoch=10)
    assert len(recorder.terms) == 12
    assert seen.epochs == [1]


def test_a_finished_run_goes_on_for_more_epochs(tmp_path: Path) -> None:
    """Its validation, which a longer run has elsewhere, leaves no trace in the weights."""

    def run(folder: str, max_epochs: int, checkpoint: Path | None = None) -> tuple[Any, list[int]]:
        seed_generators(0)
        model, seen = vae(), Validated()
        callbacks = (ValidateAtEnd(), seen)
        arguments = {"max_epochs": max_epochs, "check_val_every_n_epoch": 10}
        fit(model, data(), tmp_path / folder, Recorder(), checkpoint, callbacks, **arguments)
        return model, seen.epochs

    whole, _ = run("whole", 4)
    run("short", 2)
    resumed, validated = run("on", 4, tmp_path / "short" / "checkpoints" / "last.ckpt")
    assert validated == [3]
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_run_resumed_between_validations_still_knows_that_it_validates(tmp_path: Path) -> None:
    """Lightning skips the sanity check of a resumed run, and so has no loader of validation when training starts."""
    fit(vae(), data(), tmp_path / "first", Recorder(), max_epochs=1, check_val_every_n_epoch=10)
    checkpoint = tmp_path / "first" / "checkpoints" / "last.ckpt"
    run = fit(vae(), data(), tmp_path / "on", Recorder(), checkpoint, max_epochs=4, check_val_every_n_epoch=4)
    assert run.checkpoint_callback is not None
    assert run.checkpoint_callback.monitor == "val/loss"  # type: ignore[attr-defined]
