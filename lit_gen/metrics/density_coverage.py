"""Density and coverage.

Naeem, Oh, Uh, Choi, Yoo: Reliable Fidelity and Diversity Metrics for Generative Models, ICML 2020,
https://arxiv.org/abs/2002.09797.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lit_gen.metrics.base import FeatureMetric
from lit_gen.metrics.neighbors import distance_blocks, neighbor_distances


class DensityCoverageResult(NamedTuple):
    """How densely and how completely the generated samples fill the balls around the real ones."""

    density: Tensor  # () not negative, 1 in expectation for equal distributions, can exceed 1
    coverage: Tensor  # () between 0 and 1


class DensityCoverage(FeatureMetric):
    """Density and coverage of generated features; higher is better.

    Around each real sample lies a ball that reaches to its k-th nearest real neighbour (border excluded, as in the
    authors' code). Density is the mean number of balls that hold a generated sample, divided by k; coverage the share
    of balls that hold any generated sample. Only real samples have balls, so a generated outlier does no harm.
    For equal distributions and equal N coverage is near 1 - 2⁻ᵏ.

    Args:
        k: which nearest neighbour gives the radius; 5 in the paper.
        reset_real_features: if False, ``reset`` keeps the real side, which usually does not change between evaluations.

    Raises:
        ValueError: if ``k`` is below 1.

    Example:
        >>> import torch
        >>> metric = DensityCoverage(k=1)
        >>> metric.update(torch.tensor([[0.0], [1.0], [3.0]]), real=True)
        >>> metric.update(torch.tensor([[0.5], [9.0]]), real=False)
        >>> density, coverage = metric.compute()  # radii 1, 1, 2; 0.5 lies in the first two balls, 9 in none
        >>> density.item(), round(coverage.item(), 4)
        (1.0, 0.6667)
    """

    higher_is_better = True

    def __init__(self, k: int = 5, reset_real_features: bool = True) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        super().__init__(reset_real_features)
        self.k = k

    def compute(self) -> DensityCoverageResult:
        """Return density and coverage, in float64.

        Raises:
            ValueError: if either side has no more than ``k`` samples.
        """
        real, generated = self.both_sides(minimum=self.k + 1)
        radii = neighbor_distances(real, self.k)
        num_balls = []  # of each generated sample
        covered = torch.zeros_like(radii, dtype=torch.bool)  # of each real sample
        for block in distance_blocks(generated, real):
            inside = block < radii
            num_balls.append(inside.sum(dim=1))
            covered |= inside.any(dim=0)
        density = torch.cat(num_balls).double().mean() / self.k
        return DensityCoverageResult(density, covered.double().mean())
