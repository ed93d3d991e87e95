"""Variational autoencoder.

Kingma & Welling 2013, Auto-Encoding Variational Bayes (https://arxiv.org/abs/1312.6114).

Departures from the paper: Adam instead of Adagrad, torch's default initialisation instead of N(0, 0.01), and no weight
prior. All three are ordinary arguments or a few lines in a subclass; the objective is the paper's, with the closed-form
KL of appendix B.
"""

from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from lit_gen.inference import importance_bound
from lit_gen.models.base import Decodes, Encodes, HasLowerBound, LikelihoodModel, Reconstructs, repeat_condition
from lit_gen.models.optimizers import FusedAdam
from lit_gen.models.statistics import training_images
from lit_gen.networks import (
    MLP,
    BernoulliLikelihood,
    LikelihoodFactory,
    NetworkFactory,
    PriorFactory,
    Shape,
    StandardNormal,
    build,
    full_precision,
)
from lit_gen.objectives import LikelihoodTerms, kl_divergence, variational_bound


class VAE(LikelihoodModel, Encodes, Decodes, Reconstructs, HasLowerBound):
    """Variational autoencoder (Kingma & Welling 2013): Gaussian posterior, any networks, prior and likelihood.

    A variant overrides :meth:`objective`, :attr:`prior`, :meth:`encode`, :meth:`decode` or :meth:`kl_weight_now`.

    Example:
        >>> model = VAE((1, 28, 28), latent_dim=20)
        >>> model.sample(4).shape
        torch.Size([4, 1, 28, 28])

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        latent_dim: number of latent units.
        encoder: network from the image to the mean and log-variance of q(z given x).
        decoder: network from z to the parameters of the likelihood.
        likelihood: p(x given z) from the output of the decoder.
        kl_weight: weight of the KL term in the loss; 1 gives the bound, above 1 a beta-VAE.
        kl_warmup_steps: training steps over which the weight rises linearly from 0 (against posterior collapse).
        latent_prior: p(z), built for the number of latents and the shape of images: a mixture, a :class:`VampPrior`, a
            flow. Where torch knows no closed form of the KL, it is estimated by the sample that is decoded.
        optimizer: takes the parameters.
        lr_scheduler: takes the optimizer; stepped after each epoch.
    """

    def __init__(
        self,
        image_shape: Shape,
        latent_dim: int = 20,
        encoder: NetworkFactory = MLP,
        decoder: NetworkFactory = MLP,
        likelihood: LikelihoodFactory = BernoulliLikelihood,
        kl_weight: float = 1.0,
        kl_warmup_steps: int = 0,
        latent_prior: PriorFactory = StandardNormal,
        optimizer: OptimizerCallable = FusedAdam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(image_shape, optimizer, lr_scheduler)
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")
        if kl_weight < 0 or kl_warmup_steps < 0:
            raise ValueError(
                f"kl_weight and kl_warmup_steps must not be negative, got {kl_weight} and {kl_warmup_steps}"
            )
        self.latent_dim = latent_dim
        self.kl_weight = kl_weight
        self.kl_warmup_steps = kl_warmup_steps
        self.encoder = build(encoder, self.image_shape, (2 * latent_dim,))
        self.likelihood = build(likelihood, self.image_shape)
        self.decoder = build(decoder, (latent_dim,), self.likelihood.parameter_shape)
        self.latent_prior = build(latent_prior, latent_dim, self.image_shape)

    @property
    def is_density(self) -> bool:  # type: ignore[override]
        return self.likelihood.is_density

    @property
    def needs_binary(self) -> bool:  # type: ignore[override]
        return self.likelihood.needs_binary

    @property
    def latent_shape(self) -> Shape:
        return (self.latent_dim,)

    @property
    def prior(self) -> Distribution:
        """p(z): N(0, I), or what :attr:`latent_prior` makes of the encoder now."""
        return self.latent_prior(self.encode)

    def encode(self, images: Tensor, condition: Any = None) -> Distribution:
        """q(z given x) = N(mu, diag(sigma^2)), the network giving mu and log sigma^2 (appendix C.2)."""
        mean, log_variance = full_precision(self.encoder(images)).chunk(2, dim=1)
        return Independent(Normal(mean, torch.exp(0.5 * log_variance), validate_args=False), 1, validate_args=False)

    def decode(self, z: Tensor, condition: Any = None) -> Distribution:
        """p(x given z)."""
        return self.likelihood(self.decoder(z.to(next(self.decoder.parameters()).dtype)))

    def kl_weight_now(self) -> float:
        """Weight of the KL term at this training step."""
        if not self.training or self.kl_warmup_steps == 0 or self._trainer is None:
            return self.kl_weight
        return self.kl_weight * min(1.0, self.trainer.global_step / self.kl_warmup_steps)

    def objective(self, images: Tensor, condition: Any = None) -> LikelihoodTerms:
        posterior = self.encode(images, condition)
        z = posterior.rsample()
        # Equation 3 with L = 1: the KL in closed form where there is one, one sample for the expected log-likelihood.
        decoded = self.decode(z, condition)
        kl = kl_divergence(posterior, self.conditional_prior(condition), z)
        terms = variational_bound(decoded.log_prob(images), kl, self.kl_weight_now())
        if not self.likelihood.adds_loss:
            return terms
        # The bound stays that of p(x given z).
        return terms._replace(loss=terms.loss + self.likelihood.added_loss(decoded, images))

    @property
    def minimises_added_loss(self) -> bool:  # type: ignore[override]
        """Not where a subclass has an objective of its own; if that adds it too, override this."""
        return type(self).objective is VAE.objective

    @torch.no_grad()
    def reconstruct(self, images: Tensor, condition: Any = None) -> Tensor:
        """The mean image at the posterior mean, ``(B, C, H, W)`` in [0, 1]."""
        return self.decode_images(self.encode(images, condition).mean, condition).float()

    @torch.no_grad()
    def lower_bound(self, images: Tensor, num_samples: int = 1, condition: Any = None) -> Tensor:
        """k-sample importance-weighted bound on log p(x), ``(B,)`` nats, the whole batch at once, in chunks."""
        posterior, prior = self.encode(images, condition), self.conditional_prior(condition)

        def log_weights(samples: int) -> Tensor:
            z = posterior.sample(torch.Size([samples]))
            repeated = images.expand(samples, *images.shape).flatten(0, 1)
            likelihood = self.decode(z.flatten(0, 1), repeat_condition(condition, samples))
            reconstruction = likelihood.log_prob(repeated).unflatten(0, z.shape[:2])
            return reconstruction + prior.log_prob(z) - posterior.log_prob(z)

        return importance_bound(log_weights, num_samples, len(images), self.max_rows)

    def on_train_start(self) -> None:
        self.likelihood.start(lambda count: training_images(self, count))
        self.latent_prior.start(lambda count: training_images(self, count))
