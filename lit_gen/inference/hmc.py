"""Hamiltonian Monte Carlo for many chains at once.

Duane et al. 1987; Neal 2011, MCMC using Hamiltonian dynamics (https://arxiv.org/abs/1206.1901).

The step size is adapted either by the multiplicative rule that annealing of decoders used (Wu et al. 2017, On the
quantitative analysis of decoder-based generative models, https://arxiv.org/abs/1611.04273) or by dual averaging
(Hoffman & Gelman 2014, The No-U-Turn sampler, section 3.2, https://arxiv.org/abs/1111.4246).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lit_gen.inference.ais import Progress

LogDensity = Callable[[Tensor], Tensor]
"""log f, up to a constant: ``(B, *event) -> (B,)`` nats, each chain for itself, differentiable."""


class Point(NamedTuple):
    """Where chains are, with what the next leapfrog step needs to know there."""

    position: Tensor
    """(B, *event)."""
    log_density: Tensor
    """(B,) nats, up to a constant."""
    gradient: Tensor
    """(B, *event), of the log density."""


class Transition(NamedTuple):
    """What one step of Hamiltonian Monte Carlo did."""

    point: Point
    """Where the chains are now."""
    accepted: Tensor
    """(B,) bool: whether a chain took the proposal."""
    acceptance: Tensor
    """(B,) min(1, exp(-Delta H)), the probability with which it did."""


class HMCSamples(NamedTuple):
    """A run of Hamiltonian Monte Carlo."""

    samples: Tensor
    """(num_samples, B, *event)."""
    acceptance: Tensor
    """(B,) mean probability of acceptance after the warm-up."""
    step_size: Tensor
    """(B,) after the warm-up."""


def evaluate(log_density: LogDensity, position: Tensor, create_graph: bool = False) -> Point:
    """The log density and its gradient at a position.

    Args:
        log_density: up to a constant.
        position: ``(B, *event)``.
        create_graph: keep the way that led here, to differentiate through the dynamics.
    """
    with torch.enable_grad():
        here = position if create_graph and position.requires_grad else position.detach().requires_grad_()
        values = log_density(here)
        if values.requires_grad:
            (gradient,) = torch.autograd.grad(values.sum(), here, create_graph=create_graph)
        else:  # flat, as a uniform prior is
            gradient = torch.zeros_like(here)
    return Point(here, values, gradient) if create_graph else Point(position.detach(), values.detach(), gradient)


def leapfrog(
    point: Point,
    momentum: Tensor,
    step_size: float | Tensor,
    num_steps: int,
    at: Callable[[Tensor], Point],
    mass: float | Tensor = 1.0,
) -> tuple[Point, Tensor]:
    """Follow the Hamiltonian dynamics of -log f(q) + p^2 / 2m: reversible, and volumes stay as they are.

    Differentiable in everything, if ``at`` is.

    Args:
        point: the start.
        momentum: ``(B, *event)``.
        step_size: one for all, or ``(B,)``.
        num_steps: number of steps; each costs one gradient.
        at: the density at a position: :func:`evaluate` with its first argument filled in.
        mass: positive, of one shape with the event, or broadcast to it.

    Returns:
        The end and the momentum there, not negated.
    """
    step = per_chain(step_size, point.position)
    for _ in range(num_steps):
        momentum = momentum + 0.5 * step * point.gradient
        point = at(point.position + step * momentum / mass)
        momentum = momentum + 0.5 * step * point.gradient
    return point, momentum


def hmc_step(
    point: Point,
    step_size: float | Tensor,
    num_steps: int,
    at: Callable[[Tensor], Point],
    mass: float | Tensor = 1.0,
    jitter: float = 0.0,
) -> Transition:
    """Draw a momentum, follow the dynamics, accept or stay (Metropolis): reversible, and leaves the density as it is.

    A proposal whose energy is not a number is never accepted.

    Args:
        point: where the chains are.
        step_size: one for all, or ``(B,)``.
        num_steps: leapfrog steps.
        at: the density at a position.
        mass: variance of the momenta.
        jitter: the step size of each chain is multiplied by a factor uniform in 1 +- jitter. Without it, a way of half
            a period (step size times number of steps near pi standard deviations) would take a chain from one side to
            the other and back, for ever (Neal 2011, section 3.2).
    """
    if jitter:
        factor = 1 + jitter * (2 * torch.rand_like(point.log_density) - 1)
        step_size = step_size * factor
    mass = torch.as_tensor(mass, dtype=point.position.dtype, device=point.position.device)
    momentum = torch.randn_like(point.position) * mass.sqrt()
    proposal, end = leapfrog(point, momentum, step_size, num_steps, at, mass)
    kinetic = 0.5 * ((momentum.square() - end.square()) / mass).flatten(1).sum(1)
    acceptance = torch.exp((proposal.log_density - point.log_density + kinetic).clamp(max=0)).nan_to_num(0.0)
    accepted = torch.rand_like(acceptance) < acceptance
    return Transition(Point(*(choose(accepted, new, old) for new, old in zip(proposal, point))), accepted, acceptance)


def per_chain(values: float | Tensor, like: Tensor) -> float | Tensor:
    """``(B,)`` as ``(B, 1, ...)``, to be multiplied with ``(B, *event)``; one value for all as it is."""
    if isinstance(values, Tensor) and values.ndim:
        return values.view(-1, *[1] * (like.ndim - 1))
    return values


def choose(mask: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Of each chain one tensor or the other: ``mask`` is ``(B,)``, the others ``(B, ...)``."""
    return torch.where(mask.view(-1, *[1] * (one.ndim - 1)), one, other)


