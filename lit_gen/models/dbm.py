"""Deep Boltzmann machine.

Salakhutdinov & Hinton 2009, Deep Boltzmann machines (https://proceedings.mlr.press/v5/salakhutdinov09a.html); centred
gradients after Montavon & Mueller 2012, Deep Boltzmann machines and the centering trick, in the form of Melchior,
Fischer & Wiskott 2016, How to center deep Boltzmann machines (https://jmlr.org/papers/v17/14-237.html).

Departures from the paper: the code that its authors published doubles the hidden biases of a greedy layer with its
weights, and so does this; annealing starts from pixels with about the means of the data, not from uniform ones.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

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
from lit_gen.networks import (
    BernoulliVisible,
    DeepBoltzmannMachine,
    MeanFieldClassifier,
    Shape,
    State,
    VisibleFactory,
    build,
)
from lit_gen.objectives import energy_difference


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
        self.pretraining_steps = pretraining_steps
        self.mean_field_steps = mean_field_steps
        self.centering = centering
        self.sample_steps = sample_steps
        pixels = build(visible, self.image_shape)
        if pixels.num_units != math.prod(self.image_shape):
            raise ValueError(
                f"{type(pixels).__name__} has {pixels.num_units} units for {math.prod(self.image_shape)} pixels, and a"
                " DBM takes layers of one unit a pixel: BernoulliVisible or GaussianVisible"
            )
        if centering and not isinstance(pixels, BernoulliVisible):
            raise ValueError("centering is for binary pixels (BernoulliVisible); others are centred by their layer")
        self.machine = DeepBoltzmannMachine(pixels, hidden_dims, initial_weight_std)
        sizes = self.machine.sizes
        self.classifier = MeanFieldClassifier(sizes, num_classes) if discriminative_epochs else None
        self.register_buffer("centres", torch.full((sum(sizes),), 0.5))
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
        return self.machine.visible.needs_binary

    # ---- energies

    def energy(self, state: State) -> Tensor:
        return self.machine.energy(state)

    def model_energy(self, state: State) -> Tensor:
        return self.machine.model_energy(state)

    def free_energy_bound(self, images: Tensor, condition: Any = None) -> Tensor:
        visible = images.flatten(1)
        return self.machine.variational_free_energy(visible, self.machine.mean_field(visible))

    def data_energy(self, images: Tensor, condition: Any = None) -> Tensor:
        visible = images.flatten(1)
        if self.training:
            posterior = self.machine.mean_field(visible, self.mean_field_steps)
            self._activities = torch.cat([part.mean(0) for part in (visible, *posterior)])
        else:
            posterior = self.machine.mean_field(visible)
        return self.machine.variational_free_energy(visible, posterior)

    # ---- Gibbs sampling

    def data_state(self, images: Tensor) -> State:
        visible = images.flatten(1)
        return (visible, *self.machine.bottom_up(self.machine.visible.scale(visible), sample=True)[1:])

    def gibbs(self, state: State, steps: int) -> State:
        return run_chain(self.machine.sweep, state, steps)

    def visible_mean(self, hidden: Tensor) -> Tensor:
        """E[v given h_1] as images ``(B, *image_shape)`` in [0, 1]."""
        return self.machine.visible_mean(hidden).clamp(0, 1).unflatten(1, self.image_shape)

    def draw(self, num_samples: int, condition: Any = None) -> Tensor:
        return self.visible_mean(self.gibbs(self.machine.noise(num_samples), self.sample_steps)[1])

    @torch.no_grad()
    def dream(self, num_samples: int) -> Tensor:
        return self.gibbs(self.machine.noise(num_samples), self.sample_steps)[0].unflatten(1, self.image_shape)

    def trajectory(self, num_samples: int, condition: Any = None) -> Iterator[Frame]:
        """The dream of the chains: P(v given h_1) after each Gibbs step."""
        for state in chain(self.machine.sweep, self.machine.noise(num_samples), self.sample_steps):
            yield Frame(self.visible_mean(state[1]).detach().float())

    @torch.no_grad()
    def reconstruct(self, images: Tensor, condition: Any = None) -> Tensor:
        """P(v given h_1) at the mean field, ``(B, C, H, W)`` in [0, 1]."""
        return self.visible_mean(self.machine.mean_field(images.flatten(1))[0]).float()

    def hidden_probabilities(self, images: Tensor) -> Tensor:
        return torch.cat(self.machine.mean_field(images.flatten(1)), 1)

    def chain_images(self) -> Tensor | None:
        units = self.negative_phase.model_chains() if self.current_stage.name == "joint" else None
        return None if units is None else units.unflatten(1, self.image_shape)

    def filters(self) -> Tensor:
        """The weights of each unit of the first layer, ``(H_1, C, H, W)``."""
        return self.machine.weights[0].detach().T.unflatten(1, self.image_shape)

    # ---- training

    def stage_parameters(self, stage: Stage) -> Iterable[nn.Parameter]:
        machine = self.machine
        if stage.name == "joint":
            return [*machine.weights, *machine.biases, *machine.visible.parameters()]
        if stage.name == "discriminative":
            assert self.classifier is not None
            return self.classifier.parameters()
        number = layer_number(stage)
        below = machine.visible.parameters() if number == 1 else [machine.greedy_biases[number - 2]]
        return [machine.weights[number - 1], machine.biases[number - 1], *below]

    def begin_stage(self, stage: Stage) -> None:
        if stage.name == "discriminative":
            assert self.classifier is not None
            self.classifier.start_from(list(self.machine.weights), self.machine.hidden_biases())

    def on_train_start(self) -> None:
        """Set the visible layer and the base of annealing from the training images, once in the life of the machine."""
        if not self.machine.knows_data:
            self.machine.initialize(*unit_statistics(self))
            self.centres[: len(self.machine.data_mean)] = self.machine.data_mean

    def after_backward(self, stage: Stage) -> None:
        if stage.name == "joint" and self.centering:
            self.machine.centre_gradients(self.centres.split(self.machine.sizes))
            activities = self.trainer.strategy.reduce(self._activities, reduce_op="mean")
            self.centres.lerp_(activities, self.centering)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.current_stage.name == "joint":  # the chains are those of the whole machine
            super().on_before_optimizer_step(optimizer)

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
        visible = images.flatten(1)
        scaled = self.machine.visible.scale(visible)
        logits: Tensor = self.classifier(scaled, self.machine.mean_field(visible))
        return logits

    # ---- greedy layers

    def greedy_loss(self, number: int, images: Tensor) -> Tensor:
        """Contrastive divergence of greedy layer ``number`` on draws from the layers below it."""
        machine, below = self.machine, images.flatten(1)
        if number > 1:
            below = machine.bottom_up(machine.visible.scale(below), sample=True, stop=number - 1)[-1]
        model = run_chain(lambda state: machine.greedy_sweep(number, state), below, self.pretraining_steps)
        return energy_difference(machine.greedy_energy(number, below), machine.greedy_energy(number, model)).loss

    # ---- the partition function

    def exact_log_partition(self) -> Tensor:
        """log Z by adding up all states of the odd layers.

        Returns:
            A float64 scalar, nats, at the precision of the parameters.

        Raises:
            ValueError: more than 25 units in these layers.
        """
        path = AnnealedDBM(self.machine)
        machine = self.machine
        sizes = [machine.sizes[number] for number in machine.odd]
        return enumerated_log_partition(
            lambda states: path.log_density(path.state(states.to(machine.weights[0]).split(sizes, 1)), 1.0), sum(sizes)
        )

    def log_partition_ais(
        self, num_chains: int = 100, num_temperatures: int = 14_500, progress: Progress = iter
    ) -> PartitionEstimate:
        return ais(AnnealedDBM(self.machine), published_temperatures(num_temperatures), num_chains, progress)

    def log_partition_reverse_ais(
        self, images: Tensor, num_temperatures: int = 14_500, burn_in: int = 1000, progress: Progress = iter
    ) -> PartitionEstimate:
        path = AnnealedDBM(self.machine)
        samples = self.gibbs(self.data_state(images), burn_in)
        with torch.no_grad():
            state = path.state([samples[number] for number in self.machine.odd])
        return reverse_ais(path, published_temperatures(num_temperatures), state, progress)


def layer_number(stage: Stage) -> int:
    """Number of the greedy layer that a stage trains, from 1."""
    return int(stage.name.removeprefix("layer"))
