"""Generative adversarial network.

Goodfellow, Pouget-Abadie, Mirza, Xu, Warde-Farley, Ozair, Courville & Bengio 2014, Generative adversarial networks
(https://arxiv.org/abs/1406.2661).

The defaults are the authors' program on MNIST: uniform noise of unit variance, rectified units in the generator whose
output starts at the pixel means, maxout and dropout in the discriminator, SGD with momentum. Departures: the two
players move one after the other (the program moves both at once), the discriminator's loss is the sum of equation 1 and
not half of it, and momentum and learning rate stay as they are unless a schedule is given (``RisingMomentum`` is the
program's).
"""

import math
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, Uniform
from torch.nn.modules.batchnorm import _BatchNorm

from lit_gen.models.adversarial import AdversarialModel, Player, check_clip
from lit_gen.models.adversarial_losses import AdversarialLossFactory, NonSaturating
from lit_gen.models.augmentations import AugmentationFactory
from lit_gen.models.base import Decodes
from lit_gen.models.feature_matching import FeatureMatchingFactory
from lit_gen.models.optimizers import FusedSGD
from lit_gen.models.regularizers import RegularizerFactory
from lit_gen.models.statistics import unit_statistics
from lit_gen.networks import (
    MaxoutMLP,
    MovingAverage,
    NetworkFactory,
    Shape,
    UniformMLP,
    build,
    check_layer,
    full_precision,
    watch_layer,
)
from lit_gen.objectives import DiscriminatorTerms

Noise = Literal["uniform", "normal"]


