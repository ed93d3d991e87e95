"""What the doctor measures."""

import statistics
from collections import deque

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence
from torch.nn.functional import pdist

from lit_gen.inference import activity


def kl_per_unit(posterior: Distribution, prior: Distribution) -> Tensor | None:
    """KL(q || p) of every latent unit, nats, ``(B, *latent_shape)``; None where units are not independent in both."""
    if not (isinstance(posterior, Independent) and isinstance(prior, Independent)):
        return None
    try:
        return kl_divergence(posterior.base_dist, prior.base_dist)
    except NotImplementedError:
        return None


def sample_spread(samples: Tensor, images: Tensor) -> float:
    """Mean distance between samples relative to that between images: near 0 when all samples look alike.

    Args:
        samples: ``(N, C, H, W)``, at least two.
        images: ``(M, C, H, W)``, at least two that differ.
    """
    between_images = pdist(images.float().flatten(1)).mean()
    return (pdist(samples.float().flatten(1)).mean() / between_images.clamp(min=1e-12)).item()


def jumped(loss: float, before: "deque[float]", factor: float = 20.0) -> bool:
    """Whether a loss lies far above the running ones: ``factor`` times their spread above their median."""
    # What lies below another recent loss has not jumped; the quantiles would take 0.05 ms of every step.
    if len(before) < 20 or loss <= max(before):
        return False
    low, median, high = statistics.quantiles(before, n=4)
    return loss > median + factor * max(high - low, 0.1 * abs(median), 1e-6)


class Posteriors:
    """Sums over images of what the encoder says of each latent unit."""

    def __init__(self) -> None:
        self.count = 0
        self._mean, self._square, self._error, self._kl = (torch.zeros((), dtype=torch.float64) for _ in range(4))
        self.knows_kl = True

    def add(self, mean: Tensor, kl: Tensor | None, error: Tensor | None = None) -> None:
        """Add E_q[u | x] and the KL of each unit, and the variance by which the former is off, if it is estimated.

        All of them are ``(B, *latent_shape)``.
        """
        means = mean.flatten(1).cpu().double()
        self.count += len(means)
        self._mean = self._mean + means.sum(0)
        self._square = self._square + means.square().sum(0)
        if kl is None:
            self.knows_kl = False
        else:
            self._kl = self._kl + kl.flatten(1).cpu().double().sum(0)
        if error is not None:
            self._error = self._error + error.flatten(1).cpu().double().sum(0)

    def variances(self) -> Tensor:
        """Variance over images of E_q[u | x], ``(units,)``."""
        variance = self._square / self.count - (self._mean / self.count).square()
        return activity(variance, self._error / self.count)

    def kl(self) -> Tensor | None:
        """Mean KL of each unit, nats, ``(units,)``."""
        return self._kl / self.count if self.knows_kl else None


class HiddenUnits:
    """The lowest and the highest probability of each hidden unit over images."""

    def __init__(self) -> None:
        self.count = 0
        self._low = self._high = torch.zeros(())

    def add(self, probabilities: Tensor) -> None:
        """Take in ``(B, H)``."""
        low, high = probabilities.amin(0).cpu(), probabilities.amax(0).cpu()
        self._low = torch.minimum(self._low, low) if self.count else low
        self._high = torch.maximum(self._high, high) if self.count else high
        self.count += len(probabilities)

    def dead(self) -> Tensor:
        """Which units are off for every image, ``(H,)``."""
        return self._high < 0.05

    def saturated(self) -> Tensor:
        """Which units are on for every image, ``(H,)``."""
        return self._low > 0.95


def distance_moved(before: Tensor, now: Tensor) -> float:
    """How far chains have come, relative to the distance between two of them: near 1 when they have forgotten.

    Args:
        before: ``(N, ...)``, at least two.
        now: the same chains later.
    """
    moved = (now - before).float().flatten(1).norm(dim=1).mean()
    return (moved / pdist(now.float().flatten(1)).mean().clamp(min=1e-12)).item()
