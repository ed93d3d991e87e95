"""Boundary-seeking generative adversarial network for discrete data.

Hjelm, Jacob, Che, Trischler, Cho & Bengio 2018, Boundary-seeking generative adversarial networks
(https://arxiv.org/abs/1702.08431).

The generator draws pixels that are 0 or 1, and no gradient comes back through a draw: there is no relaxation and no
straight-through estimate here. What the discriminator says of several draws of the same z reaches the weights through
the log-probabilities of these draws instead.

Departures: the divergence is that of the discriminator's cross-entropy alone (the paper has other f-divergences too);
weights are counted less their mean, which changes the gradient by nothing but its noise; plain policy gradients take
the other draws of the same z for a baseline, where the paper takes a moving average of all.
"""

from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.distributions import Distribution, Independent

from lit_gen.distributions import LogitBernoulli
from lit_gen.models.adversarial_losses import AdversarialLossFactory, NonSaturating, Wasserstein
from lit_gen.models.base import repeat_condition
from lit_gen.models.discrete_estimators import BoundarySeeking, DiscreteEstimatorFactory
from lit_gen.models.gan import GAN, Noise
from lit_gen.models.optimizers import GANAdam
from lit_gen.models.regularizers import RegularizerFactory
from lit_gen.networks import DCGANDiscriminator, DCGANGenerator, NetworkFactory, Shape, build, full_precision
from lit_gen.objectives.discrete import score_surrogate


class BGAN(GAN):
    """Boundary-seeking GAN (Hjelm et al. 2018): a generator of binary pixels, which are independent given z.

    The training images must be binary (``data.binarization``), or the discriminator has an easy task. Samples are draws
    and not means; :meth:`decode` gives p(x given z), so that its likelihood can be estimated too. What is logged as the
    generator's loss is its mean over the draws, which may rise while the estimator of the gradient does its work.

    Example:
        >>> BGAN((1, 28, 28)).sample(4).unique()
        tensor([0., 1.])

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        latent_dim: number of latent units.
        noise: distribution of the latents, independent and of unit variance.
        generator: network from z to the logit of each pixel.
        discriminator: network from the image to one logit.
        estimator: of the generator's gradient.
        num_samples: draws of each z that the gradient is estimated from, at least 2.
        loss: what the discriminator minimises, and what a plain policy gradient takes for a reward.
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
    """

    needs_binary = True

    def __init__(
        self,
        image_shape: Shape,
        latent_dim: int = 64,
        noise: Noise = "normal",
        generator: NetworkFactory = DCGANGenerator,
        discriminator: NetworkFactory = DCGANDiscriminator,
        estimator: DiscreteEstimatorFactory = BoundarySeeking,
        num_samples: int = 20,
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
        )
        if num_samples < 2:
            raise ValueError(
                f"num_samples must be at least 2, got {num_samples}: a draw is judged against others of the same z"
            )
        self.num_samples = num_samples
        self.estimator = build(estimator)
        self.estimator.check(self.loss)

    # ---- the generator

    def to_pixels(self, output: Tensor) -> Distribution:
        """What the generator's network gives, as p(x given z) over ``(B, C, H, W)``, in float32."""
        each = LogitBernoulli(logits=full_precision(output), validate_args=False)
        return Independent(each, len(self.image_shape), validate_args=False)

    def distribution(self, z: Tensor, condition: Any = None) -> Distribution:
        """p(x given z) by the trained weights, differentiable."""
        return self.to_pixels(self.generator(self.generator_input(z, condition)))

    def generate(self, z: Tensor, condition: Any = None) -> Tensor:
        """Draws ``(B, C, H, W)`` of zeros and ones by the trained weights, which no gradient comes back through."""
        return self.distribution(z, condition).sample()

    def decode(self, z: Tensor, condition: Any = None) -> Distribution:
        """As :meth:`distribution`, by the moving average of the weights where the model keeps one."""
        if self.average is None or not self.sample_average:
            return self.distribution(z, condition)
        return self.to_pixels(self.average(self.generator_input(z, condition)))

    def draw(self, num_samples: int, condition: Any = None) -> Tensor:
        """Draws, and not their means: discreteness is the point of this model."""
        return self.decode(self.sample_latents(num_samples, condition), condition).sample()

    def takes_critic(self) -> bool:
        try:
            self.estimator.check(Wasserstein())
        except ValueError:
            return False
        return True

    # ---- the game

    def fakes(self, images: Tensor, condition: Any = None) -> Tensor:
        if not self.training:
            return self.draw(len(images), condition)
        with torch.no_grad():  # draws of pixels pass no gradient on: the estimator makes its own
            return self.generate(self.sample_latents(len(images), condition), condition)

    def generator_loss(self, fakes: Tensor, condition: Any = None) -> Tensor:
        """The mean loss of several draws of each z, whose gradient is that of the estimator.

        Args:
            fakes: only their number counts; the draws are new ones.
            condition: of these.

        Returns:
            ``(B,)``.
        """
        z = self.sample_latents(len(fakes), condition)
        given = self.distribution(z, condition) if self.training else self.decode(z, condition)
        draws = given.sample(torch.Size([self.num_samples]))
        with torch.no_grad():
            logits = self.discriminate(draws.flatten(0, 1), repeat_condition(condition, self.num_samples))
            logits = logits.unflatten(0, (self.num_samples, -1))
            losses = self.loss.generator(logits).mean(0)
            advantages = self.estimator.advantages(logits, self.loss)
        surrogate = score_surrogate(given.log_prob(draws), advantages)
        return losses + surrogate - surrogate.detach()