class GAN(AdversarialModel, Decodes):
    """Generative adversarial network (Goodfellow et al. 2014): any two networks, any loss, any regularizer.

    What has steadied adversarial training since is injected too: ``feature_matching`` and ``augmentation``.

    A variant overrides :meth:`discriminator_loss`, :meth:`generator_loss`, :meth:`penalty`, :attr:`prior`, or how
    images meet networks: :meth:`to_image`, :meth:`to_discriminator`.

    With ``ema_decay`` the model keeps a moving average of its generator, in checkpoints too. :meth:`sample`,
    :meth:`decode`, validation and all callbacks then draw from the average; :meth:`generate` is always the generator
    that trains, and :attr:`sample_average` set to False lets :meth:`sample` draw from that one too.

    Example:
        >>> model = GAN((1, 28, 28))
        >>> model.sample(4).shape
        torch.Size([4, 1, 28, 28])

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        latent_dim: number of latent units.
        noise: distribution of the latents, independent and of unit variance.
        generator: network from z to the image before its output non-linearity.
        discriminator: network from the image to one logit.
        loss: what both minimise.
        regularizer: of the discriminator; None for none.
        discriminator_steps: batches, each with an update of the discriminator, for one turn of the generator.
        generator_steps: updates of the generator in its turn, each from new noise.
        micro_batches: parts that a batch is computed in, one after the other, to save memory.
        ema_decay: of the moving average of the generator (0.999, say); None for no average.
        generator_optimizer: takes the generator's parameters.
        discriminator_optimizer: takes the discriminator's.
        generator_lr_scheduler: takes the generator's optimizer; stepped after each epoch.
        discriminator_lr_scheduler: takes the discriminator's optimizer; stepped after each epoch.
        generator_clip: largest norm of the generator's gradient; None for no clipping.
        discriminator_clip: largest norm of the discriminator's gradient.
        feature_matching: what the generator minimises in place of its part of the loss; None: its part of the loss.
        augmentation: how images and generated ones are changed before the discriminator sees them in training; None:
            not at all.
    """

    def __init__(
        self,
        image_shape: Shape,
        latent_dim: int = 100,
        noise: Noise = "uniform",
        generator: NetworkFactory = UniformMLP,
        discriminator: NetworkFactory = MaxoutMLP,
        loss: AdversarialLossFactory = NonSaturating,
        regularizer: RegularizerFactory | None = None,
        discriminator_steps: int = 1,
        generator_steps: int = 1,
        micro_batches: int = 1,
        ema_decay: float | None = None,
        generator_optimizer: OptimizerCallable = lambda parameters: FusedSGD(parameters, lr=0.1, momentum=0.5),
        discriminator_optimizer: OptimizerCallable = lambda parameters: FusedSGD(parameters, lr=0.1, momentum=0.5),
        generator_lr_scheduler: LRSchedulerCallable | None = None,
        discriminator_lr_scheduler: LRSchedulerCallable | None = None,
        generator_clip: float | None = None,
        discriminator_clip: float | None = None,
        feature_matching: FeatureMatchingFactory | None = None,
        augmentation: AugmentationFactory | None = None,
    ) -> None:
        super().__init__(image_shape, discriminator_steps, generator_steps, micro_batches)
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")
        if noise not in ("uniform", "normal"):
            raise ValueError(f"noise must be uniform or normal, got {noise!r}")
        self.latent_dim = latent_dim
        self.noise = noise
        self.generator = build(generator, (latent_dim,), self.image_shape)
        self.discriminator = build(discriminator, self.image_shape, (1,))
        self.loss = build(loss)
        self.regularizer = None if regularizer is None else build(regularizer)
        if self.regularizer is not None and self.regularizer.images_alone:
            self._refuse_batch_norm(type(self.regularizer).__name__)
        self.feature_matching = None if feature_matching is None else build(feature_matching)
        if self.feature_matching is not None:
            check_layer(self.discriminator, self.feature_matching.layer)
        self.augmentation = None if augmentation is None else build(augmentation)
        self.average = None if ema_decay is None else MovingAverage(self.generator, ema_decay)
        self.sample_average = True
        """Whether samples come from the moving average of the generator, where there is one."""
        self.make_generator_optimizer = generator_optimizer
        self.make_discriminator_optimizer = discriminator_optimizer
        self.make_generator_lr_scheduler = generator_lr_scheduler
        self.make_discriminator_lr_scheduler = discriminator_lr_scheduler
        self.generator_clip = check_clip("generator_clip", generator_clip)
        self.discriminator_clip = check_clip("discriminator_clip", discriminator_clip)
        self.knows_data: Tensor
        self.register_buffer("knows_data", torch.tensor(False))

    def _refuse_batch_norm(self, regularizer: str) -> None:
        if any(isinstance(part, _BatchNorm) for part in self.discriminator.modules()):
            raise ValueError(
                f"{regularizer} needs the gradient at each image by itself, and batch normalisation mixes the images of"
                " a batch (Gulrajani et al. 2017, section 4): take a discriminator without it, for DCGAN"
                " --model.discriminator.norm layer"
            )

    # ---- the networks

    @property
    def latent_shape(self) -> Shape:
        return (self.latent_dim,)

    @property
    def prior(self) -> Distribution:
        """p(z): independent units of mean 0 and variance 1."""
        zeros = next(self.generator.parameters()).new_zeros(self.latent_dim)
        if self.noise == "normal":
            each: Distribution = Normal(zeros, 1.0, validate_args=False)
        else:
            each = Uniform(zeros - math.sqrt(3), zeros + math.sqrt(3), validate_args=False)
        return Independent(each, 1, validate_args=False)

    def to_image(self, output: Tensor) -> Tensor:
        """What the generator's network gives, as images in [0, 1]."""
        return torch.sigmoid(output)

    def from_image(self, images: Tensor) -> Tensor:
        """What the network has to give for these images between 0 and 1: :meth:`to_image` undone."""
        return torch.logit(images)

    def to_discriminator(self, images: Tensor) -> Tensor:
        """Images in [0, 1] as the discriminator's network sees them, where penalties measure distances too."""
        return images

    def augment(self, seen: Tensor) -> Tensor:
        """What :meth:`to_discriminator` made, changed at random in training where the model has an augmentation."""
        return seen if self.augmentation is None or not self.training else self.augmentation(seen)

    def generator_input(self, z: Tensor, condition: Any = None) -> Tensor:
        """What the generator's network is given, ``(B, ...)``."""
        return z

    def logits(self, seen: Tensor, condition: Any = None) -> Tensor:
        """The discriminator's logits ``(B,)`` of what :meth:`to_discriminator` made."""
        return full_precision(self.discriminator(seen))[:, 0]

    def generate(self, z: Tensor, condition: Any = None) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] of latents ``(B, latent_dim)``, differentiable, by the trained weights."""
        return self.to_image(self.generator(self.generator_input(z, condition)))

    def decode(self, z: Tensor, condition: Any = None) -> Distribution | Tensor:
        """As :meth:`generate`, by the moving average of the weights where the model keeps one."""
        if self.average is None or not self.sample_average:
            return self.generate(z, condition)
        return self.to_image(self.average(self.generator_input(z, condition)))

    @property
    def sampling_generator(self) -> nn.Module:
        """The network that samples come from: the generator, or its moving average."""
        return self.generator if self.average is None or not self.sample_average else self.average.network

    def discriminate(self, images: Tensor, condition: Any = None) -> Tensor:
        """Logits ``(B,)`` of images ``(B, C, H, W)`` in [0, 1]: large where they look real."""
        return self.logits(self.augment(self.to_discriminator(images)), condition)

    # ---- the game

    def players(self) -> dict[str, Player]:
        return {
            "discriminator": Player(
                [self.discriminator],
                self.make_discriminator_optimizer,
                self.make_discriminator_lr_scheduler,
                self.discriminator_clip,
            ),
            "generator": Player(
                [self.generator], self.make_generator_optimizer, self.make_generator_lr_scheduler, self.generator_clip
            ),
        }

    def fakes(self, images: Tensor, condition: Any = None) -> Tensor:
        z = self.sample_latents(len(images), condition)
        return self.generate(z, condition) if self.training else self.decode_images(z, condition)

    def discriminator_loss(self, images: Tensor, fakes: Tensor, condition: Any = None) -> DiscriminatorTerms:
        # Two batches, not one: each has statistics of its own under batch normalisation.
        real, fake = self.discriminate(images, condition), self.discriminate(fakes, condition)
        return DiscriminatorTerms(self.loss.real(real) + self.loss.fake(fake), real, fake)

    def generator_loss(self, fakes: Tensor, condition: Any = None) -> Tensor:
        return self.loss.generator(self.discriminate(fakes, condition))

    def generator_objective(self, images: Tensor, fakes: Tensor, condition: Any = None) -> Tensor:
        if self.feature_matching is None:
            return super().generator_objective(images, fakes, condition)
        with watch_layer(self.discriminator, self.feature_matching.layer) as features:
            self.discriminate(images, condition)
            self.discriminate(fakes, condition)
        return self.feature_matching(*map(full_precision, features))

    def penalty(self, images: Tensor, fakes: Tensor, condition: Any = None) -> Tensor | None:
        if self.regularizer is None:
            return None
        # Gradients of gradients are too fine for half precision: all of the penalty is computed in that of the weights.
        with torch.autocast(images.device.type, enabled=False):
            real, fake = (self.to_discriminator(full_precision(part)) for part in (images, fakes))
            return self.regularizer.penalty(lambda seen: self.logits(self.augment(seen), condition), real, fake)

    def after_step(self, player: str) -> None:
        if player == "discriminator" and self.regularizer is not None:
            self.regularizer.after_step(self.discriminator)
        if player == "generator" and self.average is not None:
            self.average.update(self.generator)

    @torch.no_grad()
    def on_train_start(self) -> None:
        """Start the generator's output at the pixel means of the training images, once in the life of the model."""
        known = bool(self.knows_data)
        self.knows_data.fill_(True)
        if not known and isinstance(self.generator, UniformMLP):
            self.generator.set_output_bias(self.from_image(unit_statistics(self)[0].clamp(0.001, 0.999)))
            if self.average is not None:
                self.average.restart(self.generator)

    def compiled_parts(self) -> list[nn.Module]:
        """Without the discriminator where its gradient is part of the loss, or one of its layers is watched.

        The compiler takes no second derivative, and overlooks who watches.
        """
        twice = self.regularizer is not None and self.regularizer.differentiates_twice
        eager = twice or self.feature_matching is not None
        return [part for part in super().compiled_parts() if not (eager and part is self.discriminator)]
