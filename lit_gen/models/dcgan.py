"""Deep convolutional generative adversarial network.

Radford, Metz & Chintala 2015, Unsupervised representation learning with deep convolutional generative adversarial
networks (https://arxiv.org/abs/1511.06434).

Departures: the default networks are those of the authors' torch program (4x4 kernels, 64 to 512 channels; the paper's
are an argument away), both players are updated on each batch, and samples use the running statistics of batch
normalisation, where the authors' program uses those of the samples.
"""

from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.distributions import Distribution, Independent, Uniform
from torch.nn.functional import one_hot

from lit_gen.models.adversarial_losses import AdversarialLossFactory, NonSaturating
from lit_gen.models.augmentations import AugmentationFactory
from lit_gen.models.base import ClassConditional, HasFeatureMaps
from lit_gen.models.feature_matching import FeatureMatchingFactory
from lit_gen.models.gan import GAN, Noise
from lit_gen.models.optimizers import GANAdam
from lit_gen.models.regularizers import RegularizerFactory
from lit_gen.networks import DCGANDiscriminator, DCGANGenerator, NetworkFactory, Shape, build


class DCGAN(GAN, HasFeatureMaps):
    """Deep convolutional GAN (Radford et al. 2015), for images of any size and any number of channels.

    Networks see and make pixels in [-1, 1]; images are in [0, 1] everywhere else.

    Example:
        >>> model = DCGAN((3, 32, 32))
        >>> model.sample(4).shape
        torch.Size([4, 3, 32, 32])

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        latent_dim: number of latent units.
        noise: ``uniform`` in (-1, 1) as in the paper, or ``normal``.
        generator: network from z to the image before its tanh.
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
        generator: NetworkFactory = DCGANGenerator,
        discriminator: NetworkFactory = DCGANDiscriminator,
        loss: AdversarialLossFactory = NonSaturating,
        regularizer: RegularizerFactory | None = None,
        discriminator_steps: int = 1,
        generator_steps: int = 1,
        micro_batches: int = 1,
        ema_decay: float | None = None,
        generator_optimizer: OptimizerCallable = GANAdam,
        discriminator_optimizer: OptimizerCallable = GANAdam,
        generator_lr_scheduler: LRSchedulerCallable | None = None,
        discriminator_lr_scheduler: LRSchedulerCallable | None = None,
        generator_clip: float | None = None,
        discriminator_clip: float | None = None,
        feature_matching: FeatureMatchingFactory | None = None,
        augmentation: AugmentationFactory | None = None,
    ) -> None:
        super().__init__(
            image_shape,
            latent_dim,
            noise,
            generator,
            discriminator,
            loss,
            regularizer,
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
            feature_matching,
            augmentation,
        )

    @property
    def prior(self) -> Distribution:
        """p(z): uniform in (-1, 1), or N(0, I)."""
        if self.noise == "normal":
            return super().prior
        zeros = next(self.generator.parameters()).new_zeros(self.latent_dim)
        return Independent(Uniform(zeros - 1, zeros + 1, validate_args=False), 1, validate_args=False)

    def to_image(self, output: Tensor) -> Tensor:
        """(tanh + 1) / 2: pixels from [-1, 1], as the paper has them, to [0, 1]."""
        return 0.5 * (torch.tanh(output) + 1)

    def from_image(self, images: Tensor) -> Tensor:
        return torch.atanh(2 * images - 1)

    def to_discriminator(self, images: Tensor) -> Tensor:
        return 2 * images - 1

    def discriminator_input(self, seen: Tensor, condition: Any = None) -> Tensor:
        """What the discriminator's network is given of images that :meth:`to_discriminator` made."""
        return seen

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Of images in [0, 1], the maps of the discriminator's convolutions, which Radford et al. classify by.

        Raises:
            TypeError: a discriminator of another kind.
        """
        if not isinstance(self.discriminator, DCGANDiscriminator):
            raise TypeError(
                f"features are those of a DCGANDiscriminator, and this one is a {type(self.discriminator).__name__}"
            )
        return self.discriminator.feature_maps(self.discriminator_input(self.to_discriminator(images)))


class ClassDCGAN(DCGAN, ClassConditional):
    """A DCGAN of which images of a class can be asked: the label stands beside the noise, and beside the pixels.

    The generator is given z and the class, one-hot, the discriminator one more map for each class, all ones for that of
    the image (Mirza & Osindero 2014, Conditional generative adversarial nets, https://arxiv.org/abs/1411.1784; the
    program of Radford et al. repeats the label at every layer). Generated images have the classes of the batch that
    they are held against.

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        num_classes: number of classes; the command line takes it from the data.
        latent_dim: number of latent units.
        noise: ``uniform`` in (-1, 1) as in the paper, or ``normal``.
        generator: network from z and the class to the image before its tanh.
        discriminator: network from the image and the maps of its class to one logit.
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
        num_classes: int,
        latent_dim: int = 100,
        noise: Noise = "uniform",
        generator: NetworkFactory = DCGANGenerator,
        discriminator: NetworkFactory = DCGANDiscriminator,
        loss: AdversarialLossFactory = NonSaturating,
        regularizer: RegularizerFactory | None = None,
        discriminator_steps: int = 1,
        generator_steps: int = 1,
        micro_batches: int = 1,
        ema_decay: float | None = None,
        generator_optimizer: OptimizerCallable = GANAdam,
        discriminator_optimizer: OptimizerCallable = GANAdam,
        generator_lr_scheduler: LRSchedulerCallable | None = None,
        discriminator_lr_scheduler: LRSchedulerCallable | None = None,
        generator_clip: float | None = None,
        discriminator_clip: float | None = None,
        feature_matching: FeatureMatchingFactory | None = None,
        augmentation: AugmentationFactory | None = None,
    ) -> None:
        if num_classes < 2:
            raise ValueError(
                f"ClassDCGAN needs labels of at least 2 classes, the data has {num_classes}; use labelled data, or"
                " DCGAN"
            )
        super().__init__(
            image_shape,
            latent_dim,
            noise,
            lambda latents, image: build(generator, (latents[0] + num_classes,), image),
            lambda image, logit: build(discriminator, (image[0] + num_classes, *image[1:]), logit),
            loss,
            regularizer,
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
            feature_matching,
            augmentation,
        )
        self.num_classes = num_classes

    def sample_condition(self, num_samples: int) -> Tensor:
        """Classes at random, all equally likely."""
        return torch.randint(self.num_classes, (num_samples,), device=self.device)

    def generator_input(self, z: Tensor, condition: Any = None) -> Tensor:
        return torch.cat([z, one_hot(condition, self.num_classes).to(z.dtype)], 1)

    def discriminator_input(self, seen: Tensor, condition: Any = None) -> Tensor:
        """With the maps of the classes; all zero where none is named, as for features that must not know it."""
        maps = seen.new_zeros(len(seen), self.num_classes)
        if condition is not None:
            maps = one_hot(condition, self.num_classes).to(seen.dtype)
        return torch.cat([seen, maps[:, :, None, None].expand(-1, -1, *seen.shape[2:])], 1)

    def logits(self, seen: Tensor, condition: Any = None) -> Tensor:
        return super().logits(self.discriminator_input(seen, condition), condition)
