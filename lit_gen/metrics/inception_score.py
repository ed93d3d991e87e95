"""Inception Score.

Salimans, Goodfellow, Zaremba, Cheung, Radford, Chen: Improved Techniques for Training GANs, NeurIPS 2016,
https://arxiv.org/abs/1606.03498.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.special import entr
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat, rank_zero_warn

from lit_gen.metrics.base import REFERENCE_SEED, MeanStd, SmallSampleWarning, check_matrix


class InceptionScore(Metric):
    r"""exp of the mutual information between a generated image and its class; between 1 and K, higher is better.

    .. math:: \exp\left(\mathbb E_x\, KL(p(y|x) \| p(y))\right) = \exp\left(H(p(y)) - \mathbb E_x H(p(y|x))\right)

    The score is computed in each of ``splits`` parts of the shuffled samples and averaged. It grows with the samples in
    a part, so compare only scores with equal N and ``splits`` (published ones: 50,000 in 10). It says nothing about
    images unlike those the classifier was trained on.

    torchmetrics' class of this metric gives NaN for saturated logits (0 log 0, here entropies instead), draws from the
    global generator, and waits for ever when processes have unlike numbers of batches; hence this one. The splits are
    those of torch-fidelity with the same seed.

    Args:
        splits: number of parts.
        seed: seed of the shuffle. The global generators are not used.

    Raises:
        ValueError: if ``splits`` is below 1.

    Example:
        >>> import torch
        >>> score = InceptionScore(splits=1)
        >>> score.update(torch.eye(4) * 1000)
        >>> round(score.compute().mean.item(), 6)
        4.0
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    logits: list[Tensor]

    def __init__(self, splits: int = 10, seed: int = REFERENCE_SEED) -> None:
        if splits < 1:
            raise ValueError(f"splits must be at least 1, got {splits}")
        super().__init__()
        self.splits = splits
        self.seed = seed
        self.add_state("logits", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor) -> None:
        """Add the class logits ``(N, K)`` of a batch of generated images.

        Raises:
            ValueError: if the logits are not a finite matrix with the K of the batches before.
        """
        check_matrix(logits, "logits", width=self.logits[0].shape[1] if self.logits else None)
        self.logits.append(logits.detach())

    def effective_splits(self, num_samples: int) -> int:
        """Return the number of parts used for that many samples: ``splits``, or fewer so that each holds two."""
        return min(self.splits, num_samples // 2)

    def compute(self) -> MeanStd:
        """Return mean and standard deviation over the splits, in float64.

        Warns when there are fewer than two samples for each split; ``splits`` then shrinks.

        Raises:
            ValueError: if there are fewer than two samples.
        """
        num_samples = sum(map(len, self.logits)) if isinstance(self.logits, list) else len(self.logits)
        if num_samples < 2:
            raise ValueError(f"InceptionScore needs at least 2 samples, got {num_samples}: call update before compute")
        splits = self.effective_splits(num_samples)
        if splits < self.splits:
            rank_zero_warn(
                f"{num_samples} samples are too few for {self.splits} splits of the Inception Score: using {splits}. "
                "The score grows with the samples in a split, so it cannot be compared with published ones",
                SmallSampleWarning,
            )
        logits = dim_zero_cat(self.logits).double()
        shuffled = logits[np.random.RandomState(self.seed).permutation(num_samples)]
        probabilities = shuffled.softmax(dim=1)
        bounds = [i * num_samples // splits for i in range(splits + 1)]
        scores = []
        for start, stop in pairwise(bounds):
            part = probabilities[start:stop]
            mutual_information = entr(part.mean(dim=0)).sum() - entr(part).sum(dim=1).mean()
            scores.append(mutual_information.exp())
        values = torch.stack(scores)
        return MeanStd(values.mean(), values.std(correction=0))
