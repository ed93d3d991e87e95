"""Improved precision and recall.

Kynkäänniemi, Karras, Laine, Lehtinen, Aila: Improved Precision and Recall Metric for Assessing Generative Models,
NeurIPS 2019, https://arxiv.org/abs/1904.06991.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lit_gen.metrics.base import FeatureMetric
from lit_gen.metrics.neighbors import distance_blocks, neighbor_distances


class PrecisionRecallResult(NamedTuple):
    """Shares of samples inside the other side's manifold, between 0 and 1."""

    precision: Tensor  # () share of generated samples inside the real manifold: quality
    recall: Tensor  # () share of real samples inside the generated manifold: variety


class PrecisionRecall(FeatureMetric):
    """Precision and recall of generated features, both between 0 and 1, higher is better.

    The manifold of a side is the union of the balls around its samples that reach to their k-th nearest neighbour
    among themselves (border included, as in the authors' code). A single outlier has a huge ball: ``DensityCoverage``
    mends that. Both depend on N; published values use 50,000 of each side on VGG-16 features.

    Args:
        k: which nearest neighbour gives the radius; 3 in the paper.
        reset_real_features: if False, ``reset`` keeps the real side, which usually does not change between evaluations.

    Raises:
        ValueError: if ``k`` is below 1.

    Example:
        >>> import torch
        >>> metric = PrecisionRecall(k=1)
        >>> metric.update(torch.tensor([[0.0], [1.0], [2.0], [3.0]]), real=True)
        >>> metric.update(torch.tensor([[0.4], [10.0]]), real=False)
        >>> precision, recall = metric.compute()
        >>> precision.item(), recall.item()
        (0.5, 1.0)
    """

    higher_is_better = True

    def __init__(self, k: int = 3, reset_real_features: bool = True) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        super().__init__(reset_real_features)
        self.k = k

    def compute(self) -> PrecisionRecallResult:
        """Return precision and recall, in float64.

        Raises:
            ValueError: if either side has no more than ``k`` samples.
        """
        real, generated = self.both_sides(minimum=self.k + 1)
        real_radii, generated_radii = neighbor_distances(real, self.k), neighbor_distances(generated, self.k)
        in_real_manifold = []  # of each generated sample
        in_generated_manifold = torch.zeros_like(real_radii, dtype=torch.bool)  # of each real sample
        start = 0
        for block in distance_blocks(generated, real):
            in_real_manifold.append((block <= real_radii).any(dim=1))
            in_generated_manifold |= (block <= generated_radii[start : start + len(block), None]).any(dim=0)
            start += len(block)
        return PrecisionRecallResult(
            precision=torch.cat(in_real_manifold).double().mean(), recall=in_generated_manifold.double().mean()
        )
