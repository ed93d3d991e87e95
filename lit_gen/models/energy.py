"""The kind of models that know the energy of an image, and not the constant that makes it a probability."""

from abc import abstractmethod
from collections import deque
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.optim import Optimizer

from lit_gen.models.base import Batch, GenerativeModel
from lit_gen.models.capabilities import HasFreeEnergy, Reconstructs
from lit_gen.models.negative_phase import NegativePhaseFactory, load_own_state, states_of_all_processes
from lit_gen.models.optimizers import groups_by_decay
from lit_gen.networks import Shape, State, build
from lit_gen.objectives import EnergyTerms, energy_difference

GAP_BATCHES = 10
"""Training batches whose free energy is compared with that of the validation images."""


class EnergyModel(GenerativeModel):
    """A model p(v, h) = exp(-E(v, h)) / Z, trained by the energies of data and of its own states with one optimizer.

    A subclass gives :meth:`energy`, :meth:`gibbs`, :meth:`data_state` and :meth:`data_energy`, and
    :meth:`model_energy` if it can sum over the hidden units of its own states too. The negative phase is an argument.

    The loss is no likelihood and its smallest value is not the best, so that the newest checkpoint counts as the best;
    let the learning rate fall to zero, and measure by :class:`EstimatesPartition`.

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        negative_phase: draws the states of the model.
        optimizer: takes the parameters; its weight decay spares biases (parameters of one dimension).
        lr_scheduler: takes the optimizer; stepped after each epoch.
    """

    monitor = None

    def __init__(
        self,
        image_shape: Shape,
        negative_phase: NegativePhaseFactory,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(image_shape)
        self.negative_phase = build(negative_phase)
        self.make_optimizer = optimizer
        self.make_lr_scheduler = lr_scheduler
        self._recent: deque[tuple[Tensor, Any]] = deque(maxlen=GAP_BATCHES)
        self._train_free_energy: Tensor | None = None

    def setup(self, stage: str) -> None:
        self.refuse_half_precision()

    @abstractmethod
    def energy(self, state: State) -> Tensor:
        """E(v, h, ...) of each state, ``(B,)`` nats."""

    @abstractmethod
    def gibbs(self, state: State, steps: int) -> State:
        """The state after ``steps`` sweeps over all units, without gradient."""

    @abstractmethod
    def data_state(self, images: Tensor) -> State:
        """The state that :meth:`gibbs` starts from at these images, ``(B, *image_shape)`` in [0, 1]."""

    @abstractmethod
    def data_energy(self, images: Tensor, condition: Any = None) -> Tensor:
        """Energy of images with the hidden units summed out, or its variational estimate, ``(B,)`` nats."""

    def start_state(self, images: Tensor, condition: Any = None) -> State:
        """The state that the negative phase is given: :meth:`data_state`, with the condition if that is part of it."""
        return self.data_state(images)

    def epoch_of_stage(self, epoch: int) -> int:
        """Number of an epoch by which the Gibbs steps of the negative phase grow."""
        return epoch

    def model_energy(self, state: State) -> Tensor:
        """Energy of states of the model, ``(M,)`` nats."""
        return self.energy(state)

    def energies(self, images: Tensor, condition: Any, state: State) -> tuple[Tensor, Tensor]:
        """:meth:`data_energy` and :meth:`model_energy`; to override where one pass gives both sooner."""
        return self.data_energy(images, condition), self.model_energy(state)

    def objective(self, images: Tensor, condition: Any = None) -> EnergyTerms:
        """Energy of the batch against that of states from the negative phase.

        Args:
            images: ``(B, *image_shape)`` in [0, 1].
            condition: for a :class:`Conditional` model.
        """
        # The gradient is a difference of large terms: under bf16 autocast it would be off by 1.6 %.
        with torch.autocast(images.device.type, enabled=False):
            with torch.no_grad():
                if self.training:
                    self.negative_phase.set_epoch(self.epoch_of_stage(self.current_epoch))
                state = self.negative_phase(self, self.start_state(images, condition), keep=self.training)
            return energy_difference(*self.energies(images, condition, state))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, condition = self.unpack(batch)
        loss = self.objective(images, condition).loss
        self._recent.append((images, condition))
        values = {"loss": loss}
        if self.should_log:
            values |= self._reconstruction_error(images, condition) | self.negative_phase.values()
        self.log_training(values)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("test", batch)

    @torch.no_grad()
    def on_validation_epoch_start(self) -> None:
        # With the weights that validation uses (EMA), and training images from just before.
        if isinstance(self, HasFreeEnergy) and self._recent:
            self._train_free_energy = torch.cat([self.free_energy(*batch) for batch in self._recent]).mean()

    @torch.no_grad()
    def _evaluate(self, stage: str, batch: Batch) -> None:
        images, condition = self.unpack(batch)
        terms = self.objective(images, condition)
        values = {
            "loss": terms.loss,
            **self._reconstruction_error(images, condition),
            **self.measures(images, condition),
        }
        if stage == "val" and isinstance(self, HasFreeEnergy) and self._train_free_energy is not None:
            # Overfitting widens it (Hinton 2010, section 6); the unknown constant cancels.
            values["free_energy_gap"] = terms.data_energy - self._train_free_energy
        self.log_evaluation(stage, values, len(images))

    def measures(self, images: Tensor, condition: Any = None) -> dict[str, Tensor]:
        """What else to log of validation and test images, by name, ``(B,)`` each."""
        return {}

    def _reconstruction_error(self, images: Tensor, condition: Any) -> dict[str, Tensor]:
        """Squared error of the reconstruction, ``(B,)`` summed over pixels: a sign of life, no measure of progress."""
        if not isinstance(self, Reconstructs):
            return {}
        return {"reconstruction_error": (self.reconstruct(images, condition) - images).square().flatten(1).sum(1)}

    def configure_optimizers(self) -> Any:
        groups = groups_by_decay(self.parameters())
        return self.with_scheduler(self.make_optimizer(groups), self.make_lr_scheduler)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.negative_phase.on_gradient(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["negative_phase"] = states_of_all_processes(self.negative_phase, self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.negative_phase.set_epoch(self.epoch_of_stage(checkpoint.get("epoch", 0)))
        load_own_state(self.negative_phase, self, checkpoint.get("negative_phase"))
