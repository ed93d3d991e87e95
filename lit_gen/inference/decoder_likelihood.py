"""Log-likelihood of single images under a decoder, by annealing latents from the prior to the posterior.

Wu, Burda, Salakhutdinov & Grosse 2017, On the quantitative analysis of decoder-based generative models
(https://arxiv.org/abs/1611.04273). In both directions: Grosse, Ghahramani & Adams 2015, Sandwiching the marginal
likelihood using bidirectional Monte Carlo (https://arxiv.org/abs/1511.02543).

Departure from the papers: the step size is found by a pilot run and then kept, since with a step size that follows the
chains which are measured their weights would be biased.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from lit_gen.inference.ais import (
    AnnealedPath,
    Progress,
    ais_log_weights,
    check_annealing,
    reverse_ais_log_weights,
    sigmoid_temperatures,
)
from lit_gen.inference.hmc import MultiplicativeAdaptation, Point, choose, evaluate, hmc_step

DecoderDensity = Callable[[Tensor, Tensor], Tensor]
"""log p(x given z), nats: z ``(R, *latent_shape)`` and images ``(R, C, H, W)`` -> ``(R,)``, differentiable in z, each
row for itself (batch normalisation in eval mode)."""

PILOT_WARMUP = 100


class LikelihoodEstimate(NamedTuple):
    """Estimates of log p(x) of N images, nats, in float64."""

    log_likelihood: Tensor
    """(N,)."""
    standard_error: Tensor
    """(N,), of each estimate, by the delta method; it says nothing of modes that no chain has found."""
    effective_sample_size: Tensor
    """(N,): number of equally weighted chains that would tell as much; near 1, one chain decides alone."""
    log_weights: Tensor
    """(num_chains, N): the log-weights, each an estimate by itself."""
    acceptance: Tensor
    """(N,): mean probability with which the chains of an image took a proposal."""


class DecoderState(NamedTuple):
    """Latents of all chains with what their density is computed from."""

    base: Point
    """The latents with the density of the base."""
    ratio: Point
    """The same latents with log p(z) p(x given z) less the density of the base."""


class DecoderPath(AnnealedPath[DecoderState]):
    """f_beta(z) = p_0(z) (p(z) p(x given z) / p_0(z))^beta: from the base p_0 to the posterior, whose Z is p(x).

    Chains are ordered as ``images.expand(chains, *images.shape).flatten(0, 1)`` orders images.

    Args:
        log_likelihood: of the decoder.
        prior: p(z), batch shape ``()``, or ``(N,)`` where it depends on a condition of each image.
        images: ``(N, C, H, W)``.
        base: p_0, batch shape ``(N,)``: q(z given x), say; None for the prior.
        num_leapfrogs: gradients to a step of Hamiltonian Monte Carlo.
        step_size: of the leapfrogs, at every temperature until :meth:`tune` finds others.
        jitter: relative width of random changes of the step size.
    """

    def __init__(
        self,
        log_likelihood: DecoderDensity,
        prior: Distribution,
        images: Tensor,
        base: Distribution | None = None,
        num_leapfrogs: int = 10,
        step_size: float = 0.1,
        jitter: float = 0.2,
    ) -> None:
        if num_leapfrogs < 1:
            raise ValueError(f"num_leapfrogs must be at least 1, got {num_leapfrogs}")
        if step_size <= 0:
            raise ValueError(f"step_size must be positive, got {step_size}")
        self.log_likelihood = log_likelihood
        self.prior = prior
        self.images = images
        self.base = base
        self.num_leapfrogs = num_leapfrogs
        self.jitter = jitter
        self.step_size = torch.full((len(images),), step_size, device=images.device)
        self.step_sizes: dict[float, Tensor] = {}
        """(N,) for each inverse temperature, as the pilot run left them."""
        self.reset()

    def reset(self) -> None:
        """Forget the acceptance so far."""
        self._accepted, self._transitions = torch.zeros_like(self.step_size), 0

    @property
    def acceptance(self) -> Tensor:
        """(N,): mean over chains and transitions since the last reset."""
        return self._accepted / max(1, self._transitions)

    @property
    def log_partition_base(self) -> Tensor:
        return torch.zeros((), dtype=torch.float64)

    def state(self, z: Tensor) -> DecoderState:
        """What chains at ``z`` ``(chains * N, *latent_shape)`` need to go on."""
        return DecoderState(evaluate(self._base_density, z), evaluate(self._ratio, z))

    def sample_base(self, num_chains: int) -> DecoderState:
        first = self.prior if self.base is None else self.base
        if not first.batch_shape:
            return self.state(first.sample(torch.Size([num_chains])))
        return self.state(first.sample(torch.Size([num_chains // len(self.images)])).flatten(0, 1))

    def log_ratio(self, state: DecoderState, beta: float, next_beta: float) -> Tensor:
        return (next_beta - beta) * state.ratio.log_density

    def transition(self, state: DecoderState, beta: float) -> DecoderState:
        state, acceptance = self._move(state, beta, self.step_sizes.get(beta, self.step_size))
        self._accepted += acceptance
        self._transitions += 1
        return state

    @torch.no_grad()
    def tune(
        self, betas: Sequence[float], num_chains: int = 2, warmup: int = PILOT_WARMUP, progress: Progress = iter
    ) -> None:
        """Find a step size for each image and temperature, by annealing chains that are then thrown away.

        Their acceptance is kept near 0.65 by the rule of Wu et al. (2017).

        Args:
            betas: the inverse temperatures to come.
            num_chains: for each image.
            warmup: steps at the first temperature, until the step size fits there.
            progress: goes through the steps.
        """
        state = self.sample_base(num_chains * len(self.images))
        rule = MultiplicativeAdaptation(self.step_size)
        inner = [betas[1]] * warmup + list(betas[1:-1])
        for step in progress(range(len(inner))):
            state, acceptance = self._move(state, inner[step], rule.step_size)
            rule.update(acceptance)
            self.step_sizes[inner[step]] = rule.step_size

    def _move(self, state: DecoderState, beta: float, step_size: Tensor) -> tuple[DecoderState, Tensor]:
        """The next state, and ``(N,)`` mean acceptance of the chains of each image."""
        latest = state

        def at(z: Tensor) -> Point:
            nonlocal latest
            latest = self.state(z)
            return _tempered(latest, beta)

        chains = len(state.base.position) // len(self.images)
        moved = hmc_step(_tempered(state, beta), step_size.repeat(chains), self.num_leapfrogs, at, jitter=self.jitter)
        # Both parts of the density were computed at the proposal, and need not be computed again for the weights.
        base, ratio = (
            Point(*(choose(moved.accepted, new, old) for new, old in zip(ahead, behind)))
            for ahead, behind in zip(latest, state)
        )
        return DecoderState(base, ratio), moved.acceptance.view(chains, -1).mean(0)

    def _base_density(self, z: Tensor) -> Tensor:
        return self._log_prob(self.prior if self.base is None else self.base, z)

    def _log_prob(self, distribution: Distribution, z: Tensor) -> Tensor:
        if not distribution.batch_shape:
            return distribution.log_prob(z)
        return distribution.log_prob(z.unflatten(0, (-1, len(self.images)))).flatten()

    def _ratio(self, z: Tensor) -> Tensor:
        chains = len(z) // len(self.images)
        images = self.images.expand(chains, *self.images.shape).flatten(0, 1)
        likelihood = self.log_likelihood(z, images)
        return likelihood if self.base is None else likelihood + self._log_prob(self.prior, z) - self._base_density(z)


def _tempered(state: DecoderState, beta: float) -> Point:
    base, ratio = state
    return Point(base.position, base.log_density + beta * ratio.log_density, base.gradient + beta * ratio.gradient)


@torch.no_grad()
def decoder_log_likelihood(
    log_likelihood: DecoderDensity,
    prior: Distribution,
    images: Tensor,
    num_chains: int = 16,
    betas: Sequence[float] | None = None,
    latents: Tensor | None = None,
    encoder: Callable[[Tensor], Distribution] | None = None,
    num_leapfrogs: int = 10,
    step_size: float = 0.1,
    pilot_chains: int = 2,
    max_rows: int = 1000,
    progress: Progress = iter,
) -> LikelihoodEstimate:
    """Estimate log p(x) of each image by annealed importance sampling, forward, or backward from an exact latent.

    Forward the estimate is too low on average (a stochastic lower bound). Backward, from a latent that is an exact draw
    from the posterior, it is too high: have z ~ p(z), x ~ p(x given z), and hand both in. The two bracket log p(x) of
    such images, and the gap between them bounds the error of either (bidirectional Monte Carlo): a measure of what the
    forward estimate is worth on real images, of which no exact latent is known.

    Every chain takes one step of Hamiltonian Monte Carlo at each temperature.

    Example:
        >>> from torch.distributions import Independent, Normal
        >>> _ = torch.manual_seed(0)
        >>> def log_likelihood(z, x): return Normal(z, 1.0).log_prob(x.flatten(1)).sum(1)
        >>> prior = Independent(Normal(torch.zeros(1), torch.ones(1)), 1)
        >>> images = torch.tensor([0.0, 2.0]).view(2, 1, 1, 1)
        >>> found = decoder_log_likelihood(log_likelihood, prior, images, betas=sigmoid_temperatures(50))
        >>> exact = Normal(0.0, 2**0.5).log_prob(images.flatten())
        >>> (found.log_likelihood - exact).abs().max().item() < 0.1
        True

    Args:
        log_likelihood: log p(x given z) of the decoder.
        prior: p(z), batch shape ``()``, or ``(N,)`` where it depends on a condition of each image; then all images go
            at once, whatever ``max_rows``.
        images: ``(N, C, H, W)``, dequantized or binarized as the likelihood asks for.
        num_chains: independent chains of each image.
        betas: inverse temperatures from 0 to 1, rising; None: 1,000 steps of :func:`sigmoid_temperatures` (10,000 in
            the paper).
        latents: ``(N, *latent_shape)``, exact draws from the posteriors: go backward from them.
        encoder: from images to q(z given x), to begin there and not at the prior.
        num_leapfrogs: gradients to a step.
        step_size: of the leapfrogs; where the pilot run begins.
        pilot_chains: chains of each image that go first, forward, to find the step sizes; 0 keeps ``step_size``.
        max_rows: largest number of images to decode at a time, but all chains of one image: the memory bound.
        progress: goes through all steps of all parts, pilot runs included.

    Returns:
        The estimate of every image.

    Raises:
        ValueError: betas that do not rise from 0 to 1, no chains, or not one latent for each image.
    """
    betas = sigmoid_temperatures(1000) if betas is None else betas
    if latents is not None and len(latents) != len(images):
        raise ValueError(f"got {len(latents)} latents for {len(images)} images: give the one that each was drawn from")
    if pilot_chains < 0:
        raise ValueError(f"pilot_chains must not be negative, got {pilot_chains}")
    check_annealing(betas, num_chains)
    together = len(images) if prior.batch_shape else max(1, max_rows // max(num_chains, pilot_chains))
    parts = range(0, len(images), together)
    # From the base straight to the posterior there is no step whose size could matter.
    pilot = pilot_chains > 0 and len(betas) > 2
    ticks = iter(progress(range(len(parts) * (len(betas) - 2 + pilot * (PILOT_WARMUP + len(betas) - 2)))))
    weights, rates = [], []

    def tick(steps: range) -> Iterator[int]:
        for step in steps:
            next(ticks)
            yield step

    for start in parts:
        rows = images[start : start + parts.step]
        base = encoder(rows) if encoder is not None else None
        path = DecoderPath(log_likelihood, prior, rows, base, num_leapfrogs, step_size)
        if pilot:
            path.tune(betas, pilot_chains, PILOT_WARMUP, tick)
        if latents is None:
            found = ais_log_weights(path, betas, num_chains * len(rows), tick)
        else:
            exact = latents[start : start + parts.step]
            state = path.state(exact.expand(num_chains, *exact.shape).flatten(0, 1))
            found = reverse_ais_log_weights(path, betas, state, tick)
        weights.append(found.view(num_chains, -1))
        rates.append(path.acceptance)
    next(ticks, None)  # a bar that is asked for more knows that it is done
    return _estimate(torch.cat(weights, 1), torch.cat(rates), sign=1 if latents is None else -1)


def _estimate(log_weights: Tensor, acceptance: Tensor, sign: int) -> LikelihoodEstimate:
    count = len(log_weights)
    # Backward, 1 / p(x) is the mean of 1 / w.
    weights = sign * log_weights
    total = torch.logsumexp(weights, 0)
    effective = torch.exp(2 * total - torch.logsumexp(2 * weights, 0))
    # That of a logarithm is the relative one of the mean; its square is (sum w^2 / (sum w)^2 - 1 / n) n / (n - 1).
    error = ((1 / effective - 1 / count).clamp(min=0) * (count / max(1, count - 1))).sqrt()
    if count == 1:
        error = torch.full_like(error, math.nan)
    return LikelihoodEstimate(sign * (total - math.log(count)), error, effective, log_weights, acceptance.double())
