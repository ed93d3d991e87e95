"""Models that are trained stage by stage in one fit: greedy layers first, then what joins them."""

import logging
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lit_gen.models.base import Batch, GenerativeModel
from lit_gen.models.optimizers import groups_by_decay

log = logging.getLogger(__name__)


class Stage(NamedTuple):
    """A part of a training, with an optimizer of its own."""

    name: str
    """Values of the stage are logged as ``train/<name>/...``; those of the last as ``train/...``."""
    epochs: int | None
    """How long it lasts; None for a last stage that lasts as long as the trainer."""
    optimizer: OptimizerCallable
    lr_scheduler: LRSchedulerCallable | None = None
    """Stepped after each epoch of the stage, which for it is epoch 0."""


class StagedModel(GenerativeModel):
    """A model whose stages follow one another in one fit; each trains its own parameters.

    The stage follows from the epoch, so that an interrupted run goes on in the right one, and a run whose last stage is
    already trained goes on with it when ``max_epochs`` is raised. A subclass calls :meth:`plan` at the end of its
    constructor and gives :meth:`stage_parameters` and :meth:`stage_terms`, and :meth:`begin_stage` if a stage starts
    from what another has learnt.
    """

    stages_begun: Tensor

    def plan(self, stages: Sequence[Stage]) -> None:
        """Set the stages; those of no epochs are left out.

        Raises:
            ValueError: a negative number of epochs, or no stage is left.
        """
        for stage in stages:
            if stage.epochs is not None and stage.epochs < 0:
                raise ValueError(f"the number of epochs of stage {stage.name} must not be negative, got {stage.epochs}")
        self.stages = tuple(stage for stage in stages if stage.epochs != 0)
        if not self.stages:
            raise ValueError(f"{type(self).__name__} has no stage with any epochs to train")
        if any(stage.epochs is None for stage in self.stages[:-1]):
            raise ValueError("only the last stage may last as long as the trainer")
        self.automatic_optimization = False
        # In the checkpoint: a run that is resumed within a stage must not begin it again.
        self.register_buffer("stages_begun", torch.tensor(0))

    # ---- what a subclass gives

    @abstractmethod
    def stage_parameters(self, stage: Stage) -> Iterable[nn.Parameter]:
        """What the stage trains."""

    @abstractmethod
    def stage_terms(self, stage: Stage, images: Tensor, target: Any) -> dict[str, Tensor]:
        """Values of a batch by name, scalars or ``(B,)``; ``loss``, a scalar, is what the stage minimises.

        Args:
            stage: the one to compute.
            images: ``(B, *image_shape)`` in [0, 1].
            target: of the batch, as the data gives it.
        """

    def begin_stage(self, stage: Stage) -> None:
        """Called without gradient once before the first epoch of each stage."""

    def after_backward(self, stage: Stage) -> None:
        """Called between the backward pass and the step of the optimizer, without gradient."""

    # ---- the stages

    def stage_at(self, epoch: int) -> int:
        """Number of the stage that an epoch belongs to."""
        end = 0
        for number, stage in enumerate(self.stages[:-1]):
            assert stage.epochs is not None
            end += stage.epochs
            if epoch < end:
                return number
        return len(self.stages) - 1

    def epoch_of_stage(self, epoch: int) -> int:
        """Number of an epoch within its stage, by which Gibbs steps grow and learning rates fall."""
        return epoch - sum(stage.epochs or 0 for stage in self.stages[: self.stage_at(epoch)])

    @property
    def current_stage(self) -> Stage:
        """The stage of the current epoch; outside a fit the last."""
        fitting = self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        return self.stages[self.stage_at(self.current_epoch) if fitting else -1]

    def prefixed(self, stage: Stage, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Values under the names by which they are logged."""
        return values if stage is self.stages[-1] else {f"{stage.name}/{name}": part for name, part in values.items()}

    def on_fit_start(self) -> None:
        """Say where ``max_epochs`` and the epochs of the stages do not fit together, which may be meant."""
        epochs = self.trainer.max_epochs
        if epochs is None or epochs < 0 or not self.trainer.is_global_zero:
            return
        planned = sum(stage.epochs or 0 for stage in self.stages)
        left_out = [stage.name for stage in self.stages[self.stage_at(epochs - 1) + 1 :]] if epochs else []
        if left_out:
            log.warning(
                f"max_epochs={epochs} leaves out {', '.join(left_out)}: {self.stages[-1].name} begins after"
                f" {planned - (self.stages[-1].epochs or 0)} epochs. Raise trainer.max_epochs if that is not wanted"
            )
        elif self.stages[-1].epochs is not None and epochs > planned:
            log.warning(
                f"max_epochs={epochs} is more than the {planned} epochs of all stages: the last,"
                f" {self.stages[-1].name}, goes on for {epochs - planned} more. Set"
                f" trainer.max_epochs={planned} if that is not wanted"
            )

    def on_train_epoch_start(self) -> None:
        number = self.stage_at(self.current_epoch)
        while int(self.stages_begun) <= number:
            stage = self.stages[int(self.stages_begun)]
            rank_zero_info(f"Stage {stage.name} ({int(self.stages_begun) + 1} of {len(self.stages)}) begins")
            with torch.no_grad():
                self.begin_stage(stage)
            self.stages_begun += 1

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        images, _ = self.unpack(batch)
        number = self.stage_at(self.current_epoch)
        stage = self.stages[number]
        with self.one_step() as optimizers:
            values = self.stage_terms(stage, images, batch[1])
            optimizers[number].zero_grad()
            self.manual_backward(values["loss"])
            self._keep_gradients(stage)
            with torch.no_grad():
                self.after_backward(stage)
            optimizers[number].step()
        named = self.prefixed(stage, values)
        self.log_training(named, progress_bar=next(name for name in named if name.endswith("loss")))

    def _keep_gradients(self, stage: Stage) -> None:
        """Drop those of what the stage does not train: they would add up, and fast weights would follow them."""
        trained = {id(parameter) for parameter in self.stage_parameters(stage)}
        for parameter in self.parameters():
            if id(parameter) not in trained:
                parameter.grad = None

    def on_train_epoch_end(self) -> None:
        number = self.stage_at(self.current_epoch)
        if self.stages[number].lr_scheduler is not None:
            found = self.lr_schedulers()
            schedulers = found if isinstance(found, list) else [found]
            place = sum(stage.lr_scheduler is not None for stage in self.stages[:number])
            schedulers[place].step()  # type: ignore[union-attr]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate_stage("val", self.current_stage, batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate_stage("test", self.stages[-1], batch)

    @torch.no_grad()
    def _evaluate_stage(self, split: str, stage: Stage, batch: Batch) -> None:
        images, _ = self.unpack(batch)
        values = self.prefixed(stage, self.stage_terms(stage, images, batch[1]))
        self.log_evaluation(split, values, len(images))

    def configure_optimizers(self) -> Any:
        optimizers, schedulers = [], []
        for stage in self.stages:
            optimizers.append(stage.optimizer(groups_by_decay(self.stage_parameters(stage))))
            if stage.lr_scheduler is not None:
                scheduler = stage.lr_scheduler(optimizers[-1])
                if isinstance(scheduler, ReduceLROnPlateau):
                    raise ValueError(
                        f"stage {stage.name} of {type(self).__name__} has no value that a ReduceLROnPlateau could"
                        " watch; take a schedule over epochs, such as PolynomialLR"
                    )
                schedulers.append(scheduler)
        return optimizers, schedulers


def for_each(value: Any, count: int, name: str, what: str = "layers") -> list[Any]:
    """One value for each layer, from one for all of them or from a sequence.

    Args:
        value: a number, or a sequence of them.
        count: how many there must be.
        name: of the argument, for the message.
        what: what they are for, for the message.

    Raises:
        ValueError: there are more or fewer of them.
    """
    values = [value] * count if isinstance(value, int | float) else list(value)
    if len(values) != count:
        raise ValueError(f"{name} must be one number, or one for each of the {count} {what}; got {values}")
    return values
