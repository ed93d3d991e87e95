"""Which checkpoints a run keeps."""

from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lit_gen.callbacks.evaluation import has_validation, positive


class BestAndLast(ModelCheckpoint):
    """Keeps the best checkpoint by a logged value, and ``last.ckpt`` of every epoch.

    Lightning's ModelCheckpoint rewrites ``last.ckpt`` only when the best improves, and keeps nothing in a run without
    validation; here the newest is then the best too.

    Args:
        monitor: logged value that says which is best.
        mode: whether the best is the smallest or the largest.
        save_top_k: number of best checkpoints to keep.
        every_n_train_steps: rewrite ``last.ckpt`` after this many steps too, for long epochs; None: only after epochs.
        dirpath: folder of the checkpoints; None: ``checkpoints`` in the run folder.
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        save_top_k: int = 1,
        every_n_train_steps: int | None = None,
        dirpath: str | None = None,
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="epoch{epoch:03d}-step{step:07d}",
            monitor=monitor,
            mode=mode,
            save_top_k=save_top_k,
            save_last=True,
            auto_insert_metric_name=False,  # a slash in the name of a metric would make folders
            enable_version_counter=False,
        )
        self.last_every_n_train_steps = (
            None if every_n_train_steps is None else positive("every_n_train_steps", every_n_train_steps)
        )
        self._missed = False

    @property
    def state_key(self) -> str:
        # Not the parent's, which names the monitor: that one changes in a run without validation.
        return f"ModelCheckpoint[{type(self).__qualname__}]"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # A resumed run has a folder of its own. The parent would forget the best so far and take the next for it.
        if all(Path(path).is_file() for path in state_dict["best_k_models"]):
            super().load_state_dict({**state_dict, "dirpath": self.dirpath})

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

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._should_save_on_train_epoch_end(trainer) and self._is_logged(trainer):
            super().on_validation_end(trainer, pl_module)

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
