r"""Variational autoencoder whose posterior is carried along Hamiltonian dynamics.

Salimans, Kingma & Welling 2015, Markov chain Monte Carlo and variational inference: bridging the gap
(https://arxiv.org/abs/1410.6460): leapfrog steps inside the bound, without an accept step, and a reverse model of the
momentum. Caterini, Doucet & Sejdinovic 2018, Hamiltonian variational auto-encoder (https://arxiv.org/abs/1805.11328):
one momentum for all steps, no reverse model, and tempering.

The encoder and a momentum v_0 give a point of an extended space, which K leapfrog steps of the Hamiltonian
:math:`-\log p(x, z) + \frac12 v^\top M^{-1} v` carry to (z_K, v_K). With v_0 from N(0, M / beta_0) the bound is

.. math:: E\big[\log p(x, z_K) + \log r(v_K \mid z_K, x)
    - \log q(z_0 \mid x) - \log N(v_0; 0, M / \beta_0) + \log |\partial (z_K, v_K) / \partial (z_0, v_0)|\big]

(the bound of Salimans et al. with one iteration of many leapfrogs, to which Caterini et al. add the cooling). Leapfrogs
keep volumes; the Jacobian is that of the cooling alone, by which each step shrinks the momentum. r is N(0, M), where
the dynamics leave the momentum if z_K follows the posterior, or a learned model of it.

Departures from the papers: the networks of :class:`VAE` unless others are injected, Adam, and a reverse model that is
told what the encoder says of the image, not the image.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.optim import Optimizer

from lit_gen.inference import importance_bound
from lit_gen.inference.hmc import Point, evaluate, leapfrog
from lit_gen.models.base import repeat_condition
from lit_gen.models.optimizers import FusedAdam
from lit_gen.models.vae import VAE
from lit_gen.networks import (
    MLP,
    BernoulliLikelihood,
    LikelihoodFactory,
    Network,
    NetworkFactory,
    PriorFactory,
    Shape,
    StandardNormal,
    build,
    full_precision,
)
from lit_gen.objectives import LikelihoodTerms, variational_bound

Tempering = Literal["off", "fixed", "learned"]


class Inference(NamedTuple):
    """Where draws of z_0 and v_0 are carried, and what the bound is made of; N rows are k samples of B images."""

    z: Tensor
    """(N, D) z_K."""
    momentum: Tensor
    """(N, D) v_K."""
    reconstruction: Tensor
    """(k, B) log p(x given z_K), nats."""
    log_prior: Tensor
    """(k, B) log p(z_K) + log r(v_K given z_K, x), nats."""
    log_posterior: Tensor
    """(k, B) log-density of (z_K, v_K): that of (z_0, v_0) less the log-determinant, nats."""

    @property
    def log_weights(self) -> Tensor:
        """(k, B), nats: the mean of their exponentials is p(x)."""
        return self.reconstruction + self.log_prior - self.log_posterior


class HMCVAE(VAE):
    """VAE with leapfrog steps between its encoder and its decoder (Salimans et al. 2015; Caterini et al. 2018).

    The gradient goes through all of it, second derivatives of the decoder included, so that the decoder is best smooth
    (softplus, tanh, silu). ``kl`` is that of the extended space: of (z_K, v_K) from p(z) r(v given z, x). z_K itself
    has no density in closed form: :meth:`encode` gives q(z_0 given x), where the leapfrogs begin, and :meth:`infer`
    draws where they end. :meth:`reconstruct` follows them from the mean of q, at rest.

    A variant overrides what a variant of :class:`VAE` does, or :meth:`reverse_model`.

    Example:
        >>> model = HMCVAE((1, 28, 28), latent_dim=20, num_leapfrogs=2)
        >>> model.lower_bound(torch.zeros(3, 1, 28, 28), num_samples=10).shape
        torch.Size([3])

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        latent_dim: number of latent units, D.
        num_leapfrogs: leapfrog steps, K; each costs a gradient of the decoder. 0 gives the VAE.
        step_size: of the leapfrogs at first; each step learns its own.
        tempering: ``fixed``: momenta begin hotter and are cooled by the quadratic schedule of Caterini et al.; and
            ``learned``: each step begins there, and learns how much it cools.
        inverse_temperature: beta_0 of the momenta, in (0, 1]; 1 is no heat.
        encoder: network from the image to mean and log-variance of q(z_0 given x).
        decoder: network from z to the parameters of the likelihood.
        likelihood: p(x given z) from the output of the decoder.
        reverse: network from z_K, the gradient there, mean and log standard deviation of q(z_0 given x) (4D) to mean
            and log standard deviation of the momentum in units of the mass (2D); null: N(0, M), as Caterini et al.
        kl_weight: weight of the KL term in the loss.
        kl_warmup_steps: training steps over which the weight rises linearly from 0.
        latent_prior: p(z), as in :class:`VAE`.
        warmup_epochs: epochs in which the leapfrogs stand still and a VAE is trained, a tenth of the time each.
        optimizer: takes the parameters.
        lr_scheduler: takes the optimizer; stepped after each epoch.
    """

    cooling: Tensor

    def __init__(
        self,
        image_shape: Shape,
        latent_dim: int = 20,
        num_leapfrogs: int = 4,
        step_size: float = 0.05,
        tempering: Tempering = "off",
        inverse_temperature: float = 0.3,
        encoder: NetworkFactory = MLP,
        decoder: NetworkFactory = MLP,
        likelihood: LikelihoodFactory = BernoulliLikelihood,
        reverse: NetworkFactory | None = MLP,
        kl_weight: float = 1.0,
        kl_warmup_steps: int = 0,
        latent_prior: PriorFactory = StandardNormal,
        warmup_epochs: int = 0,
        optimizer: OptimizerCallable = FusedAdam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(
            image_shape,
            latent_dim,
            encoder,
            decoder,
            likelihood,
            kl_weight,
            kl_warmup_steps,
            latent_prior,
            optimizer,
            lr_scheduler,
        )
        if num_leapfrogs < 0:
            raise ValueError(f"num_leapfrogs must not be negative, got {num_leapfrogs}")
        if step_size <= 0:
            raise ValueError(f"step_size must be positive, got {step_size}")
        if not 0 < inverse_temperature <= 1:
            raise ValueError(f"inverse_temperature must lie in (0, 1], got {inverse_temperature}")
        if warmup_epochs < 0:
            raise ValueError(f"warmup_epochs must not be negative, got {warmup_epochs}")
        self.num_leapfrogs = num_leapfrogs
        self.warmup_epochs = warmup_epochs
        self.tempering = tempering
        # Positive by their logarithms. A mass for each latent is a step size for each, but for a common factor.
        self.log_step_sizes = nn.Parameter(torch.full((num_leapfrogs,), math.log(step_size)))
        self.log_mass = nn.Parameter(torch.zeros(latent_dim))
        factors = quadratic_cooling(num_leapfrogs, 1.0 if tempering == "off" else inverse_temperature)
        if tempering == "learned":
            self.cooling = nn.Parameter(torch.logit(factors, 1e-6))  # in (0, 1) by their logits
        else:
            self.register_buffer("cooling", factors)
        self.reverse: Network | None = None
        if reverse is not None and num_leapfrogs > 0:
            self.reverse = build(reverse, (4 * latent_dim,), (2 * latent_dim,))

    # ---- the dynamics

    @property
    def cooling_factors(self) -> Tensor:
        """What each step multiplies the momentum with, ``(K,)``: the square roots of beta_k-1 / beta_k."""
        return torch.sigmoid(self.cooling) if self.tempering == "learned" else self.cooling

    @property
    def log_volume(self) -> Tensor:
        """Logarithm of the determinant of the Jacobian of all steps, which is D / 2 log beta_0."""
        return self.latent_dim * self.cooling_factors.log().sum()

    def follow(self, start: Point, momentum: Tensor, at: Callable[[Tensor], Point]) -> tuple[Point, Tensor]:
        """The K leapfrog steps with their cooling, from where ``at`` is known: the end, and the momentum there."""
        point, mass = start, self.log_mass.exp()
        for step_size, factor in zip(self.log_step_sizes.exp(), self.cooling_factors, strict=True):
            point, momentum = leapfrog(point, momentum, step_size, 1, at, mass)
            momentum = factor * momentum
        return point, momentum

    def reverse_model(self, end: Point, posterior: Distribution, samples: int) -> Distribution:
        """r(v_K given z_K, x), batch shape ``(N,)``.

        Args:
            end: where the leapfrogs end, N = k B rows.
            posterior: q(z_0 given x), batch shape ``(B,)``.
            samples: k.
        """
        std = torch.exp(0.5 * self.log_mass).expand_as(end.position)
        if self.reverse is None:
            return _normal(torch.zeros_like(std), std)
        mean, spread = (part.repeat(samples, 1) for part in (posterior.mean, posterior.stddev))
        # In the units of q, whatever the scales of latents and gradients are.
        seen = torch.cat([(end.position - mean) / spread, end.gradient * spread, mean, spread.log()], 1)
        location, log_std = full_precision(self.reverse(seen)).chunk(2, 1)
        return _normal(location * std, log_std.exp() * std)

    def infer(self, images: Tensor, posterior: Distribution, samples: int, condition: Any = None) -> Inference:
        """Draw from q(z_0 given x) and the momenta, and follow the dynamics.

        Args:
            images: ``(B, *image_shape)``.
            posterior: q(z_0 given x).
            samples: k.
            condition: of these images.
        """
        shape, given = (samples, len(images)), repeat_condition(condition, samples)
        rows, prior = images.expand(samples, *images.shape).flatten(0, 1), self.conditional_prior(given)

        def at(z: Tensor) -> Point:
            # Validation runs without gradients: the dynamics need their own, and the graph only in training.
            return evaluate(joint, z, create_graph)

        def joint(z: Tensor) -> Tensor:
            return self.decode(z, given).log_prob(rows) + prior.log_prob(z)

        create_graph = torch.is_grad_enabled()
        z = posterior.rsample(torch.Size([samples]))
        log_posterior = posterior.log_prob(z)
        # v_0 from N(0, M / beta_0): the roots of the mass and of beta_0 = product of all factors squared.
        momenta = _normal(*self._momentum_parameters(z.flatten(0, 1)))
        v = momenta.rsample()
        log_posterior = log_posterior + momenta.log_prob(v).unflatten(0, shape) - self.log_volume
        end, v_end = self.follow(at(z.flatten(0, 1)), v, at)
        log_prior = prior.log_prob(end.position)
        reconstruction = end.log_density - log_prior
        log_reverse = self.reverse_model(end, posterior, samples).log_prob(v_end)
        return Inference(
            end.position,
            v_end,
            reconstruction.unflatten(0, shape),
            (log_prior + log_reverse).unflatten(0, shape),
            log_posterior,
        )

    def _momentum_parameters(self, like: Tensor) -> tuple[Tensor, Tensor]:
        std = torch.exp(0.5 * self.log_mass) / self.cooling_factors.prod()
        return torch.zeros_like(like), std.expand_as(like)

    # ---- the bound

    @property
    def warming_up(self) -> bool:
        """Whether this training is in its first ``warmup_epochs``."""
        return self.training and self._trainer is not None and self.current_epoch < self.warmup_epochs

    def objective(self, images: Tensor, condition: Any = None) -> LikelihoodTerms:
        if self.warming_up:
            terms = super().objective(images, condition)
            # Several devices wait for a gradient of every parameter.
            return terms._replace(loss=terms.loss + 0.0 * sum(part.sum() for part in self._dynamics()))
        drawn = self.infer(images, self.encode(images, condition), 1, condition)
        kl = (drawn.log_posterior - drawn.log_prior)[0]
        return variational_bound(drawn.reconstruction[0], kl, self.kl_weight_now())

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        if self.warming_up:
            # Nothing is learnt of them yet, and without a gradient no weight decay moves them either.
            for parameter in self._dynamics():
                parameter.grad = None

    @torch.no_grad()
    def lower_bound(self, images: Tensor, num_samples: int = 1, condition: Any = None) -> Tensor:
        """k-sample bound on log p(x) in the space of z and momentum, ``(B,)`` nats, in chunks."""
        posterior = self.encode(images, condition)

        def log_weights(samples: int) -> Tensor:
            return self.infer(images, posterior, samples, condition).log_weights

        return importance_bound(log_weights, num_samples, len(images), self.max_rows)

    @torch.no_grad()
    def posterior_draws(self, images: Tensor, num_samples: int = 1, condition: Any = None) -> list[Tensor]:
        """Draws of z_K, whose mean has no closed form."""
        drawn = self.infer(images, self.encode(images, condition), num_samples, condition)
        return [drawn.z.unflatten(0, (num_samples, -1))]

    @torch.no_grad()
    def reconstruct(self, images: Tensor, condition: Any = None) -> Tensor:
        """The mean image where the dynamics lead from the mean of q(z_0 given x), at rest: ``(B, C, H, W)``."""
        prior, mean = self.conditional_prior(condition), self.encode(images, condition).mean

        def at(z: Tensor) -> Point:
            return evaluate(lambda z: self.decode(z, condition).log_prob(images) + prior.log_prob(z), z)

        end, _ = self.follow(at(mean), torch.zeros_like(mean), at)
        return self.decode_images(end.position, condition).float()

    def _dynamics(self) -> Iterator[nn.Parameter]:
        """Parameters that the leapfrogs have beside those of the VAE."""
        yield from (self.log_step_sizes, self.log_mass)
        if isinstance(self.cooling, nn.Parameter):
            yield self.cooling
        if self.reverse is not None:
            yield from self.reverse.parameters()

    def compiled_parts(self) -> list[nn.Module]:
        # A compiled network has no second derivatives.
        return [part for part in super().compiled_parts() if part is not self.decoder]


def quadratic_cooling(steps: int, inverse_temperature: float) -> Tensor:
    """Factors of the momentum by which beta_0 rises to 1 in the given number of steps, ``(steps,)``.

    Caterini et al. (2018): 1 / sqrt(beta_k) = (1 - 1 / sqrt(beta_0)) k^2 / K^2 + 1 / sqrt(beta_0).

    Args:
        steps: K.
        inverse_temperature: beta_0.
    """
    start = inverse_temperature**-0.5
    roots = start + (1 - start) * (torch.arange(steps + 1) / max(steps, 1)).square()
    return roots[1:] / roots[:-1]


def _normal(mean: Tensor, std: Tensor) -> Distribution:
    return Independent(Normal(mean, std, validate_args=False), 1, validate_args=False)
