"""Annealed importance sampling of log Z, forward and reverse, and of the likelihood of single images.

Neal 2001, Annealed importance sampling (https://arxiv.org/abs/physics/9803008); for Boltzmann machines Salakhutdinov &
Murray 2008, On the quantitative analysis of deep belief networks. The two directions bracket log Z: Grosse, Ghahramani
& Adams 2015, Sandwiching the marginal likelihood using bidirectional Monte Carlo (https://arxiv.org/abs/1511.02543).
Single images: Burda, Grosse & Salakhutdinov 2015, Accurate and conservative estimates of MRF log-likelihood using
reverse annealing (https://arxiv.org/abs/1412.8566).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

State = TypeVar("State")
Progress = Callable[[range], Iterable[int]]
"""Hands the numbers of the steps through, in order: ``iter`` does just that, ``tqdm.tqdm`` draws a bar meanwhile."""


class AnnealedPath(ABC, Generic[State]):
    """Unnormalised densities f_beta from a tractable base, beta = 0, to the one of interest, beta = 1.

    A state holds many chains and may carry what its density is computed from, so that it is computed once.
    """

    @property
    @abstractmethod
    def log_partition_base(self) -> Tensor:
        """log Z of f_0, a scalar, nats."""

    @abstractmethod
    def sample_base(self, num_chains: int) -> State:
        """Exact draws from f_0."""

    @abstractmethod
    def log_ratio(self, state: State, beta: float, next_beta: float) -> Tensor:
        """log f_next_beta(x) - log f_beta(x) of each chain, ``(num_chains,)`` nats."""

    @abstractmethod
    def transition(self, state: State, beta: float) -> State:
        """A step that is reversible with respect to f_beta (a sweep through one block and back, for instance)."""


class PartitionEstimate(NamedTuple):
    """An estimate of log Z, nats, from the importance weights of independent chains.

    ``low`` and ``high`` are three standard errors away: the band of Salakhutdinov & Murray (2008), in the log domain,
    where it holds oftener than the same band of the weights or percentiles of the bootstrap. In simulations with 100
    log-normal weights it did so 99 % of the time if their logarithms spread by 1, and 92 % if by 2. What fails then is
    the outer end (``high`` of AIS, ``low`` of reverse AIS), since no chain has met the largest weight. So the interval
    to trust reaches from ``low`` of AIS to ``high`` of reverse AIS.
    """

    log_partition: float
    """The estimate."""
    standard_error: float
    """Of the estimate, by bootstrap over chains. It says nothing of modes that no chain has found."""
    effective_sample_size: float
    """Number of equally weighted chains that would tell as much; near 1, one chain decides alone."""
    log_weights: Tensor
    """(num_chains,) in float64: log Z of the base plus the log-weight of each chain, each an estimate by itself."""

    @property
    def low(self) -> float:
        """Lower end of the confidence interval, nats."""
        return self.log_partition - 3 * self.standard_error

    @property
    def high(self) -> float:
        """Upper end of the confidence interval, nats."""
        return self.log_partition + 3 * self.standard_error


def published_temperatures(num_temperatures: int = 14_500) -> list[float]:
    """The inverse temperatures of Salakhutdinov & Murray (2008): dense near 1, where a sharp machine changes most.

    Their 500 steps up to 0.5, 4,000 up to 0.9 and 10,000 up to 1, in the same proportions for other numbers of steps.

    >>> betas = published_temperatures()
    >>> len(betas), betas[0], betas[500], betas[4500], betas[-1]
    (14501, 0.0, 0.5, 0.9, 1.0)

    Args:
        num_temperatures: number of steps, at least 3.

    Raises:
        ValueError: fewer than 3.
    """
    if num_temperatures < 3:
        raise ValueError(f"num_temperatures must be at least 3, got {num_temperatures}")
    first = max(1, round(num_temperatures * 500 / 14_500))
    second = max(1, round(num_temperatures * 4_000 / 14_500))
    third = num_temperatures - first - second
    betas = [0.5 * step / first for step in range(first)]
    betas += [0.5 + 0.4 * step / second for step in range(second)]
    return betas + [0.9 + 0.1 * step / third for step in range(third)] + [1.0]


def sigmoid_temperatures(num_temperatures: int, width: float = 4.0) -> list[float]:
    """Inverse temperatures dense at both ends: a logistic curve over +- width, stretched to [0, 1].

    The schedule of Wu et al. 2017, On the quantitative analysis of decoder-based generative models
    (https://arxiv.org/abs/1611.04273).

    >>> [round(beta, 4) for beta in sigmoid_temperatures(4)]
    [0.0, 0.105, 0.5, 0.895, 1.0]

    Args:
        num_temperatures: number of steps, at least 1.
        width: of the part of the curve that is taken.

    Raises:
        ValueError: fewer than 1.
    """
    if num_temperatures < 1:
        raise ValueError(f"num_temperatures must be at least 1, got {num_temperatures}")
    curve = [1 / (1 + math.exp(-width * (2 * step / num_temperatures - 1))) for step in range(num_temperatures + 1)]
    low, high = curve[0], curve[-1]
    return [(value - low) / (high - low) for value in curve]


@torch.no_grad()
def ais(
    path: AnnealedPath[State], betas: Sequence[float], num_chains: int, progress: Progress = iter
) -> PartitionEstimate:
    """Estimate log Z of f_1 by annealing chains from the base.

    Its expectation is below log Z (by Jensen's inequality), so that log-likelihoods come out too high.

    Args:
        path: the densities.
        betas: from 0 to 1, rising.
        num_chains: independent chains, all at once.
        progress: goes through the steps.

    Raises:
        ValueError: betas that do not rise from 0 to 1, or no chains.
    """
    return _estimate(path, ais_log_weights(path, betas, num_chains, progress), reverse=False)


@torch.no_grad()
def ais_log_weights(
    path: AnnealedPath[State], betas: Sequence[float], num_chains: int, progress: Progress = iter
) -> Tensor:
    """What :func:`ais` averages: the log-weights alone, where chains do not all estimate the same number.

    Args:
        path: the densities.
        betas: from 0 to 1, rising.
        num_chains: independent chains, all at once.
        progress: goes through the steps.

    Returns:
        ``(num_chains,)`` in float64: exp of each is an unbiased estimate of Z_1 / Z_0.
    """
    check_annealing(betas, num_chains)
    state = path.sample_base(num_chains)
    log_weights = precise(path.log_ratio(state, betas[0], betas[1]))
    for step in progress(range(1, len(betas) - 1)):
        state = path.transition(state, betas[step])
        log_weights += precise(path.log_ratio(state, betas[step], betas[step + 1]))
    return log_weights


@torch.no_grad()
def reverse_ais(
    path: AnnealedPath[State], betas: Sequence[float], state: State, progress: Progress = iter
) -> PartitionEstimate:
    """Estimate log Z of f_1 by annealing samples of f_1 back to the base.

    With exact samples its expectation is above log Z, so that log-likelihoods come out too low. Samples of a long
    Markov chain serve as well as the chain has mixed.

    Args:
        path: the densities.
        betas: from 0 to 1, rising, as for :func:`ais`.
        state: samples of f_1, one for each chain.
        progress: goes through the steps.

    Raises:
        ValueError: betas that do not rise from 0 to 1.
    """
    return _estimate(path, reverse_ais_log_weights(path, betas, state, progress), reverse=True)


@torch.no_grad()
def reverse_ais_log_weights(
    path: AnnealedPath[State], betas: Sequence[float], state: State, progress: Progress = iter
) -> Tensor:
    """What :func:`reverse_ais` averages, with the sign of :func:`ais_log_weights`.

    Args:
        path: the densities.
        betas: from 0 to 1, rising.
        state: samples of f_1, one for each chain.
        progress: goes through the steps.

    Returns:
        ``(num_chains,)`` in float64: exp of minus each is an unbiased estimate of Z_0 / Z_1.
    """
    check_annealing(betas, 1)
    falling = list(betas)[::-1]
    log_weights = precise(path.log_ratio(state, falling[1], falling[0]))
    for step in progress(range(1, len(betas) - 1)):
        state = path.transition(state, falling[step])
        log_weights += precise(path.log_ratio(state, falling[step + 1], falling[step]))
    return log_weights


@torch.no_grad()
def raise_log_likelihood(
    path: AnnealedPath[State],
    betas: Sequence[float],
    state: State,
    log_density: Tensor,
    num_chains: int = 1,
    progress: Progress = iter,
) -> Tensor:
    """Estimate log p(x) of given points by annealing them back to the base: RAISE, the reverse AIS estimator.

    The exponential of each estimate is an unbiased estimate of the probability of x under the annealing model: a draw
    from the base and one transition at each temperature, the last at beta = 1. So the estimate itself is too low on
    average for that model, whose log-likelihood lies in turn below that of f_1 on average over points of f_1. Where the
    points are no such draws it may lie above: annealing may find their mode oftener than f_1 has it.

    Args:
        path: the densities.
        betas: from 0 to 1, rising.
        state: every point ``num_chains`` times in a row, ``N * num_chains`` in all.
        log_density: log f_1 of these states without its constant, ``(N * num_chains,)`` nats.
        num_chains: independent chains of each point; more make the estimate higher on average.
        progress: goes through the steps.

    Returns:
        ``(N,)`` nats, in float64.

    Raises:
        ValueError: betas that do not rise from 0 to 1, or states that are not ``num_chains`` for each point.
    """
    check_annealing(betas, num_chains)
    if len(log_density) % num_chains:
        raise ValueError(f"got {len(log_density)} states, wanted {num_chains} (num_chains) for each point: repeat it")
    log_weights = precise(log_density) - precise(path.log_partition_base.to(log_density.device))
    falling = list(betas)[::-1]
    for step in progress(range(len(betas) - 1)):
        state = path.transition(state, falling[step])
        log_weights -= precise(path.log_ratio(state, falling[step + 1], falling[step]))
    return torch.logsumexp(log_weights.view(-1, num_chains), 1) - math.log(num_chains)


def precise(log_ratio: Tensor) -> Tensor:
    """In float64: thousands of small terms add up. Apple's accelerators have none, so there it leaves the device."""
    return (log_ratio.cpu() if log_ratio.device.type == "mps" else log_ratio).double()


def check_annealing(betas: Sequence[float], num_chains: int) -> None:
    if len(betas) < 2 or betas[0] != 0 or betas[-1] != 1 or any(low >= high for low, high in pairwise(betas)):
        raise ValueError(f"inverse temperatures must rise from 0 to 1, got {list(betas)[:3]}...{list(betas)[-3:]}")
    if num_chains < 1:
        raise ValueError(f"num_chains must be at least 1, got {num_chains}")


def _estimate(path: AnnealedPath[State], log_weights: Tensor, reverse: bool) -> PartitionEstimate:
    # Backwards Z_0 / Z_1 is the mean of 1 / w (the same formula, with the signs of the logarithms turned).
    sign = -1.0 if reverse else 1.0
    weights = sign * log_weights.cpu()
    count = len(weights)
    # A generator of its own: an error bar must not change what is drawn afterwards.
    chosen = torch.randint(count, (1000, count), generator=torch.Generator().manual_seed(0))
    spread = torch.logsumexp(weights[chosen], 1).std().item()
    log_ratio = torch.logsumexp(weights, 0).item() - math.log(count)
    effective = torch.exp(2 * torch.logsumexp(weights, 0) - torch.logsumexp(2 * weights, 0)).item()
    base = path.log_partition_base.item()
    return PartitionEstimate(base + sign * log_ratio, spread, effective, base + log_weights.cpu())
