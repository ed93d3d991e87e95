"""Deep Boltzmann machine.

Salakhutdinov & Hinton 2009, Deep Boltzmann machines (https://proceedings.mlr.press/v5/salakhutdinov09a.html); centred
gradients after Montavon & Mueller 2012, Deep Boltzmann machines and the centering trick, in the form of Melchior,
Fischer & Wiskott 2016, How to center deep Boltzmann machines (https://jmlr.org/papers/v17/14-237.html).

Departures from the paper: the code that its authors published doubles the hidden biases of a greedy layer with its
weights, and so does this; annealing starts from pixels with about the means of the data, not from uniform ones.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus
from torch.optim import Optimizer

from lit_gen.distributions import sample_bernoulli
from lit_gen.inference import (
    PartitionEstimate,
    Progress,
    ais,
    chain,
    enumerated_log_partition,
    published_temperatures,
    reverse_ais,
    run_chain,
)
from lit_gen.models.annealed_dbm import AnnealedDBM
from lit_gen.models.base import (
    BoundsFreeEnergy,
    Dreams,
    EstimatesPartition,
    Frame,
    HasChains,
    HasFilters,
    HasHiddenUnits,
    HasTrajectory,
    Reconstructs,
)
from lit_gen.models.energy import EnergyModel
from lit_gen.models.negative_phase import NegativePhaseFactory, PersistentContrastiveDivergence
from lit_gen.models.optimizers import FusedSGD
from lit_gen.models.staged import Stage, StagedModel, for_each
from lit_gen.models.statistics import unit_statistics
from lit_gen.networks import BernoulliVisible, MeanFieldClassifier, Shape, State, VisibleFactory, build
from lit_gen.objectives import energy_difference

CONVERGED = 1e-6
"""Mean change of a unit's probability below which the mean field counts as converged."""
LONGEST_MEAN_FIELD = 200
"""Updates after which evaluation takes the mean field as it is."""


