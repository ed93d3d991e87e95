"""Restricted Boltzmann machine over images and their labels.

Larochelle & Bengio 2008, Classification using discriminative restricted Boltzmann machines (trained here by the joint
likelihood, their generative objective); Hinton 2010, A practical guide to training restricted Boltzmann machines,
section 16.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn.functional import one_hot, softplus

from lit_gen.inference import chain
from lit_gen.models.base import ClassConditional
from lit_gen.models.negative_phase import ContrastiveDivergence, NegativePhaseFactory
from lit_gen.models.optimizers import FusedSGD
from lit_gen.models.rbm import RBM
from lit_gen.networks import BernoulliVisible, BoltzmannLayer, Shape, State, VisibleFactory, VisibleLayer
from lit_gen.networks.softmax import LabelledVisible


class ClassRBM(RBM, ClassConditional):
    """Joint p(image, class): draws images of a class, and classifies by p(class given image), which is exact.

    ``free_energy(images)`` sums the classes out, so that log-likelihoods are those of the image; with a condition it is
    that of the pair. Samples of a class come from chains whose label is held fast.

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        num_classes: number of classes; the command line takes it from the data.
        num_hidden: number of hidden units.
        visible: layer of pixels: binary, Gaussian for grey levels, or categorical for a few of them.
        negative_phase: draws the states of the model, images and labels.
        sample_steps: Gibbs steps to a sample, each of a chain of its own.
        sample_start: where samples start: at noise, or at the chains of a negative phase that has some.
        initial_weight_std: weights start from N(0, this squared).
        centering: rate at which the offsets of the units follow their means in each step; 0 does not centre.
        sparsity_target: how often a hidden unit should be on; None: as it likes.
        sparsity_cost: strength of the pull of a unit towards that.
        sparsity_decay: of the running mean by which it is told how often a unit is on.
        optimizer: takes the parameters; its weight decay applies to weights only.
        lr_scheduler: takes the optimizer; stepped after each epoch.
    """

    def __init__(
        self,
        image_shape: Shape,
        num_classes: int,
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
        if num_classes < 2:
            raise ValueError(
                f"a ClassRBM needs labels of at least 2 classes, the data has {num_classes}; use labelled data (class"
                " sub-folders for ImageFolder), or an RBM"
            )
        self.num_classes = num_classes
        super().__init__(
            image_shape,
            num_hidden,
            visible,
            negative_phase,
            sample_steps,
            sample_start,
            initial_weight_std,
            centering,
            sparsity_target,
            sparsity_cost,
            sparsity_decay,
            optimizer,
            lr_scheduler,
        )

    def build_machine(self, visible: VisibleLayer, num_hidden: int) -> BoltzmannLayer:
        return super().build_machine(LabelledVisible(visible, self.num_classes), num_hidden)

    @property
    def units(self) -> LabelledVisible:
        """The visible units: pixels, and the label after them."""
        units = self.machine.visible
        assert isinstance(units, LabelledVisible)
        return units

    @property
    def visible(self) -> VisibleLayer:
        return self.units.image

    # ---- the class

    def class_free_energies(self, images: Tensor) -> Tensor:
        """Free energy of the images with each class: ``(B, C, H, W) -> (B, num_classes)`` nats."""
        image = self.units.image.encode(images.flatten(1))
        labels = torch.eye(self.num_classes, dtype=image.dtype, device=image.device)
        unlabelled = self.units.join(image, image.new_zeros(len(image), self.num_classes))
        # Energies and inputs are sums over units, so that the label adds the same to every image.
        empty = torch.zeros_like(unlabelled[:1])
        added = self.units.join(empty[:, : -self.num_classes].expand(self.num_classes, -1), labels)
        energy = self.machine.visible_energy(unlabelled)[:, None]
        energy = energy + self.machine.visible_energy(added) - self.machine.visible_energy(empty)
        inputs = self.machine.hidden_input(unlabelled)[:, None] + self.machine.weight[-self.num_classes :]
        return energy - softplus(inputs).sum(2)

    def class_log_probs(self, images: Tensor) -> Tensor:
        """log p(class given image), exact: ``(B, C, H, W) -> (B, num_classes)``."""
        return torch.log_softmax(-self.class_free_energies(images), 1)

    def free_energy(self, images: Tensor, condition: Any = None) -> Tensor:
        if condition is None:
            return -torch.logsumexp(-self.class_free_energies(images), 1)
        return super().free_energy(images, condition)

    def visible_units(self, images: Tensor, condition: Any = None) -> Tensor:
        """Images with their labels; without a condition, labels are drawn from p(class given image)."""
        if condition is None:
            with torch.no_grad():
                condition = torch.distributions.Categorical(logits=self.class_log_probs(images)).sample()
        image = self.units.image.encode(images.flatten(1))
        return self.units.join(image, self._labels(condition).to(image))

    def _labels(self, condition: Tensor) -> Tensor:
        return one_hot(condition, self.num_classes).to(self.machine.weight)

    @torch.no_grad()
    def features(self, images: Tensor, condition: Any = None) -> Tensor:
        """p(h = 1 given the image, and the class if it is given): ``(B, C, H, W) -> (B, num_hidden)``."""
        if condition is not None:
            return super().features(images, condition)
        of_class = [
            super(ClassRBM, self).features(images, torch.full((len(images),), number, device=images.device))
            for number in range(self.num_classes)
        ]
        return (self.class_log_probs(images).exp()[:, :, None] * torch.stack(of_class, 1)).sum(1)

    def measures(self, images: Tensor, condition: Any = None) -> dict[str, Tensor]:
        return {"accuracy": (self.class_free_energies(images).argmin(1) == condition).float()}

    # ---- sampling

    def hidden_chain(self, state: State, steps: int, condition: Any = None) -> Iterator[Tensor]:
        """The hidden units of each Gibbs step, in which the label is held fast."""
        if condition is None:
            condition = self.sample_condition(len(state[0]))
        start = self._clamp(state, condition)
        for _, hidden in chain(lambda state: self._clamp(self.sweep(state), condition), start, steps):
            yield hidden

    def _clamp(self, state: State, condition: Tensor) -> State:
        image, _ = self.units.split(state[0])
        return (self.units.join(image, self._labels(condition)), *state[1:])

    # ---- conditions

    def sample_condition(self, num_samples: int) -> Tensor:
        """Classes as frequent as in the training data."""
        _, frequencies = self.units.split(self.machine.data_mean)
        return torch.multinomial(frequencies, num_samples, replacement=True)
