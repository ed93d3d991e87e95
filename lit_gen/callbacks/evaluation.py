"""What callbacks share: looking at a model without leaving a trace in its training."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lit_gen.models.base import Batch, GenerativeModel

Stage = Literal["val", "test"]


def on_grey_levels(images: Tensor) -> bool:
    """Whether pixels take 256 values at most, which noise would spread."""
    return images.unique().numel() <= min(256, images.numel() // 2)


def random_states(device: torch.device) -> dict[str, Any]:
    """States of every global generator of this process, as tensors and lists that ``weights_only`` loading accepts.

    Args:
        device: the accelerator whose generator belongs to this process, or the CPU.
    """
    version, python, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002  (the one that others draw from)
    states = {
        "torch": torch.get_rng_state(),
        "python": [version, list(python), gauss],
        "numpy": [name, np.asarray(keys).tolist(), *rest],
    }
    if device.type != "cpu":
        states["device"] = torch.get_device_module(device).get_rng_state()
    return states


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Put back what :func:`random_states` gave."""
    # A view into a larger storage, as loading gives it, makes torch crash: hand over a copy.
    torch.set_rng_state(states["torch"].clone())
    version, python, gauss = states["python"]
    random.setstate((version, tuple(python), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    if "device" in states and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states["device"].clone())


def seed_generators(seed: int) -> None:
    """Seed every global generator of this process."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002


@contextmanager
def forked_generators(device: torch.device, seed: int) -> Iterator[None]:
    """A block with global generators of its own; afterwards they are as they were.

    Args:
        device: of this process.
        seed: of every global generator within the block.
    """
    states = random_states(device)
    try:
        seed_generators(seed)
        yield
    finally:
        set_random_states(states, device)


@contextmanager
def evaluation(pl_module: pl.LightningModule, seed: int) -> Iterator[None]:
    """A block in eval mode, without gradients and with generators of its own; afterwards all is as it was.

    Args:
        pl_module: the module, attached to a trainer; the trainer's precision applies.
        seed: of every global generator within the block.
    """
    # Not pl_module.train() at the end: parts that the user froze in eval mode stay so.
    modes = {module: module.training for module in pl_module.modules()}
    precision = pl_module.trainer.precision_plugin
    try:
        pl_module.eval()
        with forked_generators(pl_module.device, seed), torch.no_grad(), precision.forward_context():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def first(condition: Any, count: int) -> Any:
    """The condition of the first ``count`` images: every tensor within it is cut to that length."""
    return apply_to_collection(condition, Tensor, lambda tensor: tensor[:count])


def chosen(condition: Any, numbers: Tensor) -> Any:
    """The conditions of these images, in this order, repeated where a number is."""
    return apply_to_collection(condition, Tensor, lambda tensor: tensor[numbers])


def is_due(trainer: pl.Trainer, every_n_epochs: int) -> bool:
    """Whether a callback acts in this evaluation: every n-th epoch and the last one of a fit, else always."""
    if trainer.sanity_checking:
        return False
    epoch = trainer.current_epoch + 1
    last = epoch == trainer.max_epochs or trainer.global_step == trainer.max_steps
    return trainer.state.fn != TrainerFn.FITTING or last or epoch % every_n_epochs == 0


def has_validation(trainer: pl.Trainer) -> bool:
    """Whether this fit validates at all, known once training starts."""
    if trainer.enable_validation and not trainer.num_val_batches:
        # Lightning asks for the loader when the first epoch validates; with check_val_every_n_epoch a later one may.
        trainer.validating = True
        trainer.fit_loop.epoch_loop.val_loop.setup_data()
        trainer.training = True
    return trainer.enable_validation and sum(trainer.num_val_batches) > 0


def positive(name: str, value: int) -> int:
    """The value.

    Raises:
        ValueError: it is below 1.
    """
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


class EvaluationCallback(pl.Callback, ABC):
    """Sees the batches of validation and test through one hook."""

    @abstractmethod
    def on_evaluation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, stage: Stage, batch: Batch, batch_idx: int, dataloader_idx: int
    ) -> None:
        """Look at a batch after the model's own step, while averaged weights (EMA) are swapped in.

        Args:
            trainer: the trainer.
            pl_module: the model.
            stage: ``val`` or ``test``.
            batch: ``(images, target)``.
            batch_idx: number of the batch in its loader.
            dataloader_idx: number of the loader.
        """

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.on_evaluation_batch_end(trainer, pl_module, "val", batch, batch_idx, dataloader_idx)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.on_evaluation_batch_end(trainer, pl_module, "test", batch, batch_idx, dataloader_idx)


class FirstBatchCallback(EvaluationCallback):
    """Acts on one process after the first batch of a validation or test, where averaged weights (EMA) are swapped in.

    A subclass gives :attr:`capability` and :meth:`show`.

    Args:
        every_n_epochs: act in every n-th epoch of a fit, and in the last.
        seed: of the noise, the same every time.
    """

    capability: type = GenerativeModel
    """What the model must be; without it the callback is idle."""

    def __init__(self, every_n_epochs: int = 1, seed: int = 0) -> None:
        self.every_n_epochs = positive("every_n_epochs", every_n_epochs)
        self.seed = seed

    @abstractmethod
    def show(self, trainer: pl.Trainer, model: Any, stage: str, images: Tensor, condition: Any) -> None:
        """Look at the model, within :func:`evaluation`.

        Args:
            trainer: the trainer.
            model: a :class:`GenerativeModel` that has the capability.
            stage: ``val`` or ``test``.
            images: ``(B, C, H, W)`` of the batch.
            condition: of these images, None for a model without conditions.
        """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not self.applies(pl_module):
            rank_zero_info(
                f"{type(self).__name__} is idle: {type(pl_module).__name__} is no {self.capability.__name__} model"
            )

    def applies(self, pl_module: pl.LightningModule) -> bool:
        """Whether the model has what this callback shows."""
        return isinstance(pl_module, GenerativeModel) and isinstance(pl_module, self.capability)

    def on_evaluation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, stage: Stage, batch: Batch, batch_idx: int, dataloader_idx: int
    ) -> None:
        if batch_idx + dataloader_idx > 0 or not trainer.is_global_zero or not is_due(trainer, self.every_n_epochs):
            return
        if isinstance(pl_module, GenerativeModel) and self.applies(pl_module):
            images, condition = pl_module.unpack(batch)
            with evaluation(pl_module, self.seed):
                self.show(trainer, pl_module, stage, images, condition)
