"""Kernel (Inception) distance.

Bińkowski, Sutherland, Arbel, Gretton: Demystifying MMD GANs, ICLR 2018, https://arxiv.org/abs/1801.01401.
"""

import numpy as np
import torch
from torchmetrics.image.kid import poly_mmd
from torchmetrics.utilities import rank_zero_warn

from lit_gen.metrics.base import REFERENCE_SEED, FeatureMetric, MeanStd, SmallSampleWarning


class KID(FeatureMetric):
    r"""Squared maximum mean discrepancy with the kernel (xᵀy / D + 1)³ over random subsets; lower is better.

    The estimator is the authors': within each side the diagonal is dropped, across the sides all pairs count. It has
    no bias in N, so it is the score for few samples; around equal distributions it is negative as often as positive.
    The subsets are those torch-fidelity draws with the same seed. Published values are often multiplied by 1000; this
    one is not.

    torchmetrics' class of this metric draws from the global generator, fails when ``subset_size`` exceeds N, and waits
    for ever when processes have unlike numbers of batches; its kernel (``poly_mmd``) is used here, in float64.

    Args:
        subsets: number of random subsets.
        subset_size: samples of each side in a subset, drawn without replacement.
        seed: seed of the subsets. The global generators are not used.
        reset_real_features: if False, ``reset`` keeps the real side, which usually does not change between evaluations.

    Raises:
        ValueError: if ``subsets`` is below 1 or ``subset_size`` below 2.

    Example:
        >>> import torch
        >>> kid = KID(subsets=1, subset_size=3)
        >>> kid.update(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), real=True)
        >>> kid.update(torch.tensor([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]]), real=False)
        >>> round(kid.compute().mean.item(), 6)
        0.5
    """

    higher_is_better = False

    def __init__(
        self,
        subsets: int = 100,
        subset_size: int = 1000,
        seed: int = REFERENCE_SEED,
        reset_real_features: bool = True,
    ) -> None:
        if subsets < 1 or subset_size < 2:
            raise ValueError(
                f"KID needs subsets of at least 1 and subset_size of at least 2, got {subsets} and {subset_size}"
            )
        super().__init__(reset_real_features)
        self.subsets = subsets
        self.subset_size = subset_size
        self.seed = seed

    def effective_subset_size(self, num_real: int, num_generated: int) -> int:
        """Return the subset size used for that many samples: ``subset_size``, or the smaller side if that is less."""
        return min(self.subset_size, num_real, num_generated)

    def compute(self) -> MeanStd:
        """Return mean and standard deviation over the subsets, in float64.

        Warns when a side has fewer samples than ``subset_size``, which then shrinks to the smaller side.

        Raises:
            ValueError: if either side has fewer than two samples.
        """
        real, generated = self.both_sides(minimum=2)
        size = self.effective_subset_size(len(real), len(generated))
        if size < self.subset_size:
            rank_zero_warn(
                f"KID subset_size {self.subset_size} exceeds the {len(real)} real or the {len(generated)} generated "
                f"samples: using {size}. Its mean stays unbiased; the subsets overlap, so its std is too small",
                SmallSampleWarning,
            )
        random = np.random.RandomState(self.seed)
        scores = []
        # When every subset is the whole of both sides they are all equal: one is enough.
        for _ in range(self.subsets if size < max(len(real), len(generated)) else 1):
            # In torch-fidelity's order, whose first input is the generated side.
            generated_subset = generated[random.choice(len(generated), size, replace=False)]
            real_subset = real[random.choice(len(real), size, replace=False)]
            scores.append(poly_mmd(real_subset, generated_subset))
        values = torch.stack(scores)
        return MeanStd(values.mean(), values.std(correction=0))
