"""Ladder variational autoencoder.

Sonderby, Raiko, Maaloe, Sonderby & Winther 2016, Ladder variational autoencoders (https://arxiv.org/abs/1602.02282): a
deterministic way up, and a way down on which q shares the layers of p.

Departure from the paper: closed-form KL terms where one sample is drawn. The ready configs have its batch normalization
and its warm-up.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import softplus

from lit_gen.inference import ACTIVE_VARIANCE, importance_bound
from lit_gen.models.base import Batch, repeat_condition
from lit_gen.models.layered import LayeredVAE, Stack, part_of
from lit_gen.models.optimizers import FusedAdam
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
from lit_gen.objectives import LikelihoodTerms, importance_weighted_bound, kl_divergence, variational_bound

MIN_VARIANCE = 1e-6
"""Added to every variance, which a softplus in float32 lets vanish."""


class Layer(NamedTuple):
    """One stochastic layer on the way down; N rows are k samples of B images."""

    latent: Tensor
    """(N, D) drawn from q."""
    posterior: Distribution
    """q(h_l given x and h_l+1), batch shape (N,)."""
    prior: Distribution
    """p(h_l given h_l+1), batch shape (N,), or () for the top."""

    @property
    def kl(self) -> Tensor:
        """(N,) KL(q || p) of this layer given the one above, nats."""
        return kl_divergence(self.posterior, self.prior, self.latent)

    @property
    def log_ratio(self) -> Tensor:
        """(N,) log p - log q of the latent, nats."""
        return self.prior.log_prob(self.latent) - self.posterior.log_prob(self.latent)


class Descent(NamedTuple):
    """A way down the ladder, from the top layer to the image."""

    layers: list[Layer]
    """The lowest first."""
    reconstruction: Tensor
    """(k, B) log p(x given h_1), nats."""

    @property
    def layer_kl(self) -> list[Tensor]:
        """(k, B) KL of each layer, nats, the lowest first."""
        return [layer.kl.unflatten(0, self.reconstruction.shape) for layer in self.layers]

    @property
    def log_ratio(self) -> Tensor:
        """(k, B) log p(h) - log q(h given x), nats."""
        ratios = [layer.log_ratio.unflatten(0, self.reconstruction.shape) for layer in self.layers]
        return torch.stack(ratios).sum(0)


class LadderVAE(LayeredVAE):
    """Ladder VAE (Sonderby et al. 2016): q(h_l given x, h_l+1) weighs what the image and what p say, by precision.

    Layers are h_1 .. h_L from the image upwards. The encoder climbs from the image through features d_1 .. d_L without
    noise; on the way down the Gaussian that d_l stands for is multiplied by p(h_l given h_l+1). ``train/kl_1``,
    ``val/kl_1`` and so on are the KL terms of the layers; ``val/active_units_1`` and so on count the units whose mean
    under q, given the means above, differs between images.

    A latent is one of the top layer. :meth:`decode` goes through the means of the layers between, :meth:`sample` draws
    these, and :meth:`reconstruct` goes down through the means of q.

    A variant overrides :meth:`combine`, :meth:`generative` or :attr:`prior`.

    Example:
        >>> model = LadderVAE((1, 28, 28), latent_dims=[32, 16, 8], feature_dims=[256, 128, 64])
        >>> model.lower_bound(torch.zeros(2, 1, 28, 28), num_samples=100).shape
        torch.Size([2])

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        latent_dims: number of units of each stochastic layer, from the image upwards.
        feature_dims: number of features of each layer on the way up.
        num_samples: k in training and in validation; above 1 the loss is the importance-weighted bound.
        encoder: network from the image to d_1.
        decoder: network from h_1 to the parameters of the likelihood.
        upper_encoder: network from d_l to d_l+1, for every l.
        upper_decoder: network from h_l+1 to mean and variance (before its softplus) of p(h_l given h_l+1).
        likelihood: p(x given h_1) from the output of the decoder.
        kl_weight: weight of the KL terms in the loss.
        kl_warmup_steps: training steps over which the weight rises linearly from 0, without which upper layers stay
            unused.
        latent_prior: p(h_L), as in :class:`VAE`.
        optimizer: takes the parameters.
        lr_scheduler: takes the optimizer; stepped after each epoch.
    """

    def __init__(
        self,
        image_shape: Shape,
        latent_dims: Sequence[int] = (64, 32, 16, 8, 4),
        feature_dims: Sequence[int] = (512, 256, 128, 64, 32),
        num_samples: int = 1,
        encoder: NetworkFactory = MLP,
        decoder: NetworkFactory = MLP,
        upper_encoder: NetworkFactory = MLP,
        upper_decoder: NetworkFactory = MLP,
        likelihood: LikelihoodFactory = BernoulliLikelihood,
        kl_weight: float = 1.0,
        kl_warmup_steps: int = 0,
        latent_prior: PriorFactory = StandardNormal,
        optimizer: OptimizerCallable = FusedAdam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        if not latent_dims or min(latent_dims) < 1:
            raise ValueError(f"latent_dims must name at least one layer of at least 1 unit, got {list(latent_dims)}")
        if len(feature_dims) != len(latent_dims) or min(feature_dims) < 1:
            raise ValueError(
                f"feature_dims must name at least 1 feature for each of {len(latent_dims)} layers, got"
                f" {list(feature_dims)}"
            )
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        super().__init__(
            image_shape,
            latent_dims[0],
            encoder,
            decoder,
            likelihood,
            kl_weight,
            kl_warmup_steps,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
        )
        self._sums: list[Tensor] = []
        self.latent_dims = tuple(latent_dims)
        self.num_samples = num_samples
        self.latent_prior = build(latent_prior, self.latent_dims[-1], self.image_shape)
        self.encoder = build(encoder, self.image_shape, (feature_dims[0],))
        self.evidence = nn.ModuleList(
            nn.Linear(features, 2 * units) for features, units in zip(feature_dims, latent_dims, strict=True)
        )
        self.upper_encoder: Stack | None = None
        self.upper_decoder: Stack | None = None
        if len(self.latent_dims) > 1:
            climbs, steps = pairwise(feature_dims), pairwise(self.latent_dims)
            self.upper_encoder = Stack([build(upper_encoder, (below,), (above,)) for below, above in climbs])
            self.upper_decoder = Stack([build(upper_decoder, (above,), (2 * below,)) for below, above in steps])

    # ---- the distributions

    def climb(self, images: Tensor, condition: Any = None) -> list[Distribution]:
        """What the image says of each layer, the lowest first: Gaussians ``(B,)`` from d_1 .. d_L."""
        features, found = self.encoder(images), []
        for number, head in enumerate(self.evidence):
            if number:
                features = part_of(self.upper_encoder, number - 1)(features)
            found.append(self.gaussian(head, features))
        return found

    def gaussian(self, network: nn.Module, given: Tensor) -> Distribution:
        """A diagonal Gaussian from its mean and its variance before a softplus."""
        mean, variance = full_precision(network(given)).chunk(2, dim=1)
        std = (softplus(variance) + MIN_VARIANCE).sqrt()
        return Independent(Normal(mean, std, validate_args=False), 1, validate_args=False)

    def combine(self, evidence: Distribution, prior: Distribution) -> Distribution:
        """q(h_l given x, h_l+1): the product of the two Gaussians, normalized."""
        ours, theirs = evidence.variance.reciprocal(), prior.variance.reciprocal()
        variance = (ours + theirs).reciprocal()
        mean = (evidence.mean * ours + prior.mean * theirs) * variance
        return Independent(Normal(mean, variance.sqrt(), validate_args=False), 1, validate_args=False)

    def encode(self, images: Tensor, condition: Any = None) -> Distribution:
        """q(h_L given x), which is what the image says of the top layer."""
        return self.climb(images, condition)[-1]

    def descend(self, images: Tensor, samples: int, condition: Any = None, at_means: bool = False) -> Descent:
        """Draw the layers of every image from the top down.

        Args:
            images: ``(B, *image_shape)``.
            samples: k.
            condition: of these images.
            at_means: go through the means of q instead.
        """
        given = repeat_condition(condition, samples)
        layers: list[Layer] = []
        for number, evidence in reversed(list(enumerate(self.climb(images, condition), 1))):
            evidence = evidence.expand(torch.Size([samples, len(images)]))
            posterior = _flat(evidence)
            if layers:
                prior = self.generative(number, layers[-1].latent, given)
                posterior = self.combine(posterior, prior)
            else:
                prior = self.conditional_prior(given)
            layers.append(Layer(posterior.mean if at_means else posterior.rsample(), posterior, prior))
        rows = images.expand(samples, *images.shape).flatten(0, 1)
        reconstruction = self.generative(0, layers[-1].latent, given).log_prob(rows)
        return Descent(layers[::-1], reconstruction.unflatten(0, (samples, len(images))))

    @torch.no_grad()
    def posterior_draws(self, images: Tensor, num_samples: int = 1, condition: Any = None) -> list[Tensor]:
        """Of each layer the mean given a draw of the layer above."""
        layers = self.descend(images, num_samples, condition).layers
        return [layer.posterior.mean.unflatten(0, (num_samples, -1)) for layer in layers]

    # ---- the bound

    def terms(self, descent: Descent) -> LikelihoodTerms:
        """The bound of a way down; ``elbo``, ``reconstruction`` and ``kl`` are means over the k samples."""
        kl, weight = torch.stack(descent.layer_kl).sum(0).mean(0), self.kl_weight_now()
        terms = variational_bound(descent.reconstruction.mean(0), kl, weight)
        if self.num_samples == 1:
            return terms
        bound = importance_weighted_bound(descent.reconstruction + weight * descent.log_ratio)
        return terms._replace(loss=-bound)

    def objective(self, images: Tensor, condition: Any = None) -> LikelihoodTerms:
        return self.terms(self.descend(images, self.num_samples, condition))

    def measure(self, stage: str, images: Tensor, condition: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        descent = self.descend(images, self.num_samples, condition)
        terms = self.terms(descent)
        layers = {f"kl_{number}": kl.mean(0) for number, kl in enumerate(descent.layer_kl, 1)}
        return terms.loss, {**self.named(terms), **layers}

    @torch.no_grad()
    def lower_bound(self, images: Tensor, num_samples: int = 1, condition: Any = None) -> Tensor:
        """k-sample bound L_k on log p(x), ``(B,)`` nats, in chunks."""

        def log_weights(samples: int) -> Tensor:
            descent = self.descend(images, samples, condition)
            return descent.reconstruction + descent.log_ratio

        return importance_bound(log_weights, num_samples, len(images), self.max_rows)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, condition: Any = None) -> Tensor:
        """The mean image at the means of q in all layers, ``(B, C, H, W)`` in [0, 1]."""
        lowest = self.descend(images, 1, condition, at_means=True).layers[0].latent
        return self.generative(0, lowest, condition).mean.float()

    # ---- validation

    def on_validation_epoch_start(self) -> None:
        self._sums = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        images, condition = self.unpack(batch)
        with torch.no_grad():
            layers = self.descend(images, 1, condition, at_means=True).layers
        means = [layer.posterior.mean for layer in layers]
        sums = [torch.stack([mean.sum(0), mean.square().sum(0), torch.ones_like(mean).sum(0)]) for mean in means]
        self._sums = [past + new for past, new in zip(self._sums, sums, strict=True)] if self._sums else sums

    def on_validation_epoch_end(self) -> None:
        for number, sums in enumerate(self._sums, 1):
            # Over the images of all processes: a mean of their counts would be that of smaller data.
            total, squares, count = self.trainer.strategy.reduce(sums, reduce_op="sum")
            active = squares / count - (total / count).square() > ACTIVE_VARIANCE
            self.log(f"val/active_units_{number}", active.sum().float())


def _flat(distribution: Distribution) -> Distribution:
    """A diagonal Gaussian of batch shape (k, B) as one of batch shape (k B,)."""
    mean, std = distribution.mean.flatten(0, 1), distribution.stddev.flatten(0, 1)
    return Independent(Normal(mean, std, validate_args=False), 1, validate_args=False)
