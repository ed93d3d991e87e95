"""Importance weighted autoencoder.

Burda, Grosse & Salakhutdinov 2015, Importance weighted autoencoders (https://arxiv.org/abs/1509.00519).

Departures from the paper: any number of stochastic layers, a choice of gradient estimators, and Adam's epsilon of 1e-8
unless another is given. The ready configs have the paper's 1e-4 and its schedule
(:class:`~lit_gen.models.LengtheningStages`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.distributions import Distribution

from lit_gen.inference import importance_bound
from lit_gen.models.base import repeat_condition
from lit_gen.models.gradient_estimators import EstimatorFactory, Reparametrized
from lit_gen.models.layered import LayeredVAE, Stack, part_of
from lit_gen.models.optimizers import FusedAdam
from lit_gen.models.statistics import unit_statistics
from lit_gen.networks import (
    BernoulliLikelihood,
    GlorotMLP,
    LikelihoodFactory,
    NetworkFactory,
    PriorFactory,
    Shape,
    StandardNormal,
    build,
)
from lit_gen.objectives import LikelihoodTerms, weighted_surrogate


class Samples(NamedTuple):
    """Draws from q(h given x), and what p and q say of them; N rows are k samples of B images."""

    latents: list[Tensor]
    """(N, latent) of each layer, the lowest first; the log-probabilities under p were computed from these."""
    reconstruction: Tensor
    """(k, B) log p(x given h_1), nats."""
    log_prior: Tensor
    """(k, B) log p(h), nats."""
    log_posterior: Tensor
    """(k, B) log q(h given x), nats."""

    @property
    def log_weights(self) -> Tensor:
        """(k, B) log w, nats."""
        return self.reconstruction + self.log_prior - self.log_posterior


class IWAE(LayeredVAE):
    """Importance weighted autoencoder (Burda et al. 2015): a VAE of one or more stochastic layers, trained by L_k.

    Layers are h_1 .. h_L from the image upwards, each a diagonal Gaussian given its neighbour; ``elbo``,
    ``reconstruction`` and ``kl`` are means over the k samples, ``loss`` is the negative bound of the estimator.

    A latent is one of the top layer. :meth:`encode` and :meth:`decode` go through the means of the layers between,
    :meth:`sample` draws these, and :meth:`reconstruct` needs the lowest layer alone.

    A variant overrides :meth:`posterior`, :meth:`generative` or :attr:`prior`.

    Example:
        >>> model = IWAE((1, 28, 28), latent_dims=[100, 50], num_samples=5)
        >>> model.lower_bound(torch.zeros(2, 1, 28, 28), num_samples=100).shape
        torch.Size([2])

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        latent_dims: number of units of each stochastic layer, from the image upwards.
        num_samples: k, in training and in validation.
        estimator: the bound and its gradient: plain, doubly reparametrized, or another bound.
        encoder: network from the image to mean and log standard deviation of q(h_1 given x).
        decoder: network from h_1 to the parameters of the likelihood. A :class:`GlorotMLP` before Bernoulli pixels
            starts at the log-odds of the training images.
        upper_encoder: network from h_l to mean and log standard deviation of q(h_l+1 given h_l), for every l.
        upper_decoder: network from h_l+1 to mean and log standard deviation of p(h_l given h_l+1), for every l.
        likelihood: p(x given h_1) from the output of the decoder.
        latent_prior: p(h_L), as in :class:`VAE`.
        warmup_samples: k of the first epochs, where fewer samples teach as much in a fraction of the time.
        warmup_epochs: number of those.
        optimizer: takes the parameters.
        lr_scheduler: takes the optimizer; stepped after each epoch.
    """

    knows_data: Tensor

    def __init__(
        self,
        image_shape: Shape,
        latent_dims: Sequence[int] = (50,),
        num_samples: int = 50,
        estimator: EstimatorFactory = Reparametrized,
        encoder: NetworkFactory = GlorotMLP,
        decoder: NetworkFactory = GlorotMLP,
        upper_encoder: NetworkFactory = GlorotMLP,
        upper_decoder: NetworkFactory = GlorotMLP,
        likelihood: LikelihoodFactory = BernoulliLikelihood,
        latent_prior: PriorFactory = StandardNormal,
        warmup_samples: int = 5,
        warmup_epochs: int = 0,
        optimizer: OptimizerCallable = FusedAdam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        if not latent_dims or min(latent_dims) < 1:
            raise ValueError(f"latent_dims must name at least one layer of at least 1 unit, got {list(latent_dims)}")
        if min(num_samples, warmup_samples) < 1 or warmup_epochs < 0:
            raise ValueError(
                "num_samples and warmup_samples must be at least 1 and warmup_epochs not negative, got"
                f" {num_samples}, {warmup_samples} and {warmup_epochs}"
            )
        super().__init__(
            image_shape, latent_dims[0], encoder, decoder, likelihood, optimizer=optimizer, lr_scheduler=lr_scheduler
        )
        self.latent_dims = tuple(latent_dims)
        self.latent_prior = build(latent_prior, self.latent_dims[-1], self.image_shape)
        self.num_samples = num_samples
        self.estimator = build(estimator)
        self.estimator(torch.zeros(num_samples, 1))  # refuses an impossible number of samples now
        if warmup_epochs:
            self.estimator(torch.zeros(warmup_samples, 1))
        self.warmup_samples = warmup_samples
        self.warmup_epochs = warmup_epochs
        self.upper_encoder: Stack | None = None
        self.upper_decoder: Stack | None = None
        if layers := list(pairwise(self.latent_dims)):
            self.upper_encoder = Stack([build(upper_encoder, (below,), (2 * above,)) for below, above in layers])
            self.upper_decoder = Stack([build(upper_decoder, (above,), (2 * below,)) for below, above in layers])
        self.register_buffer("knows_data", torch.tensor(False))

    # ---- the distributions

    def posterior(self, layer: int, below: Tensor, condition: Any = None) -> Distribution:
        """q(h_layer given the layer below), which for layer 1 is the image."""
        return self.gaussian(self.encoder if layer == 1 else part_of(self.upper_encoder, layer - 2), below)

    def encode(self, images: Tensor, condition: Any = None) -> Distribution:
        """q(h_L given h_L-1), at the means of the layers between."""
        posterior = self.posterior(1, images, condition)
        for layer in range(2, len(self.latent_dims) + 1):
            posterior = self.posterior(layer, posterior.mean, condition)
        return posterior

    @torch.no_grad()
    def posterior_draws(self, images: Tensor, num_samples: int = 1, condition: Any = None) -> list[Tensor]:
        """Of each layer the mean given a draw of the layer below, which for the lowest is the image."""
        samples = torch.Size([num_samples])
        posterior = self.posterior(1, images, condition)
        means, h = [posterior.mean[None]], posterior.sample(samples).flatten(0, 1)
        for layer in range(2, len(self.latent_dims) + 1):
            posterior = self.posterior(layer, h, repeat_condition(condition, num_samples))
            means.append(posterior.mean.unflatten(0, (num_samples, -1)))
            h = posterior.sample()
        return means

    @torch.no_grad()
    def reconstruct(self, images: Tensor, condition: Any = None) -> Tensor:
        """The mean image at the mean of q(h_1 given x), ``(B, C, H, W)`` in [0, 1]."""
        return self.generative(0, self.posterior(1, images, condition).mean, condition).mean.float()

    # ---- the bound

    def infer(
        self, images: Tensor, first: Distribution, samples: int, condition: Any = None, pathwise: bool = False
    ) -> Samples:
        """Draw the layers of every image and weigh them.

        Args:
            images: ``(B, *image_shape)``.
            first: q(h_1 given x), which is the same for every chunk of samples.
            samples: k.
            condition: of these images.
            pathwise: log q has no gradient in the parameters of q, only in the samples.
        """
        shape, condition_of_rows = (samples, len(images)), repeat_condition(condition, samples)
        latents = [first.rsample(torch.Size([samples])).flatten(0, 1)]
        posteriors = [first]
        for layer in range(2, len(self.latent_dims) + 1):
            posteriors.append(self.posterior(layer, latents[-1], condition_of_rows))
            latents.append(posteriors[-1].rsample())
        if pathwise:
            with self._frozen_encoder():
                posteriors = [self.posterior(1, images, condition)]
                for layer, below in enumerate(latents[:-1], 2):
                    posteriors.append(self.posterior(layer, below, condition_of_rows))
        log_posterior = posteriors[0].log_prob(latents[0].unflatten(0, shape))
        for posterior, latent in zip(posteriors[1:], latents[1:], strict=True):
            log_posterior = log_posterior + posterior.log_prob(latent).unflatten(0, shape)

        # p sees views of its own, by which the surrogate tells its gradients from those of q.
        latents = [latent.view_as(latent) for latent in latents]
        rows = images.expand(samples, *images.shape).flatten(0, 1)
        reconstruction = self.generative(0, latents[0], condition_of_rows).log_prob(rows)
        log_prior = self.conditional_prior(condition_of_rows).log_prob(latents[-1])
        for layer, (below, above) in enumerate(pairwise(latents), 1):
            log_prior = log_prior + self.generative(layer, above, condition_of_rows).log_prob(below)
        return Samples(latents, reconstruction.unflatten(0, shape), log_prior.unflatten(0, shape), log_posterior)

    def num_samples_now(self) -> int:
        """k at this epoch of a training; elsewhere ``num_samples``."""
        warming = self.training and self._trainer is not None and self.current_epoch < self.warmup_epochs
        return self.warmup_samples if warming else self.num_samples

    def objective(self, images: Tensor, condition: Any = None) -> LikelihoodTerms:
        first, pathwise = self.posterior(1, images, condition), self.estimator.pathwise
        drawn = self.infer(images, first, self.num_samples_now(), condition, pathwise)
        log_weights = drawn.log_weights.detach()
        weights = self.estimator(log_weights)
        log_joint = drawn.reconstruction + drawn.log_prior
        surrogate = weighted_surrogate(log_joint, drawn.log_posterior, drawn.latents, weights)
        loss = surrogate.detach() - surrogate - weights.bound
        elbo, reconstruction = log_weights.mean(0), drawn.reconstruction.detach().mean(0)
        return LikelihoodTerms(loss, elbo, reconstruction, reconstruction - elbo)

    @torch.no_grad()
    def lower_bound(self, images: Tensor, num_samples: int = 1, condition: Any = None) -> Tensor:
        """k-sample bound L_k on log p(x), ``(B,)`` nats, in chunks, whatever the estimator of the training."""
        first = self.posterior(1, images, condition)

        def log_weights(samples: int) -> Tensor:
            return self.infer(images, first, samples, condition).log_weights

        return importance_bound(log_weights, num_samples, len(images), self.max_rows)

    @contextmanager
    def _frozen_encoder(self) -> Iterator[None]:
        parts: list[nn.Module] = [self.encoder]
        if self.upper_encoder is not None:
            parts.append(self.upper_encoder)
        learned = [parameter for part in parts for parameter in part.parameters() if parameter.requires_grad]
        try:
            for parameter in learned:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in learned:
                parameter.requires_grad_(True)

    # ---- training

    @torch.no_grad()
    def on_train_start(self) -> None:
        """Start the pixels at the log-odds of the training images, once in the life of the model."""
        super().on_train_start()
        known = bool(self.knows_data)
        self.knows_data.fill_(True)
        if not known and isinstance(self.decoder, GlorotMLP) and isinstance(self.likelihood, BernoulliLikelihood):
            self.decoder.set_output_bias(torch.logit(unit_statistics(self)[0].clamp(0.001, 0.999)))
