"""Which checkpoints a run keeps."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lit_gen.callbacks.evaluation import has_validation, positive
from lit_gen.callbacks.metrics import GenerationMetrics
from lit_gen.models.base import LitGenModule


def misspelt(monitor: str, logged: Iterable[str]) -> str | None:
    """The logged value that ``monitor`` seems to mean, None if it may be one of its own that comes later.

    Values of training come at other times than those of validation, and names that differ in digits alone are of
    different stages or sizes.

    >>> misspelt("val/elboo", ["val/elbo", "val/loss"]), misspelt("loss", ["val/loss"])
    ('val/elbo', 'val/loss')
    >>> misspelt("val/fid", ["val/kid"]), misspelt("val/level2/loss", ["val/level1/loss"])
    (None, None)
    """

    def bare(name: str) -> str:
        return re.sub(r"\d+", "", re.sub(r"^val[/_]", "", name))

    names = {bare(name): name for name in sorted(logged) if not name.startswith("train/")}
    if monitor.startswith("train/") or re.sub(r"\d+", "", monitor) in {re.sub(r"\d+", "", name) for name in logged}:
        return None
    near = difflib.get_close_matches(bare(monitor), names, n=1, cutoff=0.85)
    return names[near[0]] if near else None


def measured(monitor: str | None, trainer: pl.Trainer) -> bool:
    """Whether a callback of the run logs this score of samples."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return monitor is not None and any(
        isinstance(callback, GenerationMetrics) and callback.logs(monitor) for callback in callbacks
    )


class BestAndLast(ModelCheckpoint):
    """Keeps the best checkpoint by a logged value, and ``last.ckpt`` of every epoch.

    Lightning's ModelCheckpoint rewrites ``last.ckpt`` only when the best improves, and keeps nothing in a run without
    validation; here the newest is then the best too.

    A folder that holds the checkpoints of another run (without a logger all runs share one) is refused, unless this fit
    goes on from one of them. A ``monitor`` that looks like a misspelt name is refused after the first validation.

    Args:
        monitor: logged value that says which is best; ``model``: the one that the model names, with its mode, or where
            it names none, or one that no callback measures, the newest; None: the newest.
        mode: whether the best is the smallest or the largest; None: as the model says, or the smallest.
        save_top_k: number of best checkpoints to keep.
        every_n_train_steps: rewrite ``last.ckpt`` after this many steps too, for long epochs; None: only after epochs.
        dirpath: folder of the checkpoints; None: ``checkpoints`` in the run folder.
    """

    def __init__(
        self,
        monitor: str | None = "model",
        mode: Literal["min", "max"] | None = None,
        save_top_k: int = 1,
        every_n_train_steps: int | None = None,
        dirpath: str | None = None,
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="epoch{epoch:03d}-step{step:07d}",
            monitor=monitor,
            mode=mode or "min",
            save_top_k=save_top_k,
            save_last=True,
            auto_insert_metric_name=False,  # a slash in the name of a metric would make folders
            enable_version_counter=False,
        )
        self.last_every_n_train_steps = (
            None if every_n_train_steps is None else positive("every_n_train_steps", every_n_train_steps)
        )
        self._mode_given = mode is not None
        self._missed = False
        self._validated = False

    @property
    def state_key(self) -> str:
        # Not the parent's, which names the monitor: that one changes in a run without validation.
        return f"ModelCheckpoint[{type(self).__qualname__}]"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.monitor == "model":
            self.monitor, mode = "val/loss", "min"
            if isinstance(pl_module, LitGenModule):
                self.monitor, mode = pl_module.monitor, pl_module.monitor_mode
                if pl_module.monitor_is_score and not measured(self.monitor, trainer):
                    self.monitor = None
            if not self._mode_given and mode != self.mode:
                self.mode, self.kth_value = mode, -self.kth_value
            if self.monitor is None and self.save_top_k > 1:
                raise ValueError(
                    f"save_top_k={self.save_top_k} needs a value to choose by, and {type(pl_module).__name__} names"
                    " none: set monitor"
                )
        super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # A resumed run has a folder of its own. The parent would forget the best so far and take the next for it.
        if all(Path(path).is_file() for path in state_dict["best_k_models"]):
            super().load_state_dict({**state_dict, "dirpath": self.dirpath})

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Not in setup, where the trainer does not know the checkpoint it goes on from; sharded ones come later still.
        if trainer.fast_dev_run or trainer.strategy.restore_checkpoint_after_setup:  # type: ignore[attr-defined]
            return
        assert self.dirpath is not None
        last = Path(self.dirpath, f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}")
        if not last.is_file():
            return
        goes_on = trainer.ckpt_path is not None and Path(trainer.ckpt_path).resolve().parent == last.parent.resolve()
        if not goes_on and Path(self.last_model_path) != last:
            raise FileExistsError(
                f"{str(last)!r} is of an earlier run, and this one would overwrite it: go on from it (--ckpt_path"
                f" {last}), choose another folder (--trainer.default_root_dir), or keep a logger, which gives every"
                " run a folder of its own"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self.monitor is not None and self.monitor.startswith("val/") and not has_validation(trainer):
            rank_zero_info(f"there is no validation, so no {self.monitor}: the newest checkpoint is taken as the best")
            self.monitor = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        every = self.last_every_n_train_steps
        if every is None or trainer.global_step % every or self._should_skip_saving_checkpoint(trainer):
            return
        if trainer.fit_loop.epoch_loop._should_accumulate():
            return  # the gradients gathered so far are not part of a checkpoint
        before = self._last_global_step_saved
        self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
        # A validation after this same batch may still find the best.
        self._last_global_step_saved = before

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._should_save_on_train_epoch_end(trainer) and self._is_logged(trainer):
            super().on_train_epoch_end(trainer, pl_module)
        self._refresh_last(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            super().on_train_end(trainer, pl_module)  # which saves after a trial run too

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not (trainer.sanity_checking or self._validated):
            self._validated = True
            self._check_spelling(trainer)
        if not self._should_save_on_train_epoch_end(trainer) and self._is_logged(trainer):
            super().on_validation_end(trainer, pl_module)

    def _check_spelling(self, trainer: pl.Trainer) -> None:
        if self.monitor is None or self.monitor in trainer.callback_metrics:
            return
        meant = misspelt(self.monitor, trainer.callback_metrics)
        if meant is not None:
            raise ValueError(
                f"monitor {self.monitor!r} is not logged, so no checkpoint would be the best; did you mean {meant!r}?"
                f" Logged are: {', '.join(sorted(trainer.callback_metrics))}"
            )

    def _is_logged(self, trainer: pl.Trainer) -> bool:
        if trainer.sanity_checking or self.monitor is None or self.monitor in trainer.callback_metrics:
            return True
        if not self._missed:
            known = ", ".join(sorted(trainer.callback_metrics)) or "none"
            rank_zero_warn(f"{self.monitor} is not logged yet, so no best checkpoint is kept; logged are: {known}")
            self._missed = True
        return False

    def _refresh_last(self, trainer: pl.Trainer) -> None:
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