class StepSizeAdaptation(ABC):
    """A step size that follows the acceptance it leads to.

    While it moves, the chain is no longer a Markov chain: adapt first, then sample with the size that was found.

    Args:
        step_size: where it starts, of any shape: a scalar for all chains, or one for each of them.
    """

    def __init__(self, step_size: Tensor) -> None:
        self.step_size = step_size

    @abstractmethod
    def update(self, acceptance: Tensor) -> None:
        """Move the step size.

        Args:
            acceptance: of the shape of the step size, the mean over the chains that share one.
        """

    @property
    def final(self) -> Tensor:
        """What to sample with."""
        return self.step_size


class MultiplicativeAdaptation(StepSizeAdaptation):
    """Wu et al. (2017): a little longer after acceptance above the target, a little shorter below.

    It needs hundreds of steps to change by an order of magnitude, and follows a density that changes slowly.

    Args:
        step_size: where it starts.
        target: acceptance to reach.
        factor: of one update, above 1; the way down is 2 - factor, as published (1.02 and 0.98).
        smoothing: of the average of acceptances that is compared with the target.
        minimum: smallest step size.
        maximum: largest step size.
    """

    def __init__(
        self,
        step_size: Tensor,
        target: float = 0.65,
        factor: float = 1.02,
        smoothing: float = 0.9,
        minimum: float = 1e-4,
        maximum: float = 0.5,
    ) -> None:
        super().__init__(step_size)
        self.target = target
        self.factor = factor
        self.smoothing = smoothing
        self.minimum = minimum
        self.maximum = maximum
        self.average = torch.full_like(step_size, target)

    def update(self, acceptance: Tensor) -> None:
        self.average = self.smoothing * self.average + (1 - self.smoothing) * acceptance
        moved = self.step_size * torch.where(self.average > self.target, self.factor, 2 - self.factor)
        self.step_size = moved.clamp(self.minimum, self.maximum)


