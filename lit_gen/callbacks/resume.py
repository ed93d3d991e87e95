"""Runs that go on after an interruption as if there had been none."""

import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lit_gen.callbacks.evaluation import random_states, seed_generators, set_random_states
from lit_gen.callbacks.logging import run_folder

SIGNALS = (signal.SIGINT, signal.SIGTERM)
RANK_STRIDE = 1_000_003


class ExactResume(pl.Callback):
    """Makes a resumed run equal the uninterrupted one, bit for bit on the CPU, and interruptions orderly.

    It stores the state of every random generator of every process in each checkpoint; keeps validation from using up
    random numbers of the training, so that it does not matter whether a resumed run repeats one; and gives every
    process its own noise.

    Ctrl-C and SIGTERM take effect at the end of a training batch that neither ends the epoch nor is followed by a
    validation: everything that belongs to the batch is done, ``last.ckpt`` is written, and the process ends with 130 or
    143. A second signal acts at once, without a checkpoint.

    Exact are checkpoints written here, and those that ModelCheckpoint writes at the end of a batch or of an epoch, with
    a loader that resumes (those of ``lit_gen.data``). ModelCheckpoint writes before the module's own
    ``on_train_batch_end``: a model changes its state in ``training_step``, not there.
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None
        self._before_validation: dict[str, Any] | None = None
        self._signal = 0
        self._stopping = False
        self._process = os.getpid()
        self._handlers: dict[int, Any] = {}
        self._seeded = False

    # ---- random numbers

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Lightning seeds all processes alike: they would draw the same noise and the same samples.
        if trainer.world_size > 1 and not self._seeded:
            seed_generators(torch.initial_seed() + RANK_STRIDE * trainer.global_rank)
            self._seeded = True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._before_validation = random_states(trainer.strategy.root_device)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._before_validation is not None:
            set_random_states(self._before_validation, trainer.strategy.root_device)
            self._before_validation = None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        states = self._before_validation or random_states(trainer.strategy.root_device)
        gathered = [states]
        if trainer.world_size > 1:
            gathered = [states] * trainer.world_size
            torch.distributed.all_gather_object(gathered, states)
        checkpoint["random_states"] = gathered

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        gathered = checkpoint.get("random_states", [])
        if len(gathered) == trainer.world_size:
            self._restored = gathered[trainer.global_rank]
        elif trainer.state.fn == "fit":
            rank_zero_warn(
                f"the checkpoint holds random states of {len(gathered)} processes, this run has {trainer.world_size}:"
                " it goes on, but not exactly as the uninterrupted run would have"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._restored is not None:
            set_random_states(self._restored, trainer.strategy.root_device)
            self._restored = None
        self._signal, self._stopping, self._process = 0, False, os.getpid()
        if threading.current_thread() is threading.main_thread() and not self._handlers:
            # In place of Lightning's SIGTERM handler, which communicates with other processes in mid-batch.
            heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._handlers = {number: signal.signal(number, self._receive) for number in heeded}

    # ---- interruptions

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a loader's worker, forked in training: its parent ends it
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self._signal:
            raise SystemExit(128 + number)
        self._signal = number
        # os.write, because a handler may interrupt a print.
        name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        os.write(2, f"\n{name}: stopping after this batch with a checkpoint; once more stops at once\n".encode())

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.world_size > 1:
            received = torch.tensor(self._signal, device=pl_module.device)
            self._signal = int(trainer.strategy.reduce(received, reduce_op="max"))
        if not self._signal:
            return
        loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
        assert fetcher is not None
        if not (loop._is_training_done or loop._should_accumulate() or loop._should_check_val_fx(fetcher)):
            # Lightning looks at this after all that belongs to the batch is done, and raises SIGTERMException.
            self._stopping = True
            trainer._signal_connector.received_sigterm = True

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        try:
            if self._stopping and isinstance(exception, SIGTERMException):
                exception.code = 128 + self._signal  # Lightning would end with 0
                self._save(trainer)
        finally:
            self._release()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._release()

    def _release(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _save(self, trainer: pl.Trainer) -> None:
        callbacks = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
        if not callbacks or trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_info("stopped; no checkpoint is written because checkpoints are switched off")
            return
        folder = callbacks[0].dirpath or run_folder(trainer) / "checkpoints"
        path = str(Path(folder, f"{callbacks[0].CHECKPOINT_NAME_LAST}{callbacks[0].FILE_EXTENSION}"))
        callbacks[0].last_model_path = path
        trainer.save_checkpoint(path, weights_only=False)
        rank_zero_info(f"stopped after batch {trainer.global_step}; --ckpt_path {path} goes on from there")
