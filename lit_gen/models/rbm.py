"""Restricted Boltzmann machine.

Smolensky 1986, Information processing in dynamical systems: foundations of harmony theory; Hinton 2002, Training
products of experts by minimizing contrastive divergence; Hinton 2010, A practical guide to training restricted
Boltzmann machines; evaluation after Salakhutdinov & Murray 2008, On the quantitative analysis of deep belief networks.

Departures from the papers: the states of the negative phase are binary throughout, as in the code of Salakhutdinov &
Murray; the gradient comes from free energies, in which the hidden units are summed out, and equals the textbook
statistics with hidden probabilities in both phases.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lit_gen.inference import (
    PartitionEstimate,
    Progress,
    ais,
    chain,
    published_temperatures,
    raise_log_likelihood,
    reverse_ais,
    run_chain,
)
from lit_gen.models.annealed_rbm import AnnealedRBM, exact_log_partition
from lit_gen.models.base import (
    Batch,
    Dreams,
    EstimatesLogLikelihood,
    EstimatesPartition,
    Frame,
    HasChains,
    HasFilters,
    HasFreeEnergy,
    HasHiddenUnits,
    HasTrajectory,
    Reconstructs,
)
from lit_gen.models.energy import EnergyModel
from lit_gen.models.negative_phase import ContrastiveDivergence, NegativePhaseFactory, Tempered, first
from lit_gen.models.optimizers import FusedSGD
from lit_gen.models.statistics import unit_statistics
from lit_gen.networks import BernoulliVisible, BoltzmannLayer, Shape, State, VisibleFactory, VisibleLayer, build
from lit_gen.objectives import EnergyTerms


class RBM(
    EnergyModel,
    Tempered,
    EstimatesPartition,
    EstimatesLogLikelihood,
    Dreams,
    HasFreeEnergy,
    HasHiddenUnits,
    HasTrajectory,
    HasChains,
    HasFilters,
    Reconstructs,
):
    """Restricted Boltzmann machine with binary hidden units: E(v, h) = energy(v) - scale(v) W h - c h.

    Samples are P(v given h) of the last step of Gibbs chains. A variant injects another visible layer or negative
    phase, or overrides :meth:`sweep`.

    Example:
        >>> model = RBM((1, 4, 4), num_hidden=8, initial_weight_std=0.0)
        >>> model.sample(3).shape
        torch.Size([3, 1, 4, 4])
        >>> model.exact_log_partition()  # 24 free binary units: 24 log 2
        tensor(16.6355, dtype=torch.float64)

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        num_hidden: number of hidden units.
        visible: layer of pixels: binary, Gaussian for grey levels, or categorical for a few of them.
        negative_phase: draws the states of the model: CD-k, PCD with chains of its own, fast PCD, parallel tempering.
        sample_steps: Gibbs steps to a sample, each of a chain of its own.
        sample_start: where samples start: at noise, or at the chains of a negative phase that has some, where a few
            steps are enough; :meth:`dream_from` starts at images.
        initial_weight_std: weights start from N(0, this squared).
        centering: rate at which the offsets of the units follow their means in each step; 0 does not centre.
        sparsity_target: how often a hidden unit should be on, 0.01 to 0.1 (Hinton 2010, section 11); None: as it likes.
        sparsity_cost: strength of the pull of a unit towards that.
        sparsity_decay: of the running mean by which it is told how often a unit is on.
        optimizer: takes the parameters; its weight decay applies to weights only.
        lr_scheduler: takes the optimizer; stepped after each epoch.
    """

    hidden_activity: Tensor

    def __init__(
        self,
        image_shape: Shape,
        num_hidden: int = 500,
        visible: VisibleFactory = BernoulliVisible,
        negative_phase: NegativePhaseFactory = ContrastiveDivergence,
        sample_steps: int = 1000,
        sample_start: Literal["noise", "chains"] = "noise",
        initial_weight_std: float = 0.01,
        centering: float = 0.0,
        sparsity_target: float | None = None,
        sparsity_cost: float = 0.01,
        sparsity_decay: float = 0.95,
        optimizer: OptimizerCallable = lambda p: FusedSGD(p, lr=0.05, momentum=0.5, weight_decay=2e-4),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(image_shape, negative_phase, optimizer, lr_scheduler)
        if sample_steps < 1:
            raise ValueError(f"sample_steps must be at least 1, got {sample_steps}")
        if not 0 <= centering <= 1:
            raise ValueError(f"centering must be a rate from 0 to 1, got {centering}")
        if sparsity_target is not None and not 0 < sparsity_target < 1:
            raise ValueError(f"sparsity_target must lie between 0 and 1, got {sparsity_target}; 0.01 to 0.1 is usual")
        if sparsity_cost < 0 or not 0 <= sparsity_decay < 1:
            raise ValueError(
                f"sparsity_cost must not be negative and sparsity_decay in [0, 1), got {sparsity_cost} and"
                f" {sparsity_decay}"
            )
        self.sample_steps = sample_steps
        self.sample_start = sample_start
        self.centering = centering
        self.sparsity_target = sparsity_target
        self.sparsity_cost = sparsity_cost
        self.sparsity_decay = sparsity_decay
        self.initial_weight_std = initial_weight_std
        self.machine = self.build_machine(build(visible, self.image_shape), num_hidden)
        # How often each hidden unit was on of late; before the first batch, as often as it should be.
        self.register_buffer("hidden_activity", torch.full((num_hidden,), sparsity_target or 0.5))

    def build_machine(self, visible: VisibleLayer, num_hidden: int) -> BoltzmannLayer:
        """The machine on this layer of pixels."""
        return BoltzmannLayer(visible, num_hidden, self.initial_weight_std, centered=self.centering > 0)

    @property
    def visible(self) -> VisibleLayer:
        """The layer of the pixels."""
        return self.machine.visible

    @property
    def num_hidden(self) -> int:
        return self.machine.num_hidden

    @property
    def weight(self) -> Tensor:
        return self.machine.weight

    @property
    def hidden_bias(self) -> Tensor:
        return self.machine.hidden_bias

    @property
    def needs_binary(self) -> bool:  # type: ignore[override]
        return self.visible.needs_binary

    # ---- energies

    def visible_units(self, images: Tensor, condition: Any = None) -> Tensor:
        """The state of the visible units at these images, ``(B, V)``."""
        return self.machine.visible.encode(images.flatten(1))

    def energy(self, state: State) -> Tensor:
        return self.machine.energy(state[0], state[1])

    def visible_free_energy(self, visible: Tensor) -> Tensor:
        """-log of the sum over h of exp(-E(v, h)): ``(B, V) -> (B,)`` nats."""
        return self.machine.free_energy(visible)

    def free_energy(self, images: Tensor, condition: Any = None) -> Tensor:
        return self.visible_free_energy(self.visible_units(images, condition))

    def data_state(self, images: Tensor) -> State:
        return self.start_state(images)

    def start_state(self, images: Tensor, condition: Any = None) -> State:
        return (self.visible_units(images, condition),)

    def data_energy(self, images: Tensor, condition: Any = None) -> Tensor:
        return self.free_energy(images, condition)

    def model_energy(self, state: State) -> Tensor:
        return self.visible_free_energy(state[0])

    def energies(self, images: Tensor, condition: Any, state: State) -> tuple[Tensor, Tensor]:
        # In one pass: a product of larger matrices, and one gradient of the weights in the place of a sum of two.
        data = self.visible_units(images, condition)
        both = self.visible_free_energy(torch.cat([data, state[0]]))
        return both[: len(data)], both[len(data) :]

    # ---- Gibbs sampling

    def sweep(self, state: State) -> State:
        """One step of Gibbs sampling: (v, h)."""
        return self.machine.sweep(state)

    def gibbs(self, state: State, steps: int) -> State:
        return run_chain(self.sweep, state, steps)

    def noise(self, num_chains: int) -> State:
        """States with independent pixels of about the means of the data: where sampling starts."""
        return self.machine.noise(num_chains)

    def visible_mean(self, hidden: Tensor) -> Tensor:
        """E[v given h] as images: ``(B, H) -> (B, *image_shape)`` in [0, 1]."""
        return self.machine.visible.decode(self.machine.visible_mean(hidden)).clamp(0, 1).unflatten(1, self.image_shape)

    def draw(self, num_samples: int, condition: Any = None) -> Tensor:
        dream = self.hidden_chain(self.sample_state(num_samples), self.sample_steps, condition)
        return self.visible_mean(deque(dream, maxlen=1)[0])

    @torch.no_grad()
    def dream(self, num_samples: int) -> Tensor:
        units = self.gibbs(self.noise(num_samples), self.sample_steps)[0]
        return self.machine.visible.decode(units).unflatten(1, self.image_shape)

    def trajectory(self, num_samples: int, condition: Any = None) -> Iterator[Frame]:
        """The dream of the chains: P(v given h) after each Gibbs step."""
        for hidden in self.hidden_chain(self.sample_state(num_samples), self.sample_steps, condition):
            yield Frame(self.visible_mean(hidden).detach().float())

    def dream_from(self, images: Tensor, steps: int, condition: Any = None) -> Iterator[Frame]:
        """What the machine makes of images: P(v given h) after each of ``steps`` Gibbs steps from them.

        Args:
            images: ``(B, C, H, W)`` in [0, 1].
            steps: Gibbs steps.
            condition: for a :class:`Conditional` model.
        """
        for hidden in self.hidden_chain(self.start_state(images, condition), steps, condition):
            yield Frame(self.visible_mean(hidden).detach().float())

    def hidden_chain(self, state: State, steps: int, condition: Any = None) -> Iterator[Tensor]:
        """The hidden units ``(B, H)`` of each of ``steps`` Gibbs steps from a state."""
        for _, hidden in chain(self.sweep, state, steps):
            yield hidden

    def sample_state(self, num_chains: int) -> State:
        """Where samples start."""
        if self.sample_start == "noise":
            return self.noise(num_chains)
        chains = self.negative_phase.model_chains()
        if chains is None:
            raise ValueError(
                "sample_start='chains' needs the chains of a trained negative phase, and there are none; train with"
                " PersistentContrastiveDivergence, or let samples start at noise"
            )
        return first((chains.to(self.machine.weight),), num_chains)

    @torch.no_grad()
    def features(self, images: Tensor, condition: Any = None) -> Tensor:
        """p(h = 1 given v): ``(B, C, H, W) -> (B, num_hidden)``."""
        return self.machine.hidden_mean(self.visible_units(images, condition))

    @torch.no_grad()
    def reconstruct(self, images: Tensor, condition: Any = None) -> Tensor:
        """P(v given h) at the probabilities of the hidden units, ``(B, C, H, W)`` in [0, 1]."""
        return self.visible_mean(self.features(images, condition)).float()

    def hidden_probabilities(self, images: Tensor) -> Tensor:
        return self.features(images)

    def chain_images(self) -> Tensor | None:
        units = self.negative_phase.model_chains()
        return None if units is None else self.machine.visible.decode(units).unflatten(1, self.image_shape)

    def filters(self) -> Tensor:
        """The weights of each hidden unit, ``(num_hidden, C, H, W)``."""
        return self.machine.visible.filters(self.machine.weight.detach()).unflatten(1, self.image_shape)

    # ---- the partition function

    def annealed_path(self) -> "AnnealedRBM":
        return AnnealedRBM(self.machine)

    def exact_log_partition(self) -> Tensor:
        """log Z by enumeration: :func:`exact_log_partition`."""
        return exact_log_partition(self.machine)

    def log_partition_ais(
        self, num_chains: int = 100, num_temperatures: int = 14_500, progress: Progress = iter
    ) -> PartitionEstimate:
        return ais(self.annealed_path(), published_temperatures(num_temperatures), num_chains, progress)

    def log_partition_reverse_ais(
        self, images: Tensor, num_temperatures: int = 14_500, burn_in: int = 1000, progress: Progress = iter
    ) -> PartitionEstimate:
        path = self.annealed_path()
        samples = self.gibbs(self.data_state(images), burn_in)
        with torch.no_grad():
            return reverse_ais(path, published_temperatures(num_temperatures), path.state(samples[0]), progress)

    @torch.no_grad()
    def log_likelihood_raise(
        self, images: Tensor, num_chains: int = 1, num_temperatures: int = 14_500, progress: Progress = iter
    ) -> Tensor:
        path, rows = AnnealedRBM(self.machine), images.repeat_interleave(num_chains, 0)
        # The density is that of the image alone: a label in the state is drawn given the image, and so sums out.
        state, log_density = path.state(self.visible_units(rows)), -self.free_energy(rows)
        betas = published_temperatures(num_temperatures)
        return raise_log_likelihood(path, betas, state, log_density, num_chains, progress)

    # ---- training

    @torch.no_grad()
    def on_train_start(self) -> None:
        """Set the visible layer and the base of annealing from the training images, once in the life of the machine."""
        if self.machine.knows_data:
            return
        self.machine.initialize(*unit_statistics(self, self.visible_units))
        if self.machine.centered:
            visible = self.machine.visible.scale(self.machine.data_mean[None])[0]
            self.machine.move_offsets(visible, self.machine.hidden_mean(self.machine.data_mean[None])[0])

    def objective(self, images: Tensor, condition: Any = None) -> EnergyTerms:
        terms = super().objective(images, condition)
        if self.sparsity_target is None or not self.training:
            return terms
        # With respect to the input of a unit the gradient is cost (q - target), as in Hinton 2010, section 11.
        excess = self.hidden_activity - self.sparsity_target
        inputs = self.machine.hidden_input(self.visible_units(images, condition)).mean(0)
        return terms._replace(loss=terms.loss + self.sparsity_cost * (excess * inputs).sum())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.machine.centered or self.sparsity_target is not None:
            self._follow_units(*self.unpack(batch))
        return super().training_step(batch, batch_idx)

    @torch.no_grad()
    def _follow_units(self, images: Tensor, condition: Any) -> None:
        """Move offsets and running means towards the means of the batch, over all processes."""
        visible = self.visible_units(images, condition)
        scaled, hidden = self.machine.visible.scale(visible).mean(0), self.machine.hidden_mean(visible).mean(0)
        together = self.trainer.strategy.reduce(torch.cat([scaled, hidden]), reduce_op="mean")
        scaled, hidden = together.split([len(scaled), len(hidden)])
        self.hidden_activity.lerp_(hidden, 1 - self.sparsity_decay)
        if self.machine.centered:
            self.machine.move_offsets(scaled, hidden, self.centering)