class DualAveraging(StepSizeAdaptation):
    """Hoffman & Gelman (2014), algorithm 5: bold steps at first, and an average of the later ones to sample with.

    Args:
        step_size: where it starts; sizes are drawn towards ten times as much.
        target: acceptance to reach.
        shrinkage: gamma, how strongly.
        offset: t_0, which tames the first iterations.
        forgetting: kappa, in (0.5, 1]: how fast early iterations are forgotten.
    """

    def __init__(
        self,
        step_size: Tensor,
        target: float = 0.8,
        shrinkage: float = 0.05,
        offset: float = 10.0,
        forgetting: float = 0.75,
    ) -> None:
        super().__init__(step_size)
        self.target = target
        self.shrinkage = shrinkage
        self.offset = offset
        self.forgetting = forgetting
        self.centre = torch.log(10 * step_size)
        self.error = torch.zeros_like(step_size)
        self.log_average = torch.zeros_like(step_size)
        self.count = 0

    def update(self, acceptance: Tensor) -> None:
        self.count += 1
        share = 1 / (self.count + self.offset)
        self.error = (1 - share) * self.error + share * (self.target - acceptance)
        logarithm = self.centre - math.sqrt(self.count) / self.shrinkage * self.error
        weight = self.count**-self.forgetting
        self.log_average = weight * logarithm + (1 - weight) * self.log_average
        self.step_size = logarithm.exp()

    @property
    def final(self) -> Tensor:
        return self.log_average.exp() if self.count else self.step_size


@torch.no_grad()
def hmc(
    log_density: LogDensity,
    position: Tensor,
    num_samples: int,
    num_warmup: int = 100,
    num_leapfrogs: int = 10,
    step_size: float = 0.1,
    target: float = 0.8,
    mass: float | Tensor = 1.0,
    jitter: float = 0.2,
    progress: Progress = iter,
) -> HMCSamples:
    """Sample from any density by Hamiltonian Monte Carlo, each chain with a step size of its own.

    It refines a posterior: begin at ``encode(images).sample()``, with log p(x given z) + log p(z) for a density.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> run = hmc(lambda z: -0.5 * (z - 3).square().sum(1), torch.zeros(500, 2), num_samples=10)
        >>> run.samples.shape, round(run.samples.mean().item())
        (torch.Size([10, 500, 2]), 3)

    Args:
        log_density: up to a constant.
        position: ``(B, *event)``, where the chains begin.
        num_samples: states to keep of each chain, all in a row.
        num_warmup: steps before, by which the chains arrive and their step sizes are found (dual averaging); with 0 the
            step size stays as it is.
        num_leapfrogs: gradients to a step.
        step_size: to begin with.
        target: acceptance that the warm-up aims at.
        mass: variance of the momenta; the reciprocal of the variance of each latent is ideal.
        jitter: relative width of random changes of the step size.
        progress: goes through the steps.

    Raises:
        ValueError: no samples, no leapfrog steps, a negative warm-up, or a step size that is not positive.
    """
    if num_samples < 1 or num_leapfrogs < 1 or num_warmup < 0:
        raise ValueError(
            "num_samples and num_leapfrogs must be at least 1 and num_warmup not negative, got"
            f" {num_samples}, {num_leapfrogs} and {num_warmup}"
        )
    if step_size <= 0:
        raise ValueError(f"step_size must be positive, got {step_size}")
    point = evaluate(log_density, position)
    adaptation = DualAveraging(torch.full_like(point.log_density, step_size), target)
    samples, acceptance = [], torch.zeros_like(point.log_density)
    for step in progress(range(num_warmup + num_samples)):
        warm = step >= num_warmup
        size = adaptation.final if warm else adaptation.step_size
        moved = hmc_step(point, size, num_leapfrogs, lambda q: evaluate(log_density, q), mass, jitter)
        point = moved.point
        if warm:
            samples.append(point.position)
            acceptance += moved.acceptance / num_samples
        else:
            adaptation.update(moved.acceptance)
    return HMCSamples(torch.stack(samples), acceptance, adaptation.final)
