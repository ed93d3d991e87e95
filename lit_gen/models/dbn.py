"""Deep belief net.

Hinton, Osindero & Teh 2006, A fast learning algorithm for deep belief nets
(https://www.cs.toronto.edu/~hinton/absps/fastnc.pdf); evaluation after Salakhutdinov & Murray 2008, On the quantitative
analysis of deep belief networks (https://dl.acm.org/doi/10.1145/1390156.1390266).

Departures from the papers: states of the negative phase and of the wake and the sleep phase are binary throughout, and
gradients come from free energies and log-probabilities of these states; a layer with more units than it needs to begin
as its lower neighbour turned over begins so with some of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Optimizer

from lit_gen.distributions import sample_bernoulli
from lit_gen.inference import PartitionEstimate, Progress, ais, chain, published_temperatures, reverse_ais
from lit_gen.models.base import BoundsFreeEnergy, EstimatesPartition, Frame, HasFilters, HasTrajectory, Reconstructs
from lit_gen.models.negative_phase import (
    ContrastiveDivergence,
    NegativePhaseFactory,
    load_own_state,
    states_of_all_processes,
)
from lit_gen.models.rbm import AnnealedRBM, exact_log_partition
from lit_gen.models.staged import Stage, StagedModel, for_each
from lit_gen.models.statistics import unit_statistics
from lit_gen.networks import BernoulliVisible, BoltzmannLayer, Shape, VisibleFactory, build
from lit_gen.objectives import energy_difference


class DBN(StagedModel, EstimatesPartition, BoundsFreeEnergy, HasTrajectory, HasFilters, Reconstructs):
    """Deep belief net: the top two layers of units are a restricted Boltzmann machine, all below follow downwards.

    p(v, h_1, ..., h_L) = p(v given h_1) p(h_1 given h_2) ... p(h_(L-1), h_L), with independent units in each factor but
    the last. The posterior is approximated upwards, q(h_l given h_(l-1)).

    Layers are trained greedily, each as a machine on draws of the layers below it; draws, not probabilities, for these
    are what the bound on log p(v) averages over. Then, if wanted, all are trained together by the contrastive form of
    wake-sleep (up-down), with recognition weights of their own. A fit that ends early leaves the net of the layers that
    have begun to train.

    Example:
        >>> model = DBN((1, 4, 4), hidden_dims=[8, 6], finetuning_epochs=5)
        >>> [stage.name for stage in model.stages]
        ['layer1', 'layer2', 'finetuning']
        >>> model.sample(3).shape
        torch.Size([3, 1, 4, 4])

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        hidden_dims: units of each hidden layer, from the bottom.
        visible: layer of pixels: binary, Gaussian for grey levels, or categorical for a few of them.
        negative_phase: draws the states of a machine, one for each layer; that of the top serves up-down too. Its
            schedule, if it has one, begins anew with each stage.
        pretraining_epochs: of each greedy layer; one number for all of them.
        finetuning_epochs: of the up-down stage.
        sample_steps: Gibbs steps of the top machine from noise to a sample.
        initial_weight_std: weights start from N(0, this squared). Those of a layer that has room for it start from
            the weights below it instead, with which it says of the units between them what the layer below says.
        pretraining_optimizer: takes the parameters of a greedy layer.
        pretraining_lr_scheduler: takes the optimizer of a greedy layer; stepped after each of its epochs.
        finetuning_optimizer: takes all parameters.
        finetuning_lr_scheduler: takes that optimizer; stepped after each of its epochs.
    """

    monitor = None  # the loss is no likelihood: the newest checkpoint is the best
    untied: Tensor

    def __init__(
        self,
        image_shape: Shape,
        hidden_dims: Sequence[int] = (500, 2000),
        visible: VisibleFactory = BernoulliVisible,
        negative_phase: NegativePhaseFactory = ContrastiveDivergence,
        pretraining_epochs: int | Sequence[int] = 20,
        finetuning_epochs: int = 0,
        sample_steps: int = 1000,
        initial_weight_std: float = 0.01,
        pretraining_optimizer: OptimizerCallable = lambda p: torch.optim.SGD(
            p, lr=0.05, momentum=0.5, weight_decay=2e-4
        ),
        pretraining_lr_scheduler: LRSchedulerCallable | None = None,
        finetuning_optimizer: OptimizerCallable = lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.5),
        finetuning_lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(image_shape)
        if not hidden_dims:
            raise ValueError("hidden_dims must name the units of at least one layer, got none")
        epochs = for_each(pretraining_epochs, len(hidden_dims), "pretraining_epochs", "hidden layers")
        if sample_steps < 1:
            raise ValueError(f"sample_steps must be at least 1, got {sample_steps}")
        self.sample_steps = sample_steps
        self.negative_phases = [build(negative_phase) for _ in hidden_dims]
        self.negative_phase = self.negative_phases[0]  # what a checkpoint names
        pixels = build(visible, self.image_shape)
        below = [pixels, *(BernoulliVisible((units,)) for units in hidden_dims[:-1])]
        # The hidden bias of a layer below the top is no part of the generative net, but of q alone.
        self.layers = nn.ModuleList(
            BoltzmannLayer(units, above, initial_weight_std) for units, above in zip(below, hidden_dims, strict=True)
        )
        lower = self.machines[:-1] if finetuning_epochs else []
        self.recognition_weights = nn.ParameterList(torch.zeros_like(layer.weight) for layer in lower)
        self.register_buffer("untied", torch.tensor(False))
        self.plan(
            [
                *(
                    Stage(f"layer{number + 1}", count, pretraining_optimizer, pretraining_lr_scheduler)
                    for number, count in enumerate(epochs)
                ),
                Stage("finetuning", finetuning_epochs, finetuning_optimizer, finetuning_lr_scheduler),
            ]
        )

    @property
    def needs_binary(self) -> bool:  # type: ignore[override]
        return self.machines[0].visible.needs_binary

    def setup(self, stage: str) -> None:
        self.refuse_half_precision()

    # ---- the net

    @property
    def machines(self) -> list[BoltzmannLayer]:
        """All layers, from the bottom."""
        return list(self.layers)  # type: ignore[arg-type]

    @property
    def stack(self) -> list[BoltzmannLayer]:
        """The layers that have begun to train; all of them if none has."""
        return [layer for layer in self.machines if layer.knows_data] or self.machines

    @property
    def top(self) -> BoltzmannLayer:
        """The machine at the top."""
        return self.stack[-1]

    def recognition_logits(self, number: int, below: Tensor) -> Tensor:
        """Logits of q(h = 1) of layer ``number``, from 0, given the units below it: ``(B, units) -> (B, H)``."""
        layer = self.machines[number]
        if not self.untied or number >= len(self.recognition_weights):
            return layer.hidden_input(below)
        with torch.autocast(below.device.type, enabled=False):
            return torch.addmm(layer.hidden_bias, layer.visible.scale(below), self.recognition_weights[number])

    @torch.no_grad()
    def recognize(self, images: Tensor, depth: int) -> list[Tensor]:
        """The visible units, and draws from q of the ``depth`` layers above them, each ``(B, units)``."""
        states = [self.machines[0].visible.encode(images.flatten(1))]
        for number in range(depth):
            states.append(sample_bernoulli(torch.sigmoid(self.recognition_logits(number, states[-1]))))
        return states

    @torch.no_grad()
    def descend(self, units: Tensor, depth: int) -> list[Tensor]:
        """The visible units and the layers above them, drawn downwards from ``units`` of layer ``depth``."""
        states = [units]
        for layer in reversed(self.machines[:depth]):
            states.insert(0, layer.sample_visible(states[0]))
        return states

    def log_conditional(self, number: int, below: Tensor, above: Tensor) -> Tensor:
        """log p(below given above) across layer ``number``, from 0: ``(B, units), (B, H) -> (B,)`` nats."""
        layer, field = self.machines[number], self.machines[number].field(above)
        linear = (layer.visible.scale(below) * field).sum(1) - layer.visible_energy(below)
        return linear - layer.visible.log_partition(field)

    # ---- the bound

    @torch.no_grad()
    def free_energy_bound(self, images: Tensor, condition: Any = None, num_samples: int = 10) -> Tensor:
        """-E_q[log p(v given h_1) + ... + log p*(h_(L-1))] - H(q), with log Z of the top machine left out.

        Source: Salakhutdinov & Murray 2008, section 4.2. An unbiased estimate; the entropy of each layer given the
        draw below it is exact. With one layer there is nothing to draw and it is the free energy.

        Args:
            images: ``(B, *image_shape)`` in [0, 1].
            condition: none.
            num_samples: draws from q for each image.
        """
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        depth = len(self.stack) - 1
        total = torch.zeros_like(images.flatten(1)[:, 0])
        for _ in range(num_samples if depth else 1):
            states = self.recognize(images, depth)
            total = total + self.top.free_energy(states[-1])
            for number in range(depth):
                probabilities = torch.sigmoid(self.recognition_logits(number, states[number]))
                entropy = torch.special.entr(probabilities) + torch.special.entr(1 - probabilities)
                total = total - self.log_conditional(number, states[number], states[number + 1]) - entropy.sum(1)
        return total / (num_samples if depth else 1)

    # ---- pictures

    def visible_mean(self, hidden: Tensor) -> Tensor:
        """E[v given h_1] as images ``(B, *image_shape)`` in [0, 1]."""
        bottom = self.machines[0]
        return bottom.visible.decode(bottom.visible_mean(hidden)).clamp(0, 1).unflatten(1, self.image_shape)

    def picture(self, hidden: Tensor) -> Tensor:
        """One pass downwards from units of the top: draws between, and at the end the mean of the pixels."""
        for layer in reversed(self.stack[1:]):
            hidden = layer.sample_visible(hidden)
        return self.visible_mean(hidden)

    def draw(self, num_samples: int, condition: Any = None) -> Tensor:
        return self.picture(self.top.gibbs(self.top.noise(num_samples), self.sample_steps)[1])

    def trajectory(self, num_samples: int, condition: Any = None) -> Iterator[Frame]:
        """The dream of the top machine: a picture after each of its Gibbs steps."""
        for _, hidden in chain(self.top.sweep, self.top.noise(num_samples), self.sample_steps):
            yield Frame(self.picture(hidden).detach().float())

    @torch.no_grad()
    def reconstruct(self, images: Tensor, condition: Any = None) -> Tensor:
        """Up to the top and down again with probabilities for units, ``(B, C, H, W)`` in [0, 1]."""
        units = self.machines[0].visible.encode(images.flatten(1))
        for number in range(len(self.stack)):
            units = torch.sigmoid(self.recognition_logits(number, units))
        for layer in reversed(self.stack[1:]):
            units = layer.visible_mean(units)
        return self.visible_mean(units).float()

    def filters(self) -> Tensor:
        """The generative weights of each unit of the first layer, ``(H_1, C, H, W)``."""
        bottom = self.machines[0]
        return bottom.visible.filters(bottom.weight.detach()).unflatten(1, self.image_shape)

    # ---- training

    def stage_parameters(self, stage: Stage) -> Iterable[nn.Parameter]:
        if stage.name == "finetuning":
            return self.parameters()
        return self.machines[layer_index(stage)].parameters()

    def begin_stage(self, stage: Stage) -> None:
        last = len(self.machines) - 1 if stage.name == "finetuning" else layer_index(stage)
        for number in range(last + 1):
            if not self.machines[number].knows_data:
                self._begin_layer(number)
        if stage.name == "finetuning":
            for weight, layer in zip(self.recognition_weights, self.machines, strict=False):
                weight.copy_(layer.weight)
            self.untied.fill_(True)

    def _begin_layer(self, number: int) -> None:
        """Fit a layer to the units below it, whose means annealing and sampling start from."""
        layer = self.machines[number]
        layer.initialize(*unit_statistics(self, lambda images, condition: self.recognize(images, number)[-1]))
        if number:
            turn_over(self.machines[number - 1], layer)

    def stage_terms(self, stage: Stage, images: Tensor, target: Any) -> dict[str, Tensor]:
        # The gradient is a difference of large terms: under bf16 autocast it would be off.
        with torch.autocast(images.device.type, enabled=False):
            if stage.name == "finetuning":
                return self.up_down(images)
            number = layer_index(stage)
            return {"loss": self.machine_loss(number, self.recognize(images, number)[-1])[0]}

    def machine_loss(self, number: int, data: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of layer ``number``, from 0, as a machine on units ``(B, V)``, and the states of its own, (M, V)."""
        machine, phase = self.machines[number], self.negative_phases[number]
        with torch.no_grad():
            if self.training:
                phase.set_epoch(self.epoch_of_stage(self.current_epoch))
            state = phase(machine, (data,), keep=self.training)[0]
        return energy_difference(machine.free_energy(data), machine.free_energy(state)).loss, state

    def up_down(self, images: Tensor) -> dict[str, Tensor]:
        """Contrastive wake-sleep (Hinton et al. 2006, appendix B).

        Wake: draws upwards from images teach the directed weights to generate them. The top machine is trained as in
        its greedy stage. Sleep: what its negative phase dreams is drawn downwards, and teaches the recognition weights
        to infer its causes.
        """
        depth = len(self.machines) - 1
        awake = self.recognize(images, depth)
        top, state = self.machine_loss(depth, awake[-1])
        wake, sleep = self.wake_loss(awake).mean(), self.sleep_loss(self.descend(state, depth)).mean()
        return {"loss": wake + top + sleep, "wake": wake, "sleep": sleep}

    def wake_loss(self, states: Sequence[Tensor]) -> Tensor:
        """-log p of each layer below the top machine given the one above it, summed: ``(B,)`` nats.

        Args:
            states: units of the pixels and of each layer above them up to the visible units of the top machine.
        """
        total = torch.zeros_like(states[0][:, 0])
        for number, (below, above) in enumerate(pairwise(states)):
            total = total - self.log_conditional(number, below, above)
        return total

    def sleep_loss(self, states: Sequence[Tensor]) -> Tensor:
        """-log q of each layer below the top machine given the one below it, summed: ``(M,)`` nats.

        Args:
            states: as for :meth:`wake_loss`.
        """
        total = torch.zeros_like(states[0][:, 0])
        for number, (below, above) in enumerate(pairwise(states)):
            logits = self.recognition_logits(number, below)
            total = total + (softplus(logits) - above * logits).sum(1)
        return total

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        # Not after the backward pass, where fp16 has its gradients scaled.
        stage = self.current_stage
        number = len(self.machines) - 1 if stage.name == "finetuning" else layer_index(stage)
        self.negative_phases[number].on_gradient(self.machines[number])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["negative_phases"] = [states_of_all_processes(phase, self) for phase in self.negative_phases]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for phase, gathered in zip(self.negative_phases, checkpoint.get("negative_phases", []), strict=False):
            phase.set_epoch(self.epoch_of_stage(checkpoint.get("epoch", 0)))
            load_own_state(phase, self, gathered)

    # ---- the partition function of the top machine

    def exact_log_partition(self) -> Tensor:
        """log Z of the top machine by enumeration, a float64 scalar, nats.

        Raises:
            ValueError: more than 25 units on its smaller side.
        """
        return exact_log_partition(self.top)

    def log_partition_ais(
        self, num_chains: int = 100, num_temperatures: int = 14_500, progress: Progress = iter
    ) -> PartitionEstimate:
        return ais(AnnealedRBM(self.top), published_temperatures(num_temperatures), num_chains, progress)

    @torch.no_grad()
    def log_partition_reverse_ais(
        self, images: Tensor, num_temperatures: int = 14_500, burn_in: int = 1000, progress: Progress = iter
    ) -> PartitionEstimate:
        path = AnnealedRBM(self.top)
        start = self.recognize(images, len(self.stack) - 1)[-1]
        samples = self.top.gibbs((start,), burn_in)[0]
        return reverse_ais(path, published_temperatures(num_temperatures), path.state(samples), progress)


def layer_index(stage: Stage) -> int:
    """Number of the greedy layer that a stage trains, from 0."""
    return int(stage.name.removeprefix("layer")) - 1


@torch.no_grad()
def turn_over(below: BoltzmannLayer, above: BoltzmannLayer) -> None:
    """Let a machine begin with the distribution of its visible units that the machine below has of its hidden ones.

    Its weights are the transposed, its biases the swapped ones, so that the bound on log p(v) begins where the layer
    below has left it, and tight (Hinton et al. 2006, section 4). Hidden units in excess keep their own small weights.
    Nothing happens if there are too few, or if the pixels below are not binary.
    """
    count = below.visible.num_units
    if isinstance(below.visible, BernoulliVisible) and above.num_hidden >= count:
        above.weight[:, :count].copy_(below.weight.T)
        above.hidden_bias[:count].copy_(below.visible.bias)
        above.visible.get_parameter("bias").copy_(below.hidden_bias)
