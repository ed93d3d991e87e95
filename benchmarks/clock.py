"""The time that a training takes, also one that was interrupted and resumed, and that of the processor."""

import time
from typing import Any, Literal

import lightning.pytorch as pl


class ProcessorTime:
    """Seconds of the processor within a block."""

    def __enter__(self) -> "ProcessorTime":
        self._start = time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = self.so_far()

    def so_far(self) -> float:
        """Seconds since the beginning of the block."""
        return time.process_time() - self._start


class TrainingTime(pl.Callback):
    """Seconds from the first batch of a fit to its end, checkpoints and validation included, kept in checkpoints."""

    def __init__(self) -> None:
        self._before = 0.0
        self._start: float | None = None

    @property
    def seconds(self) -> float:
        """Time of this fit so far, and of the parts before that it was resumed from."""
        return self._before + (0.0 if self._start is None else time.perf_counter() - self._start)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._before, self._start = self.seconds, None

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self._before = state_dict["seconds"]


class BatchTime(pl.Callback):
    """Seconds from the start of the first to the end of the last training batch of a fit of one epoch.

    Args:
        clock: ``wall``, or ``process`` for seconds of the processor.
    """

    def __init__(self, clock: Literal["wall", "process"] = "wall") -> None:
        self.seconds = 0.0
        self._now = time.perf_counter if clock == "wall" else time.process_time

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:
            self._start = self._now()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch:
            self.seconds = self._now() - self._start
