"""3D ShapeNets: a convolutional deep belief network of voxels and their classes.

Wu, Song, Khosla, Yu, Zhang, Tang & Xiao 2015, 3D ShapeNets: A deep representation for volumetric shapes
(https://arxiv.org/abs/1406.5670), and the code that its authors published.

Departures from the paper: visible biases of each layer start from the log-odds of what it sees, not from zero. The
authors multiply the weights of the label by ten on the way up only, which belongs to no energy; here the top machine
has ten copies of the label with common weights, always in agreement, so that Gibbs sampling and free energies are those
of one energy. The top machine learns from draws of the units below it, as its chains visit them, not from their
probabilities. Classes are those of the generative model, by free energy: the separate network that the paper fine-tunes
by back-propagation is left out. Momentum is constant within a stage unless its optimizer has a schedule.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn.functional import one_hot, softplus
from torch.optim import Optimizer

from lit_gen.distributions import sample_bernoulli
from lit_gen.inference import chain, run_chain
from lit_gen.inference.depth import View
from lit_gen.inference.next_view import view_information
from lit_gen.models.base import ClassConditional, CompletesShapes, Frame, HasTrajectory, Reconstructs
from lit_gen.models.code_cache import CodeCache
from lit_gen.models.negative_phase import (
    FastPersistentContrastiveDivergence,
    NegativePhaseFactory,
    load_own_state,
    states_of_all_processes,
)
from lit_gen.models.staged import Stage, StagedModel, for_each
from lit_gen.models.statistics import unit_statistics
from lit_gen.networks import BernoulliVisible, BoltzmannLayer, Shape, State, build
from lit_gen.networks.conv_boltzmann import ConvBoltzmannLayer
from lit_gen.networks.softmax import LabelledVisible
from lit_gen.objectives import energy_difference

FRAMES = 60
"""Steps of a long chain that a trajectory shows."""


class ShapeNets3D(StagedModel, ClassConditional, HasTrajectory, Reconstructs, CompletesShapes):
    """Convolutional layers, a fully connected one, and on top a machine over its units and the label.

    Each layer is trained greedily by contrastive divergence on the probabilities of the layer below, the top machine by
    the injected negative phase, and then, if asked for, all of them together (wake-sleep with tied weights). Samples of
    a class are P(voxel) below a chain of the top machine whose label is held fast.

    Example:
        >>> model = ShapeNets3D((1, 8, 8, 8), 3, channels=[4, 6], kernel_sizes=[4, 2], strides=[2, 1],
        ...                     conv_epochs=1, sparsity_targets=0.01, sparsity_costs=0.0,
        ...                     fully_connected=8, top=10, sample_steps=2)
        >>> [stage.name for stage in model.stages]
        ['conv1', 'conv2', 'dense', 'top']
        >>> model.sample(2).shape
        torch.Size([2, 1, 8, 8, 8])

    Args:
        image_shape: ``(1, D, H, W)``; the command line takes it from the data.
        num_classes: number of classes; the command line takes it from the data.
        channels: filters of each convolutional layer, from the bottom.
        kernel_sizes: side of the filters of each layer.
        strides: of each layer.
        fully_connected: units of the layer above them.
        top: hidden units of the machine over these units and the label.
        label_copies: copies of the label in that machine, which agree: how loud it is among the units.
        negative_phase: draws the states of the top machine.
        conv_epochs: of each convolutional stage; one number for all of them.
        dense_epochs: of the fully connected layer.
        top_epochs: of the top machine; None: as long as the trainer.
        fine_tuning_epochs: of a last stage for all layers.
        pretraining_steps: k of contrastive divergence below the top.
        sparsity_targets: activity that the units of each convolutional layer shall have.
        sparsity_costs: how strongly their biases are drawn to it; 0: not at all.
        sample_steps: Gibbs steps of the top machine from noise to a sample.
        cache_megabytes: codes of finished layers to keep in memory, so that a stage encodes an image only once.
        conv_optimizer: takes the parameters of a convolutional layer.
        dense_optimizer: takes those of the fully connected layer.
        optimizer: takes those of the top machine.
        lr_scheduler: takes that optimizer; stepped after each epoch of its stage.
        fine_tuning_optimizer: takes all parameters.
    """

    monitor = None
    needs_binary = True

    def __init__(
        self,
        image_shape: Shape,
        num_classes: int,
        channels: Sequence[int] = (48, 160, 512),
        kernel_sizes: Sequence[int] = (6, 5, 4),
        strides: Sequence[int] = (2, 2, 1),
        fully_connected: int = 1200,
        top: int = 4000,
        label_copies: int = 10,
        negative_phase: NegativePhaseFactory = FastPersistentContrastiveDivergence,
        conv_epochs: int | Sequence[int] = (15, 30, 50),
        dense_epochs: int = 80,
        top_epochs: int | None = None,
        fine_tuning_epochs: int = 0,
        pretraining_steps: int = 1,
        sparsity_targets: float | Sequence[float] = (0.01, 0.02, 0.0),
        sparsity_costs: float | Sequence[float] = (0.001, 0.002, 0.0),
        sample_steps: int = 2000,
        cache_megabytes: int = 1000,
        conv_optimizer: OptimizerCallable = lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=1e-5),
        dense_optimizer: OptimizerCallable = lambda p: torch.optim.SGD(p, lr=0.003, momentum=0.9, weight_decay=1e-5),
        optimizer: OptimizerCallable = lambda p: torch.optim.SGD(p, lr=0.003, momentum=0.5, weight_decay=1e-5),
        lr_scheduler: LRSchedulerCallable | None = None,
        fine_tuning_optimizer: OptimizerCallable = lambda p: torch.optim.SGD(p, lr=3e-5, momentum=0.9),
    ) -> None:
        super().__init__(image_shape)
        count = len(channels)
        if len(image_shape) != 4 or image_shape[0] != 1:
            raise ValueError(
                f"ShapeNets3D is for voxels of shape (1, D, H, W), got {tuple(image_shape)}; use voxel data, such as"
                " SyntheticShapes or ModelNet"
            )
        if num_classes < 2:
            raise ValueError(f"ShapeNets3D needs labels of at least 2 classes, the data has {num_classes}")
        if count < 1 or len(kernel_sizes) != count or len(strides) != count:
            raise ValueError(
                "channels, kernel_sizes and strides must each have one number for each convolutional layer, got"
                f" {list(channels)}, {list(kernel_sizes)} and {list(strides)}"
            )
        if min(sample_steps, pretraining_steps) < 1:
            raise ValueError(
                f"sample_steps and pretraining_steps must be at least 1, got {sample_steps} and {pretraining_steps}"
            )
        if cache_megabytes < 0:
            raise ValueError(f"cache_megabytes must not be negative, got {cache_megabytes}; 0 keeps no codes")
        if fine_tuning_epochs and top_epochs is None:
            raise ValueError("fine_tuning_epochs need top_epochs, which say when the stage before them ends")
        self.num_classes = num_classes
        self.label_copies = label_copies
        self.pretraining_steps = pretraining_steps
        self.sample_steps = sample_steps
        self.negative_phase = build(negative_phase)
        self._hits: Tensor | None = None
        self._codes = CodeCache(cache_megabytes * 2**20)
        epochs = for_each(conv_epochs, count, "conv_epochs")
        self.sparsity_targets = for_each(sparsity_targets, count, "sparsity_targets")
        self.sparsity_costs = for_each(sparsity_costs, count, "sparsity_costs")
        self.convolutions = nn.ModuleList()
        shape = self.image_shape
        for filters, size, stride in zip(channels, kernel_sizes, strides, strict=True):
            self.convolutions.append(ConvBoltzmannLayer(shape, filters, size, stride))
            shape = self.convolution(len(self.convolutions)).hidden_shape
        self.dense = BoltzmannLayer(BernoulliVisible(shape), fully_connected)
        units = LabelledVisible(BernoulliVisible((fully_connected,)), num_classes, label_copies)
        self.top = BoltzmannLayer(units, top)
        with torch.no_grad():
            for machine in (self.dense, self.top):
                bound = math.sqrt(6 / sum(machine.weight.shape))
                machine.weight.uniform_(-bound, bound)
            self.top.weight[-num_classes:] /= label_copies  # all copies together start as loud as another unit
        self.plan(
            [
                *(Stage(f"conv{number + 1}", epochs[number], conv_optimizer) for number in range(count)),
                Stage("dense", dense_epochs, dense_optimizer),
                Stage("top", top_epochs, optimizer, lr_scheduler),
                Stage("fine_tuning", fine_tuning_epochs, fine_tuning_optimizer),
            ]
        )

    def setup(self, stage: str) -> None:
        self.refuse_half_precision()

    # ---- the layers

    def convolution(self, number: int) -> ConvBoltzmannLayer:
        """Convolutional layer ``number``, from 1."""
        layer = self.convolutions[number - 1]
        assert isinstance(layer, ConvBoltzmannLayer)
        return layer

    @property
    def units(self) -> LabelledVisible:
        """What the top machine sees: units of the fully connected layer, and the label after them."""
        units = self.top.visible
        assert isinstance(units, LabelledVisible)
        return units

    def up(self, images: Tensor, layers: int | None = None) -> list[Tensor]:
        """Probabilities of the layers below the top machine, each given the one below it.

        Args:
            images: ``(B, 1, D, H, W)`` in [0, 1].
            layers: how many of them; None: all.

        Returns:
            The images, the maps of each convolutional layer and the units of the fully connected layer, ``(B, units)``.
        """
        found = [images]
        for number in range(1, min(len(self.convolutions), self.depth if layers is None else layers) + 1):
            found.append(self.convolution(number).hidden_mean(found[-1]))
        if layers is None or layers == self.depth:
            found.append(self.dense.hidden_mean(found[-1].flatten(1)))
        return found

    def down(self, state: Tensor, layers: int | None = None) -> list[Tensor]:
        """Probabilities of the layers below one of them, each given the one above it.

        Args:
            state: of the layer to start from: ``(B, units)`` or ``(B, maps, ...)``.
            layers: number of that layer, from 1; None: the fully connected one.

        Returns:
            As :meth:`up` gives them: P(voxel), ``(B, 1, D, H, W)`` first, and ``state`` last.
        """
        found = [state]
        count = len(self.convolutions)
        if layers is None or layers == self.depth:
            below = self.dense.visible_mean(state)
            found.insert(0, below.unflatten(1, self.convolution(count).hidden_shape))
        for number in range(count if layers is None else min(layers, count), 0, -1):
            found.insert(0, self.convolution(number).visible_mean(found[0]))
        return found

    @property
    def depth(self) -> int:
        """Number of layers below the top machine."""
        return len(self.convolutions) + 1

    @property
    def trained_depth(self) -> int:
        """Number of layers that the stages so far have trained, the top machine included; all of an unfitted model."""
        begun = int(self.stages_begun)
        if begun == 0:
            return self.depth + 1
        return min(self.stage_names.index(self.stages[begun - 1].name) + 1, self.depth + 1)

    @property
    def stage_names(self) -> list[str]:
        """All stages there may be; the number of a greedy one, from 0, is that of the layers below what it trains."""
        return [*(f"conv{number}" for number in range(1, self.depth)), "dense", "top", "fine_tuning"]

    # ---- training

    def stage_parameters(self, stage: Stage) -> Iterable[nn.Parameter]:
        return self.parameters() if stage.name == "fine_tuning" else self.layer(stage).parameters()

    def layer(self, stage: Stage) -> ConvBoltzmannLayer | BoltzmannLayer:
        """What a greedy stage trains."""
        if stage.name.startswith("conv"):
            return self.convolution(int(stage.name.removeprefix("conv")))
        return self.dense if stage.name == "dense" else self.top

    def begin_stage(self, stage: Stage) -> None:
        self._codes.clear()
        if stage.name == "fine_tuning":
            return
        mean, variance, count = unit_statistics(self, lambda images, label: self.below(stage, images, label).flatten(1))
        layer = self.layer(stage)
        if isinstance(layer, ConvBoltzmannLayer):
            layer.initialize(mean, count)
        else:
            layer.initialize(mean, variance, count)

    @torch.no_grad()
    def below(self, stage: Stage, images: Tensor, label: Tensor) -> Tensor:
        """What the layer of a greedy stage sees of images: probabilities, and for the top machine the label too."""
        layers = self.stage_names.index(stage.name)
        # The layers below do not change while a stage trains; an evaluation may run with other weights (an average).
        remembered = self.training and layers > 0
        codes = (
            self._codes(images, lambda some: self.up(some, layers)[-1]) if remembered else self.up(images, layers)[-1]
        )
        if stage.name == "dense":
            return codes.flatten(1)
        return self.units.join(codes, self.label_units(label)) if stage.name == "top" else codes

    def stage_terms(self, stage: Stage, images: Tensor, target: Any) -> dict[str, Tensor]:
        # Gradients are differences of large terms: under bf16 autocast they would be off by more than a percent.
        with torch.autocast(images.device.type, enabled=False):
            label = self.target_condition(target)
            if self.training and stage.name in ("top", "fine_tuning"):
                self.negative_phase.set_epoch(self.epoch_of_stage(self.current_epoch))
            if stage.name == "fine_tuning":
                values = {"loss": self._fine_tuning_loss(images, label)}
            else:
                values = self._greedy_terms(stage, self.below(stage, images, label), label)
            if stage.name in ("top", "fine_tuning") and not self.training:
                with torch.no_grad():
                    predicted = self.class_log_probs(images).argmax(1)
                self._count(predicted, label)
                values["accuracy"] = (predicted == label).float()
            return values

    def _greedy_terms(self, stage: Stage, data: Tensor, label: Tensor) -> dict[str, Tensor]:
        if stage.name == "top":
            return {"loss": self._top_loss(self.units.split(data)[0], label)[0]}
        layer = self.layer(stage)
        with torch.no_grad():
            # Probabilities in the last step, as in the published code.
            state = layer.gibbs((data,), self.pretraining_steps - 1)[0]
            model = layer.visible_mean(layer.sample_hidden(state))
        if isinstance(layer, BoltzmannLayer):
            loss = energy_difference(layer.free_energy(data), layer.free_energy(model)).loss
        else:
            number = self.stage_names.index(stage.name)
            loss = layer.contrast(
                data,
                model,
                skip_empty=number == 0,
                sparsity_target=self.sparsity_targets[number],
                sparsity_cost=self.sparsity_costs[number],
            )
        return {"loss": loss, "reconstruction_error": (data - model).square().flatten(1).sum(1)}

    def _top_loss(self, features: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Free energy of units and label less that of the chains; and those chains.

        The units are drawn: their probabilities would be states that no chain visits.
        """
        drawn = sample_bernoulli(features)
        data = self.units.join(drawn, self.label_units(label))
        with torch.no_grad():
            model = self.negative_phase(self.top, (data,), keep=self.training)[0]
        loss = energy_difference(self.top.free_energy(data), self.top.free_energy(model)).loss
        return loss, model

    def _fine_tuning_loss(self, images: Tensor, label: Tensor) -> Tensor:
        """Energies of what each layer makes of the images less those of a dream that the top machine sends down.

        With tied weights, the wake phase and the sleep phase together are a contrast of each layer, whose negative
        states come from the whole model and not from a reconstruction.
        """
        with torch.no_grad():
            wake = self.up(images)
        loss, model = self._top_loss(wake[-1], label)
        with torch.no_grad():
            chosen = torch.arange(len(images), device=images.device) % len(model)
            sleep = self.down(self.units.split(model)[0][chosen])
        below, dreamt = wake[-2].flatten(1), sleep[-2].flatten(1)
        loss = loss + energy_difference(self.dense.free_energy(below), self.dense.free_energy(dreamt)).loss
        for number in range(1, self.depth):
            loss = loss + self.convolution(number).contrast(wake[number - 1], sleep[number - 1])
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        # Not after the backward pass, where fp16 has its gradients scaled.
        if self.current_stage.name in ("top", "fine_tuning"):
            self.negative_phase.on_gradient(self.top)

    # ---- the class

    def label_units(self, label: Tensor) -> Tensor:
        """``(B,) -> (B, num_classes)``: all copies are of that class."""
        return self.label_copies * one_hot(label, self.num_classes).to(self.top.weight)

    def class_free_energies(self, features: Tensor) -> Tensor:
        """Free energy of units of the fully connected layer with each class: ``(B, units) -> (B, num_classes)``."""
        labels = self.label_copies * torch.eye(self.num_classes, dtype=features.dtype, device=features.device)
        unlabelled = self.units.join(features, features.new_zeros(len(features), self.num_classes))
        weight = self.top.weight[-self.num_classes :]
        inputs = self.top.hidden_input(unlabelled)[:, None] + self.label_copies * weight
        energy = self.units.image.energy(features)[:, None] + self.units.label.energy(labels)
        return energy - softplus(inputs).sum(2)

    def class_log_probs(self, images: Tensor) -> Tensor:
        """log p(class given the features of the images, all copies of the label alike), ``(B, num_classes)``."""
        return torch.log_softmax(-self.class_free_energies(self.up(images)[-1]), 1)

    def on_validation_epoch_start(self) -> None:
        self._hits = None

    def on_test_epoch_start(self) -> None:
        self._hits = None

    def on_validation_epoch_end(self) -> None:
        self._log_class_accuracy("val")

    def on_test_epoch_end(self) -> None:
        self._log_class_accuracy("test")

    def _count(self, predicted: Tensor, label: Tensor) -> None:
        """Count images of each class, and those of them that are recognised."""
        truth = one_hot(label, self.num_classes).double()
        hits = torch.stack([(truth * (predicted == label)[:, None]).sum(0), truth.sum(0)])
        self._hits = hits if self._hits is None else self._hits + hits

    def _log_class_accuracy(self, split: str) -> None:
        """The mean over classes of the part that is recognised: the figure of the paper, for classes of unlike size."""
        if self._hits is not None:
            right, total = self.trainer.strategy.reduce(self._hits, reduce_op="sum")
            self.log(f"{split}/mean_class_accuracy", (right / total)[total > 0].mean().float(), rank_zero_only=True)

    # ---- sampling

    def _clamped(self, state: State, label: Tensor) -> State:
        return (self.units.join(self.units.split(state[0])[0], self.label_units(label)), *state[1:])

    def _dream(self, num_samples: int, condition: Tensor) -> tuple[State, Any]:
        """The state that a chain starts from, and its transition."""
        start = self._clamped(self.top.noise(num_samples), condition)
        return start, lambda state: self._clamped(self.top.sweep(state), condition)

    def _picture(self, state: State) -> Tensor:
        return self.down(self.units.split(self.top.visible_mean(state[1]))[0])[0]

    def draw(self, num_samples: int, condition: Any = None) -> Tensor:
        start, transition = self._dream(num_samples, condition)
        return self._picture(run_chain(transition, start, self.sample_steps))

    def trajectory(self, num_samples: int, condition: Any = None) -> Iterator[Frame]:
        """P(voxel) below the chains of the top machine, some of their steps, the last among them."""
        condition = self.sample_condition(num_samples) if condition is None else condition
        start, transition = self._dream(num_samples, condition)
        every = max(1, self.sample_steps // FRAMES)
        for number, state in enumerate(chain(transition, start, self.sample_steps), 1):
            if (self.sample_steps - number) % every == 0:
                yield Frame(self._picture(state).detach().float())

    @torch.no_grad()
    def reconstruct(self, images: Tensor, condition: Any = None) -> Tensor:
        """P(voxel) after one pass up and down through the layers trained so far, ``(B, 1, D, H, W)``."""
        if self.trained_depth <= self.depth:
            return self.down(self.up(images, self.trained_depth)[-1], self.trained_depth)[0]
        features = self.up(images)[-1]
        label = self.class_log_probs(images).argmax(1) if condition is None else condition
        hidden = self.top.hidden_mean(self.units.join(features, self.label_units(label)))
        return self._picture((features, hidden))

    # ---- half-seen shapes

    def complete(self, voxels: Tensor, observed: Tensor, num_particles: int = 9, steps: int = 50) -> Tensor:
        """The mean of :meth:`guess`, beside what is observed: ``(B, 1, D, H, W)`` in [0, 1]."""
        return torch.where(observed, voxels, self.guess(voxels, observed, num_particles, steps)[0].mean(0))

    @torch.no_grad()
    def guess(self, voxels: Tensor, observed: Tensor, num_particles: int = 9, steps: int = 50) -> tuple[Tensor, Tensor]:
        """Guesses of the unknown voxels go up, through one Gibbs step of the top machine, and down, again and again.

        They start as independent voxels, of density 0.1 in the first guess and 0.9 in the last; the label starts empty.

        Returns:
            P(voxel) of each guess, ``(num_particles, B, 1, D, H, W)``, with what is observed; and its P(class),
            ``(num_particles, B, num_classes)``.
        """
        densities = torch.linspace(0.1, 0.9, num_particles, device=voxels.device)
        known, seen = (part.expand(num_particles, *part.shape).flatten(0, 1) for part in (voxels, observed))
        start = sample_bernoulli(densities.repeat_interleave(len(voxels)).view(-1, 1, 1, 1, 1).expand_as(known))
        state = torch.where(seen, known, start.to(known))
        label = known.new_zeros(len(known), self.num_classes)
        for _ in range(steps):
            features = sample_bernoulli(self.up(state)[-1])
            hidden = self.top.sample_hidden(self.units.join(features, label))
            features, label = self.units.split(self.top.visible_mean(hidden))
            state = torch.where(seen, known, self.down(features)[0])
        state, label = (part.unflatten(0, (num_particles, -1)) for part in (state, label))
        return state, label / self.label_copies

    def view_information(
        self, voxels: Tensor, observed: Tensor, views: Sequence[View], num_particles: int = 9, steps: int = 30
    ) -> Tensor:
        """What a depth camera is expected to tell of the class from each next view, ``(B, len(views))`` nats.

        The best next view has the most (the paper's section 4); see
        :func:`~lit_gen.inference.next_view.view_information`.

        Args:
            voxels: ``(B, 1, D, H, W)``; what they are where they are not observed does not matter.
            observed: of the same shape, bool: what has been seen so far.
            views: sides of the grid where the camera may stand next.
            num_particles: guesses of each shape, and again of each guess seen from one more side.
            steps: updates of each guess.
        """
        return view_information(
            lambda shapes, seen: self.guess(shapes, seen, num_particles, steps)[1].mean(0),
            self.guess(voxels, observed, num_particles, steps)[0],
            voxels,
            observed,
            views,
        )

    # ---- conditions

    def sample_condition(self, num_samples: int) -> Tensor:
        """Every class in turn."""
        return torch.arange(num_samples, device=self.device) % self.num_classes

    # ---- checkpoints

    def on_train_end(self) -> None:
        super().on_train_end()
        self._codes.clear()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["negative_phase"] = states_of_all_processes(self.negative_phase, self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._codes.clear()
        self.negative_phase.set_epoch(self.epoch_of_stage(checkpoint.get("epoch", 0)))
        load_own_state(self.negative_phase, self, checkpoint.get("negative_phase"))
