"""Laplacian pyramid of adversarial networks that knows classes.

Denton et al. 2015, section 3 and the authors' program: the class is given to every generator and discriminator.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn.functional import one_hot

from lit_gen.models.adversarial_losses import AdversarialLossFactory, NonSaturating
from lit_gen.models.balance import BalancingRuleFactory
from lit_gen.models.base import ClassConditional
from lit_gen.models.lapgan import LAPGAN
from lit_gen.models.optimizers import FusedSGD
from lit_gen.models.regularizers import RegularizerFactory
from lit_gen.networks import (
    ClassPlane,
    CoarseDiscriminator,
    CoarseGenerator,
    NetworkFactory,
    PlaneDiscriminator,
    PlaneGenerator,
    Shape,
    build,
)


class ClassLAPGAN(LAPGAN, ClassConditional):
    """A :class:`LAPGAN` of which images of a class can be asked.

    At the coarsest level the class, one-hot, stands in a row with the noise, and with the pixels; at finer levels each
    network sees it as one more plane, which it learns (:class:`~lit_gen.networks.ClassPlane`).

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        num_classes: number of classes; the command line takes it from the data.
        sizes: shorter sides of the levels, the coarsest first and that of the image last; None: 8-14-28, 8-16-32,
            4-8-16-32-64, 4-8 and alike, each half of the next. One size alone makes it a plain GAN.
        latent_dim: units of noise of the coarsest level; every finer one has a plane.
        base_generator: network of the coarsest level, from noise and class, in a row, to the image.
        base_discriminator: network of the coarsest level, from pixels and class, in a row, to one
            logit.
        generator: network of each finer level, from the noise, the enlarged image and the plane of the class,
            ``C + 2`` planes, to what is added to the image.
        discriminator: network of each finer level, from the sum and the plane of the class to one logit.
        loss: what both networks of a level minimise.
        regularizer: of every discriminator; None for none.
        balance: rule that says, at each level, which network is updated; None: both on every batch. ``ErrorBalance`` is
            that of the paper's large images.
        discriminator_steps: batches, each with an update of the discriminators, for one turn of the generators.
        generator_steps: updates of the generators in their turn, each from new noise.
        micro_batches: parts that a batch is computed in, one after the other, to save memory.
        ema_decay: of the moving averages of the generators (0.999, say); None for no averages.
        generator_optimizer: takes the parameters of one generator.
        discriminator_optimizer: takes those of one discriminator.
        generator_lr_scheduler: takes the optimizer of a generator; stepped after each epoch.
        discriminator_lr_scheduler: takes the optimizer of a discriminator; stepped after each epoch.
        generator_clip: largest norm of the gradient of a generator; None for no clipping.
        discriminator_clip: largest norm of the gradient of a discriminator.
        bounded: whether the image of the coarsest level goes through tanh, as those of a DCGAN do. A discriminator with
            batch normalisation sees no scale of images, and without it lets that grow beyond all pixels.
    """

    def __init__(
        self,
        image_shape: Shape,
        num_classes: int,
        sizes: Sequence[int] | None = None,
        latent_dim: int = 100,
        base_generator: NetworkFactory = CoarseGenerator,
        base_discriminator: NetworkFactory = CoarseDiscriminator,
        generator: NetworkFactory = PlaneGenerator,
        discriminator: NetworkFactory = PlaneDiscriminator,
        loss: AdversarialLossFactory = NonSaturating,
        regularizer: RegularizerFactory | None = None,
        balance: BalancingRuleFactory | None = None,
        discriminator_steps: int = 1,
        generator_steps: int = 1,
        micro_batches: int = 1,
        ema_decay: float | None = None,
        generator_optimizer: OptimizerCallable = lambda parameters: FusedSGD(parameters, lr=0.02),
        discriminator_optimizer: OptimizerCallable = lambda parameters: FusedSGD(parameters, lr=0.02),
        generator_lr_scheduler: LRSchedulerCallable | None = None,
        discriminator_lr_scheduler: LRSchedulerCallable | None = None,
        generator_clip: float | None = None,
        discriminator_clip: float | None = None,
        bounded: bool = False,
    ) -> None:
        if num_classes < 2:
            raise ValueError(
                f"ClassLAPGAN needs labels of at least 2 classes, the data has {num_classes}; use labelled data, or"
                " LAPGAN"
            )
        super().__init__(
            image_shape,
            sizes,
            latent_dim,
            lambda noise, image: build(base_generator, (noise[0] + num_classes,), image),
            lambda image, logit: build(base_discriminator, (math.prod(image) + num_classes,), logit),
            lambda planes, image: ClassPlane((planes[0] + num_classes, *planes[1:]), image, num_classes, generator),
            lambda image, logit: ClassPlane((image[0] + num_classes, *image[1:]), logit, num_classes, discriminator),
            loss,
            regularizer,
            balance,
            discriminator_steps,
            generator_steps,
            micro_batches,
            ema_decay,
            generator_optimizer,
            discriminator_optimizer,
            generator_lr_scheduler,
            discriminator_lr_scheduler,
            generator_clip,
            discriminator_clip,
            bounded,
        )
        self.num_classes = num_classes

    @property
    def generator(self) -> nn.Module | None:
        return inside(super().generator)

    @property
    def discriminator(self) -> nn.Module | None:
        return inside(super().discriminator)

    def sample_condition(self, num_samples: int) -> Tensor:
        """Classes at random, all equally likely."""
        return torch.randint(self.num_classes, (num_samples,), device=self.device)

    def network_input(self, level: int, planes: Tensor, condition: Any = None) -> Tensor:
        classes = one_hot(condition, self.num_classes).to(planes.dtype)
        if level == self.num_levels - 1:
            return torch.cat([planes.flatten(1), classes], 1)
        return torch.cat([planes, classes[:, :, None, None].expand(-1, -1, *planes.shape[2:])], 1)


def inside(network: nn.Module | None) -> nn.Module | None:
    """The network that is shown the plane of the class."""
    return network.network if isinstance(network, ClassPlane) else network