class DBM(
    StagedModel,
    EnergyModel,
    EstimatesPartition,
    BoundsFreeEnergy,
    Dreams,
    HasHiddenUnits,
    HasTrajectory,
    HasChains,
    HasFilters,
    Reconstructs,
):
    """Deep Boltzmann machine with any number of binary hidden layers.

    E(v, h) = energy(v) - scale(v) W_1 h_1 - sum_l h_l W_(l+1) h_(l+1) - sum_l c_l h_l.

    Layers are first trained greedily as machines of two layers with the doubled weights of the paper, then jointly: a
    mean field stands for the posterior, persistent chains for the model. Zero epochs leave a stage out; a fit that ends
    with ``max_epochs`` before the joint stage leaves a machine that is put together from the greedy layers.

    Example:
        >>> model = DBM((1, 4, 4), hidden_dims=[8, 6])
        >>> [stage.name for stage in model.stages]
        ['layer1', 'layer2', 'joint']
        >>> model.sample(3).shape
        torch.Size([3, 1, 4, 4])

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        hidden_dims: units of each hidden layer, from the bottom.
        visible: layer of pixels: binary, or Gaussian for grey levels.
        negative_phase: draws the states of the model in the joint stage, which for its schedule begins with epoch 0.
        pretraining_epochs: of each greedy layer; one number for all of them.
        pretraining_steps: k of contrastive divergence in the greedy stages.
        mean_field_steps: most updates of the mean field in a training step; evaluation goes on to convergence.
        centering: rate at which the centres of the gradient follow the mean activities; 0 does not centre. Without
            pretraining a machine of several layers hardly learns uncentred.
        sample_steps: Gibbs steps from noise to a sample.
        initial_weight_std: weights start from N(0, this squared).
        joint_epochs: of the joint stage; None: as long as the trainer.
        discriminative_epochs: of a last stage that trains a copy of the machine to classify.
        num_classes: for that stage; the command line takes it from the data.
        pretraining_optimizer: takes the parameters of a greedy layer.
        pretraining_lr_scheduler: takes the optimizer of a greedy layer; stepped after each of its epochs.
        optimizer: takes the parameters of the joint stage.
        lr_scheduler: takes that optimizer; stepped after each of its epochs.
        discriminative_optimizer: takes the parameters of the classifier.
    """

    data_mean: Tensor
    data_variance: Tensor
    knows_data: Tensor
    centres: Tensor

    def __init__(
        self,
        image_shape: Shape,
        hidden_dims: Sequence[int] = (500, 1000),
        visible: VisibleFactory = BernoulliVisible,
        negative_phase: NegativePhaseFactory = PersistentContrastiveDivergence,
        pretraining_epochs: int | Sequence[int] = 20,
        pretraining_steps: int = 1,
        mean_field_steps: int = 10,
        centering: float = 0.0,
        sample_steps: int = 1000,
        initial_weight_std: float = 0.01,
        joint_epochs: int | None = None,
        discriminative_epochs: int = 0,
        num_classes: int = 0,
        pretraining_optimizer: OptimizerCallable = lambda p: FusedSGD(p, lr=0.05, momentum=0.5, weight_decay=1e-3),
        pretraining_lr_scheduler: LRSchedulerCallable | None = None,
        optimizer: OptimizerCallable = lambda p: FusedSGD(p, lr=0.005, momentum=0.5, weight_decay=2e-4),
        lr_scheduler: LRSchedulerCallable | None = None,
        discriminative_optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3),
    ) -> None:
        super().__init__(image_shape, negative_phase, optimizer, lr_scheduler)
        if not hidden_dims or min(hidden_dims) < 1:
            raise ValueError(f"hidden_dims must name the units of at least one layer, got {list(hidden_dims)}")
        epochs = for_each(pretraining_epochs, len(hidden_dims), "pretraining_epochs", "hidden layers")
        if min(pretraining_steps, mean_field_steps, sample_steps) < 1:
            raise ValueError(
                "pretraining_steps, mean_field_steps and sample_steps must be at least 1, got"
                f" {pretraining_steps}, {mean_field_steps} and {sample_steps}"
            )
        if not 0 <= centering <= 1:
            raise ValueError(f"centering must be a rate from 0 to 1, got {centering}")
        if discriminative_epochs and num_classes < 2:
            raise ValueError(f"discriminative_epochs need labels of at least 2 classes, the data has {num_classes}")
        if discriminative_epochs and joint_epochs is None:
            raise ValueError("discriminative_epochs need joint_epochs, which say when the joint stage ends")
        self.hidden_dims = tuple(hidden_dims)
        self.pretraining_steps = pretraining_steps
        self.mean_field_steps = mean_field_steps
        self.centering = centering
        self.sample_steps = sample_steps
        self.visible = build(visible, self.image_shape)
        if self.visible.num_units != math.prod(self.image_shape):
            raise ValueError(
                f"{type(self.visible).__name__} has {self.visible.num_units} units for {math.prod(self.image_shape)}"
                " pixels, and a DBM takes layers of one unit a pixel: BernoulliVisible or GaussianVisible"
            )
        sizes = [self.visible.num_units, *hidden_dims]
        pairs = list(pairwise(sizes))
        self.weights = nn.ParameterList(initial_weight_std * torch.randn(pair) for pair in pairs)
        self.biases = nn.ParameterList(torch.zeros(above) for above in hidden_dims)
        # Visible biases of the greedy layers from the second on; the machine's bias is the sum of both.
        self.greedy_biases = nn.ParameterList(torch.zeros(below) for below, _ in pairs[1:])
        self.classifier = MeanFieldClassifier(sizes, num_classes) if discriminative_epochs else None
        # In the checkpoint: annealing starts from the pixel means, and a test has no training images.
        self.register_buffer("data_mean", torch.full((self.visible.num_units,), 0.5))
        self.register_buffer("data_variance", torch.full((self.visible.num_units,), 0.25))
        self.register_buffer("knows_data", torch.tensor(False))
        self.register_buffer("centres", torch.full((sum(sizes),), 0.5))
        if centering and not isinstance(self.visible, BernoulliVisible):
            raise ValueError("centering is for binary pixels (BernoulliVisible); others are centred by their layer")
        self.plan(
            [
                *(
                    Stage(f"layer{number + 1}", count, pretraining_optimizer, pretraining_lr_scheduler)
                    for number, count in enumerate(epochs)
                ),
                Stage("joint", joint_epochs, optimizer, lr_scheduler),
                Stage("discriminative", discriminative_epochs, discriminative_optimizer),
            ]
        )

    @property
    def needs_binary(self) -> bool:  # type: ignore[override]
        return self.visible.needs_binary

    # ---- the machine

    def hidden_biases(self) -> list[Tensor]:
        """c_l of each hidden layer."""
        greedy = [*self.greedy_biases, None]
        return [own if other is None else own + other for own, other in zip(self.biases, greedy, strict=True)]

    def hidden_input(self, number: int, layers: Sequence[Tensor]) -> Tensor:
        """Logits of hidden layer ``number``, from 1, given its neighbours: ``(B, H_number)``, in full precision.

        Args:
            number: of the layer.
            layers: scale(v), h_1, h_2, ...; only those below and above are looked at.
        """
        with torch.autocast(layers[0].device.type, enabled=False):
            inputs = torch.addmm(self.biases[number - 1], layers[number - 1], self.weights[number - 1])
            if number < len(self.hidden_dims):
                inputs = inputs + self.greedy_biases[number - 1] + layers[number + 1] @ self.weights[number].T
            return inputs

    def field(self, hidden: Tensor) -> Tensor:
        """W_1 h_1, what the first hidden layer exerts on the pixels: ``(B, H_1) -> (B, V)``, in full precision."""
        with torch.autocast(hidden.device.type, enabled=False):
            return hidden @ self.weights[0].T

    def energy(self, state: State) -> Tensor:
        visible, *hidden = state
        with torch.autocast(visible.device.type, enabled=False):
            total = self.visible.energy(visible)
            below = self.visible.scale(visible)
            for weight, bias, above in zip(self.weights, self.hidden_biases(), hidden, strict=True):
                total = total - (torch.addmm(bias, below, weight) * above).sum(1)
                below = above
            return total

    def model_energy(self, state: State) -> Tensor:
        """-log of the sum of exp(-E) over the first, third, ... hidden layer, which makes its statistics exact."""
        visible, *hidden = state
        with torch.autocast(visible.device.type, enabled=False):
            layers = [self.visible.scale(visible), *hidden]
            total = self.visible.energy(visible)
            biases = self.hidden_biases()
            for number in self.odd:
                total = total - softplus(self.hidden_input(number, layers)).sum(1)
            for number in self.even:
                total = total - layers[number] @ biases[number - 1]
            return total

    @property
    def odd(self) -> range:
        """Numbers of the hidden layers whose neighbours are the pixels and the :attr:`even` layers."""
        return range(1, len(self.hidden_dims) + 1, 2)

    @property
    def even(self) -> range:
        return range(2, len(self.hidden_dims) + 1, 2)

    # ---- the posterior

    @torch.no_grad()
    def mean_field(self, images: Tensor, steps: int = LONGEST_MEAN_FIELD, tolerance: float = CONVERGED) -> State:
        """The factorial posterior nearest to p(h given v), layer by layer until nothing changes.

        Args:
            images: ``(B, *image_shape)`` in [0, 1].
            steps: most updates of all layers.
            tolerance: mean change of a probability at which to stop.

        Returns:
            q(h_l = 1) of each hidden layer, ``(B, H_l)``.
        """
        layers = self.bottom_up(self.visible.scale(images.flatten(1)), sample=False)
        for _ in range(steps):
            change = torch.zeros((), device=images.device)
            for number in range(1, len(layers)):
                new = torch.sigmoid(self.hidden_input(number, layers))
                change = torch.maximum(change, (new - layers[number]).abs().mean())
                layers[number] = new
            if len(layers) == 2 or change < tolerance:
                break
        return tuple(layers[1:])

    @torch.no_grad()
    def bottom_up(self, visible: Tensor, sample: bool, stop: int | None = None) -> list[Tensor]:
        """One pass upwards with doubled inputs, which stand for those from above; the top layer has none to miss.

        Args:
            visible: ``(B, V)``, scaled.
            sample: whether layers are drawn, or probabilities.
            stop: number of the layer to end with; None: the top.

        Returns:
            ``visible`` and the layers above it.
        """
        layers = [visible]
        for number in range(1, (len(self.hidden_dims) if stop is None else stop) + 1):
            probabilities = torch.sigmoid(self.doubled(number) * self.greedy_input(number, layers[-1]))
            layers.append(sample_bernoulli(probabilities) if sample else probabilities)
        return layers

    def free_energy_bound(self, images: Tensor, condition: Any = None) -> Tensor:
        return self.variational_free_energy(images, self.mean_field(images))

    def variational_free_energy(self, images: Tensor, posterior: Sequence[Tensor]) -> Tensor:
        """E_q[E(v, h)] - H(q), which is at least the free energy: ``(B,)`` nats.

        Args:
            images: ``(B, *image_shape)`` in [0, 1].
            posterior: q(h_l = 1) of each hidden layer, ``(B, H_l)``.
        """
        entropy = sum((torch.special.entr(part) + torch.special.entr(1 - part)).sum(1) for part in posterior)
        return self.energy((images.flatten(1), *posterior)) - entropy

    def data_energy(self, images: Tensor, condition: Any = None) -> Tensor:
        if self.training:
            posterior = self.mean_field(images, self.mean_field_steps)
            self._activities = torch.cat([images.flatten(1).mean(0), *(part.mean(0) for part in posterior)])
        else:
            posterior = self.mean_field(images)
        return self.variational_free_energy(images, posterior)

    # ---- Gibbs sampling

    def data_state(self, images: Tensor) -> State:
        visible = images.flatten(1)
        return (visible, *self.bottom_up(self.visible.scale(visible), sample=True)[1:])

    def sweep(self, state: State) -> State:
        """The odd layers given the rest, then the pixels and the even layers; odd ones of the state do not matter."""
        layers = [self.visible.scale(state[0]), *state[1:]]
        for number in self.odd:
            layers[number] = sample_bernoulli(torch.sigmoid(self.hidden_input(number, layers)))
        for number in self.even:
            layers[number] = sample_bernoulli(torch.sigmoid(self.hidden_input(number, layers)))
        return self.visible.sample(self.visible.natural(self.field(layers[1]))), *layers[1:]

    def gibbs(self, state: State, steps: int) -> State:
        return run_chain(self.sweep, state, steps)

    def noise(self, num_chains: int) -> State:
        """States of independent units, the pixels with about the means of the data: where sampling starts."""
        visible = self.visible.sample(tuple(eta.expand(num_chains, -1) for eta in self.base))
        return (visible, *(sample_bernoulli(visible.new_full((num_chains, units), 0.5)) for units in self.hidden_dims))

    @property
    def base(self) -> tuple[Tensor, ...]:
        """Natural parameters of independent pixels with about the means of the data."""
        return self.visible.base(self.data_mean, self.data_variance)

    def visible_mean(self, hidden: Tensor) -> Tensor:
        """E[v given h_1] as images ``(B, *image_shape)`` in [0, 1]."""
        mean = self.visible.mean(self.visible.natural(self.field(hidden)))
        return mean.clamp(0, 1).unflatten(1, self.image_shape)

    def draw(self, num_samples: int, condition: Any = None) -> Tensor:
        return self.visible_mean(self.gibbs(self.noise(num_samples), self.sample_steps)[1])

    @torch.no_grad()
    def dream(self, num_samples: int) -> Tensor:
        return self.gibbs(self.noise(num_samples), self.sample_steps)[0].unflatten(1, self.image_shape)

    def trajectory(self, num_samples: int, condition: Any = None) -> Iterator[Frame]:
        """The dream of the chains: P(v given h_1) after each Gibbs step."""
        for state in chain(self.sweep, self.noise(num_samples), self.sample_steps):
            yield Frame(self.visible_mean(state[1]).detach().float())

    @torch.no_grad()
    def reconstruct(self, images: Tensor, condition: Any = None) -> Tensor:
        """P(v given h_1) at the mean field, ``(B, C, H, W)`` in [0, 1]."""
        return self.visible_mean(self.mean_field(images)[0]).float()

    def hidden_probabilities(self, images: Tensor) -> Tensor:
        return torch.cat(self.mean_field(images), 1)

    def chain_images(self) -> Tensor | None:
        units = self.negative_phase.model_chains() if self.current_stage.name == "joint" else None
        return None if units is None else units.unflatten(1, self.image_shape)

    def filters(self) -> Tensor:
        """The weights of each unit of the first layer, ``(H_1, C, H, W)``."""
        return self.weights[0].detach().T.unflatten(1, self.image_shape)

    # ---- training

    def stage_parameters(self, stage: Stage) -> Iterable[nn.Parameter]:
        if stage.name == "joint":
            return [*self.weights, *self.biases, *self.visible.parameters()]
        if stage.name == "discriminative":
            assert self.classifier is not None
            return self.classifier.parameters()
        number = layer_number(stage)
        below = self.visible.parameters() if number == 1 else [self.greedy_biases[number - 2]]
        return [self.weights[number - 1], self.biases[number - 1], *below]

    def begin_stage(self, stage: Stage) -> None:
        if stage.name == "discriminative":
            assert self.classifier is not None
            self.classifier.start_from(list(self.weights), self.hidden_biases())

    def on_train_start(self) -> None:
        """Set the visible layer and the base of annealing from the training images, once in the life of the machine."""
        if self.knows_data:
            return
        mean, variance, count = unit_statistics(self)
        self.data_mean.copy_(mean)
        self.data_variance.copy_(variance)
        self.centres[: len(mean)] = mean
        self.visible.initialize(mean, variance, count)
        self.knows_data.fill_(True)

    def after_backward(self, stage: Stage) -> None:
        if stage.name == "joint" and self.centering:
            self.centre_gradients()
            activities = self.trainer.strategy.reduce(self._activities, reduce_op="mean")
            self.centres.lerp_(activities, self.centering)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.current_stage.name == "joint":  # the chains are those of the whole machine
            super().on_before_optimizer_step(optimizer)

    @torch.no_grad()
    def centre_gradients(self) -> None:
        """Turn the gradient into that of the same machine written with centred units (Melchior et al. 2016, eq. 12 ff).

        The energy stays as it is: centring is a change of coordinates, and in these a plain step learns.
        """
        centres = self.centres.split([self.visible.num_units, *self.hidden_dims])
        biases = [gradient(self.visible.get_parameter("bias")), *(gradient(bias) for bias in self.biases)]
        shifts = [torch.zeros_like(bias) for bias in biases]
        for number, weight in enumerate(self.weights):
            below, above = centres[number : number + 2]
            change = gradient(weight)
            change -= torch.outer(below, biases[number + 1]) + torch.outer(biases[number], above)
            with torch.autocast(change.device.type, enabled=False):  # a training step calls this under autocast
                shifts[number] += change @ above
                shifts[number + 1] += below @ change
        for bias, shift in zip(biases, shifts, strict=True):
            bias -= shift

    def stage_terms(self, stage: Stage, images: Tensor, target: Any) -> dict[str, Tensor]:
        if stage.name == "discriminative":
            return self._classification_terms(images, target)
        if stage.name != "joint":
            with torch.autocast(images.device.type, enabled=False):
                return {"loss": self.greedy_loss(layer_number(stage), images)}
        values = {"loss": self.objective(images).loss}
        if not self.training or self.should_log:
            values |= self._reconstruction_error(images, None)
        return values

    def _classification_terms(self, images: Tensor, target: Any) -> dict[str, Tensor]:
        if target is None:
            raise ValueError("the discriminative stage needs labels, the data has none; use labelled data")
        logits = self._classify(images)
        return {"loss": cross_entropy(logits, target), "accuracy": (logits.argmax(1) == target).float()}

    @torch.no_grad()
    def class_logits(self, images: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of the discriminative stage."""
        if self.classifier is None:
            raise ValueError("this machine was not trained to classify: set discriminative_epochs")
        return self._classify(images)

    def _classify(self, images: Tensor) -> Tensor:
        assert self.classifier is not None
        logits: Tensor = self.classifier(self.visible.scale(images.flatten(1)), self.mean_field(images))
        return logits

    # ---- greedy layers

    def doubled(self, number: int) -> int:
        """Factor of the input from below in greedy layer ``number``, where that from above is missing; 1 at the top."""
        return 2 if number < len(self.hidden_dims) else 1

    def greedy_input(self, number: int, below: Tensor) -> Tensor:
        """c + W' x of greedy layer ``number``, without the doubling."""
        with torch.autocast(below.device.type, enabled=False):
            return torch.addmm(self.biases[number - 1], below, self.weights[number - 1])

    def greedy_energy(self, number: int, below: Tensor) -> Tensor:
        """The function of ``(B, units)`` below whose gradient is the learning rule of the doubled machine, nats."""
        factor = self.doubled(number)
        if number == 1:
            bias, scaled = self.visible.energy(below), self.visible.scale(below)
        else:
            bias, scaled = -(below @ self.greedy_biases[number - 2]), below
        return bias - softplus(factor * self.greedy_input(number, scaled)).sum(1) / factor

    @torch.no_grad()
    def greedy_sweep(self, number: int, below: Tensor) -> Tensor:
        """A step of Gibbs sampling of greedy layer ``number``: ``(B, units)`` below to the same shape."""
        scaled = self.visible.scale(below) if number == 1 else below
        hidden = sample_bernoulli(torch.sigmoid(self.doubled(number) * self.greedy_input(number, scaled)))
        with torch.autocast(below.device.type, enabled=False):
            field = hidden @ self.weights[number - 1].T
        if number == 1:
            return self.visible.sample(self.visible.natural(field))
        return sample_bernoulli(torch.sigmoid(2 * (self.greedy_biases[number - 2] + field)))

    def greedy_loss(self, number: int, images: Tensor) -> Tensor:
        """Contrastive divergence of greedy layer ``number`` on draws from the layers below it."""
        visible = images.flatten(1)
        below = visible
        if number > 1:
            below = self.bottom_up(self.visible.scale(visible), sample=True, stop=number - 1)[-1]
        model = run_chain(lambda state: self.greedy_sweep(number, state), below, self.pretraining_steps)
        return energy_difference(self.greedy_energy(number, below), self.greedy_energy(number, model)).loss

    # ---- the partition function

    def exact_log_partition(self) -> Tensor:
        """log Z by adding up all states of the odd layers.

        Returns:
            A float64 scalar, nats, at the precision of the parameters.

        Raises:
            ValueError: more than 25 units in these layers.
        """
        path = AnnealedDBM(self)
        sizes = [self.hidden_dims[number - 1] for number in self.odd]
        return enumerated_log_partition(
            lambda states: path.log_density(path.state(states.to(self.weights[0]).split(sizes, 1)), 1.0), sum(sizes)
        )

    def log_partition_ais(
        self, num_chains: int = 100, num_temperatures: int = 14_500, progress: Progress = iter
    ) -> PartitionEstimate:
        return ais(AnnealedDBM(self), published_temperatures(num_temperatures), num_chains, progress)

    def log_partition_reverse_ais(
        self, images: Tensor, num_temperatures: int = 14_500, burn_in: int = 1000, progress: Progress = iter
    ) -> PartitionEstimate:
        path = AnnealedDBM(self)
        samples = self.gibbs(self.data_state(images), burn_in)
        with torch.no_grad():
            state = path.state([samples[number] for number in self.odd])
        return reverse_ais(path, published_temperatures(num_temperatures), state, progress)


def layer_number(stage: Stage) -> int:
    """Number of the greedy layer that a stage trains, from 1."""
    return int(stage.name.removeprefix("layer"))


def gradient(parameter: nn.Parameter) -> Tensor:
    """Its gradient, which must be there."""
    assert parameter.grad is not None
    return parameter.grad
