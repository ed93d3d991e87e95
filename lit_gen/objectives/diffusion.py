r"""Diffusion: schedules, the distributions of the chain that destroys an image, and what follows from them.

Sohl-Dickstein et al. 2015, Deep unsupervised learning using nonequilibrium thermodynamics
(https://arxiv.org/abs/1503.03585); Ho, Jain & Abbeel 2020, Denoising diffusion probabilistic models
(https://arxiv.org/abs/2006.11239); Nichol & Dhariwal 2021, Improved denoising diffusion probabilistic models
(https://arxiv.org/abs/2102.09672).

Steps are numbered 1..T, with 0 for the data: a tensor over steps has T + 1 entries, of which :math:`\beta_0 = 0` and
:math:`\bar\alpha_0 = 1`.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.special import log_ndtr


def linear_rates(steps: int, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """Noise rates that grow linearly (Ho et al. 2020, section 4), float64 ``(T,)``; their values are for T = 1000."""
    return torch.linspace(first, last, steps, dtype=torch.float64)


def cosine_rates(steps: int, offset: float = 0.008, largest: float = 0.999) -> Tensor:
    """Noise rates for which the signal falls like a cosine (Nichol & Dhariwal 2021, equation 17), float64 ``(T,)``."""
    time = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    signal = torch.cos((time + offset) / (1 + offset) * math.pi / 2).square()
    return (1 - signal[1:] / signal[:-1]).clamp(max=largest)


def erasing_rates(steps: int) -> Tensor:
    """1 / (T - t + 1): each step erases one T-th of the signal (Sohl-Dickstein et al. 2015, section 2.4.1), float64."""
    return 1 / torch.arange(steps, 0, -1, dtype=torch.float64)


def kept_signal(rates: Tensor) -> Tensor:
    """The product of 1 - beta up to each step: ``(T,) -> (T + 1,)``, beginning with 1."""
    return torch.cat([rates.new_ones(1), torch.cumprod(1 - rates, 0)])


class GaussianChain(NamedTuple):
    r"""Constants of a Gaussian chain, each ``(T + 1,)`` by the step t, or ``(B,)`` where steps have been chosen.

    :math:`q(x_t|x_0) = N(\mathtt{signal}\,x_0, \mathtt{noise}^2)`, and :math:`q(x_{t-1}|x_t, x_0)` has the mean
    ``from_data`` :math:`x_0` + ``from_noisy`` :math:`x_t` and the variance ``posterior_variance`` (Ho et al. 2020,
    equations 4 and 7).
    """

    beta: Tensor
    """Variance that the step adds."""
    signal: Tensor
    """Square root of alpha-bar."""
    noise: Tensor
    """Square root of 1 - alpha-bar."""
    from_data: Tensor
    from_noisy: Tensor
    posterior_variance: Tensor
    """beta-tilde: 0 at the first step, after which nothing is left to know."""


def gaussian_chain(rates: Tensor) -> GaussianChain:
    """The constants for noise rates ``(T,)``, in their precision, differentiable."""
    # By logarithms: 1 - alpha-bar keeps its digits at the first steps, in float32 too.
    log_kept = torch.cat([rates.new_zeros(1), torch.cumsum(torch.log1p(-rates), 0)])
    kept, erased = torch.exp(log_kept), -torch.expm1(log_kept)
    beta = torch.cat([rates.new_zeros(1), rates])
    kept_before, erased_before = torch.cat([kept[:1], kept[:-1]]), torch.cat([erased[:1], erased[:-1]])
    # Nobody asks for the posterior of step 0: dividing by 1 there keeps gradients finite.
    divisor = torch.cat([rates.new_ones(1), erased[1:]])
    return GaussianChain(
        beta,
        kept.sqrt(),
        torch.cat([rates.new_zeros(1), erased[1:].sqrt()]),
        kept_before.sqrt() * beta / divisor,
        (1 - beta).sqrt() * erased_before / divisor,
        beta * erased_before / divisor,
    )


def epsilon_weights(chain: GaussianChain, variance: Tensor) -> Tensor:
    r"""What the squared error of epsilon counts in the bound: :math:`\beta^2 / (2 \sigma^2 \alpha (1 - \bar\alpha))`.

    Equation 12 of Ho et al. 2020, in nats.

    Args:
        chain: of all steps.
        variance: ``(T + 1,)`` of the reverse process; its first entry is not used.

    Returns:
        ``(T,)`` for steps 1 to T.
    """
    beta = chain.beta[1:]
    return beta.square() / (2 * variance[1:] * (1 - beta) * chain.noise[1:].square())


def reverse_variances(chain: GaussianChain, large: bool) -> Tensor:
    """Fixed variances of the reverse process, ``(T + 1,)``: beta (best for data of unit variance) or beta-tilde.

    The first step, whose beta-tilde is 0, has that of the second (as the published code), and so has step 0, which is
    never used.
    """
    variance = (chain.beta if large else chain.posterior_variance).clone()
    variance[:2] = chain.posterior_variance[2]
    return variance


def discretized_gaussian_log_prob(x: Tensor, mean: Tensor, std: Tensor, levels: int = 256) -> Tensor:
    """Log-probability of the grey level of each pixel: a Gaussian integrated over it (Ho et al. 2020, equation 13).

    The two outer levels take the tails.

    Args:
        x: pixels in [-1, 1].
        mean: of the Gaussian, in the same units.
        std: of the Gaussian, likewise.
        levels: number of grey levels.

    Returns:
        Nats, of the shape of ``x``.
    """
    half = 1 / (levels - 1)
    x = torch.round((x + 1) / (2 * half)) * (2 * half) - 1
    upper, lower = (x + half - mean) / std, (x - half - mean) / std
    # In the lower tail Phi(u) - Phi(l) has all its digits: levels above the mean are mirrored there.
    mirrored = upper + lower > 0
    high, low = torch.where(mirrored, -lower, upper), torch.where(mirrored, -upper, lower)
    log_high = log_ndtr(high)
    gap = (log_ndtr(low) - log_high).clamp(max=-torch.finfo(x.dtype).tiny)
    inner = log_high + torch.log(-torch.expm1(gap))
    edges = torch.where(x < 0, log_ndtr(upper), log_ndtr(-lower))
    return torch.where(x.abs() < 1 - half, inner, edges)


def binomial_posterior(x: Tensor, data: Tensor, kept_before: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities that a bit was 1 and that it was 0 a step earlier, given what it is now and in the data.

    Bayes' rule for the chain that replaces a bit with probability beta by a fair coin (Sohl-Dickstein et al. 2015,
    table 1).

    Args:
        x: bits after the step.
        data: bits of the data.
        kept_before: alpha-bar before the step.
        rate: beta of the step.

    Returns:
        Two tensors that sum to one, each exact also where it is small.
    """
    now = (1 - x) * rate / 2 + x * (1 - rate / 2), x * rate / 2 + (1 - x) * (1 - rate / 2)
    before = kept_before * data + (1 - kept_before) / 2, kept_before * (1 - data) + (1 - kept_before) / 2
    one, zero = now[0] * before[0], now[1] * before[1]
    return one / (one + zero), zero / (one + zero)


def bernoulli_kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of Bernoulli variables from their logits, nats, finite however sure q is."""
    on = torch.sigmoid(p) * (logsigmoid(p) - logsigmoid(q))
    return on + torch.sigmoid(-p) * (logsigmoid(-p) - logsigmoid(-q))


def stratified_steps(count: int, first: int, last: int, device: torch.device | str = "cpu") -> Tensor:
    """A step for each of ``count`` images, ``(count,)`` int64: each uniform in first..last, together evenly spread.

    Their mean over a batch is that of independent draws with less noise (Kingma et al. 2021, Variational diffusion
    models, appendix I.1, with the places shuffled).
    """
    places = torch.randperm(count, device=device) + torch.rand((), device=device)
    steps = first + torch.floor(places / count * (last - first + 1)).long()
    return steps.clamp(max=last)
