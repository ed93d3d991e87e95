"""Denoising diffusion of images of a class, with guidance.

Ho & Salimans 2022, Classifier-free diffusion guidance (https://arxiv.org/abs/2207.12598).

Departure from the paper: the scale here is its 1 + w, so that 1 is no guidance and 0 no class.
"""

import math
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn.functional import one_hot

from lit_gen.models.base import ClassConditional
from lit_gen.models.ddpm import DDPM
from lit_gen.models.diffusion_samplers import AncestralSampler, SamplerFactory
from lit_gen.models.noise_schedules import LinearSchedule, ScheduleFactory
from lit_gen.models.optimizers import FusedAdam
from lit_gen.models.statistics import unit_statistics
from lit_gen.networks import Shape, TimedNetworkFactory, UNet, full_precision
from lit_gen.objectives import LikelihoodTerms


class GuidedClass(NamedTuple):
    """A condition with a guidance scale of its own."""

    classes: Tensor
    """(B,) class numbers."""
    scale: Tensor
    """(B,) guidance scales."""


class ClassDDPM(DDPM, ClassConditional):
    """:class:`DDPM` of p(image given class), with classifier-free guidance towards the class.

    In training some images do not tell their class. The noise of a sample is guessed as without a class, plus
    ``guidance_scale`` times what the class changes of that: 1 draws from p(image given class), 0 from p(image). The
    bound is one on log p(image given class), without guidance.

    ``lit-gen sample CKPT --condition class=3 guidance=2`` draws with another scale.

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        num_classes: number of classes; the command line takes it from the data.
        guidance_scale: of samples that are given no other.
        label_dropout: share of the training images that do not tell their class.
        network: from a noisy image, its time and its class to its noise.
        schedule: noise rates of the steps.
        variance: of the reverse process in the bound: ``large`` is beta, ``small`` is beta-tilde.
        levels: grey levels of the data, for the bound: 256 for 8 bits, 2 for binary pixels.
        sampler: the way from noise to samples, whatever the training.
        bound_steps: steps of each image that stand for all in the bound of a test, an unbiased estimate; None: all,
            a pass through the network for each.
        optimizer: takes the parameters.
        lr_scheduler: takes the optimizer; stepped after each epoch.
    """

    condition_fields = {"class": int, "guidance": float}
    frequencies: Tensor

    def __init__(
        self,
        image_shape: Shape,
        num_classes: int,
        guidance_scale: float = 1.0,
        label_dropout: float = 0.1,
        network: TimedNetworkFactory = UNet,
        schedule: ScheduleFactory = LinearSchedule,
        variance: Literal["large", "small"] = "large",
        levels: int = 256,
        sampler: SamplerFactory = AncestralSampler,
        bound_steps: int | None = None,
        optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=2e-4),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        if num_classes < 2:
            raise ValueError(
                f"a ClassDDPM needs labels of at least 2 classes, the data has {num_classes}; use labelled data (class"
                " sub-folders for ImageFolder), or a DDPM"
            )
        if not 0 <= label_dropout < 1 or guidance_scale < 0:
            raise ValueError(
                "label_dropout must lie in 0..1 and guidance_scale not be negative, got"
                f" {label_dropout} and {guidance_scale}"
            )
        self.num_classes = num_classes
        super().__init__(
            image_shape, network, schedule, variance, levels, sampler, bound_steps, optimizer, lr_scheduler
        )
        self.guidance_scale = guidance_scale
        self.label_dropout = label_dropout
        self.register_buffer("frequencies", torch.zeros(num_classes))

    @property
    def network_classes(self) -> int:  # type: ignore[override]
        return self.num_classes

    def epsilon(self, x: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        classes = condition.classes if isinstance(condition, GuidedClass) else condition
        return full_precision(self.network(x, t / self.steps, classes))

    def guided_epsilon(self, x: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        scale = condition.scale if isinstance(condition, GuidedClass) else x.new_full((len(x),), self.guidance_scale)
        classes = condition.classes if isinstance(condition, GuidedClass) else condition
        if bool((scale == 1).all()):
            return self.epsilon(x, t, classes)
        both = torch.cat([classes, torch.full_like(classes, self.num_classes)])
        told, untold = self.epsilon(x.repeat(2, 1, 1, 1), t.repeat(2), both).chunk(2)
        return untold + scale.view(-1, 1, 1, 1) * (told - untold)

    def objective(self, images: Tensor, condition: Any = None) -> LikelihoodTerms:
        if self.training:
            untold = torch.rand(len(images), device=images.device) < self.label_dropout
            condition = torch.where(untold, self.num_classes, condition)
        return super().objective(images, condition)

    @torch.no_grad()
    def on_train_start(self) -> None:
        """Count the classes of the training images, once in the life of the model."""
        if self.frequencies.any():
            return

        def classes(images: Tensor, condition: Any) -> Tensor:
            return one_hot(condition, self.num_classes)

        self.frequencies.copy_(unit_statistics(self, classes)[0])

    # ---- conditions

    def sample_condition(self, num_samples: int) -> Tensor:
        """Classes as frequent as in the training data; all alike before there were any."""
        frequencies = self.frequencies if self.frequencies.any() else torch.ones_like(self.frequencies)
        return torch.multinomial(frequencies, num_samples, replacement=True)

    def make_condition(self, fields: dict[str, Any], num_samples: int) -> GuidedClass:  # type: ignore[override]
        """Class and guidance scale; the class is drawn, and the scale is that of the model, where none is given."""
        scale = fields.get("guidance", self.guidance_scale)
        if not 0 <= scale < math.inf:
            raise ValueError(f"guidance must be a number from 0, got {scale}")
        given = "class" in fields
        classes = super().make_condition(fields, num_samples) if given else self.sample_condition(num_samples)
        return GuidedClass(classes, torch.full((num_samples,), scale))
