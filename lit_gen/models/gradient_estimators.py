"""Estimators of the gradient of importance-weighted bounds: what :class:`~lit_gen.models.IWAE` is trained by.

Burda, Grosse & Salakhutdinov 2015, Importance weighted autoencoders (https://arxiv.org/abs/1509.00519); Tucker et al.
2018, Doubly reparameterized gradient estimators for Monte Carlo objectives (https://arxiv.org/abs/1810.04152);
Rainforth et al. 2018, Tighter variational bounds are not necessarily better (https://arxiv.org/abs/1802.04537).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from lit_gen.networks import Recorded
from lit_gen.objectives import SampleWeights, importance_weighted_bound, normalized_weights


class GradientEstimator(Recorded, ABC):
    """What training maximises, and how much each of the k samples counts in its gradient."""

    pathwise = False
    """Whether q is followed through the samples alone: its score, zero on average, is left out."""

    @abstractmethod
    def __call__(self, log_weights: Tensor) -> SampleWeights:
        """The weights of samples with these log w, ``(k, B)`` without gradient."""


class Reparametrized(GradientEstimator):
    """The gradient of the k-sample bound itself (Burda et al. 2015, section 3)."""

    def __call__(self, log_weights: Tensor) -> SampleWeights:
        weights = normalized_weights(log_weights)
        return SampleWeights(importance_weighted_bound(log_weights), weights, weights)


class DReG(GradientEstimator):
    """The same gradient on average, that of the encoder with less noise at large k (Tucker et al. 2018)."""

    pathwise = True

    def __call__(self, log_weights: Tensor) -> SampleWeights:
        weights = normalized_weights(log_weights)
        return SampleWeights(importance_weighted_bound(log_weights), weights, weights.square())


class MIWAE(GradientEstimator):
    """The bound averaged over groups of samples: looser, and a clearer gradient (Rainforth et al. 2018).

    Args:
        groups: M of the paper; each has k / M samples.
    """

    def __init__(self, groups: int = 8) -> None:
        self.groups = groups

    def __call__(self, log_weights: Tensor) -> SampleWeights:
        weights = normalized_weights(log_weights, self.groups)
        return SampleWeights(importance_weighted_bound(log_weights, self.groups), weights, weights)


class PIWAE(GradientEstimator):
    """The k-sample bound for p, that of :class:`MIWAE` for q (Rainforth et al. 2018).

    Args:
        groups: M of the paper; each has k / M samples.
    """

    def __init__(self, groups: int = 8) -> None:
        self.groups = groups

    def __call__(self, log_weights: Tensor) -> SampleWeights:
        bound = importance_weighted_bound(log_weights)
        return SampleWeights(bound, normalized_weights(log_weights), normalized_weights(log_weights, self.groups))


class CIWAE(GradientEstimator):
    """A mean of the evidence lower bound and the k-sample bound (Rainforth et al. 2018).

    Args:
        beta: weight of the evidence lower bound.
    """

    def __init__(self, beta: float = 0.05) -> None:
        if not 0 <= beta <= 1:
            raise ValueError(f"beta must lie in 0..1, got {beta}")
        self.beta = beta

    def __call__(self, log_weights: Tensor) -> SampleWeights:
        weights = self.beta / len(log_weights) + (1 - self.beta) * normalized_weights(log_weights)
        bound = self.beta * log_weights.mean(0) + (1 - self.beta) * importance_weighted_bound(log_weights)
        return SampleWeights(bound, weights, weights)


EstimatorFactory = Callable[[], GradientEstimator]
