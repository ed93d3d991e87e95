"""Whether a generator copies its training images: its samples beside training and beside held-out images.

The question is that of Meehan, Chaudhuri & Dasgupta: A non-parametric test to detect data-copying in generative models,
AISTATS 2020, https://arxiv.org/abs/2004.05675: are samples nearer to training images than they have reason to be?
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lit_gen.metrics.base import check_matrix
from lit_gen.metrics.neighbors import distance_blocks


class MemorizationResult(NamedTuple):
    """How near samples are to training images, by two measures that fail in different ways."""

    copies: float
    """Share of samples as near to a training image as only ``quantile`` of the held-out images are.

    ``quantile`` is expected of a model that draws as the data does, 1 of one that replays. Blurred samples are near to
    everything, and raise it without any copying.
    """
    memorization: float
    """0 where a held-out image is as often the nearest of all to a sample as chance has it, 1 where it never is: blur
    does not matter. Its error is large where few images are held out."""
    memorization_error: float
    """Standard error of that, for a model that copies nothing; large too where many samples share a neighbour."""
    threshold: float
    """Distance up to which a sample counts as a copy."""


class NearestNeighbors:
    """The nearest of a stream of features to some that are given, by Euclidean distance.

    Args:
        queries: ``(N, D)``, floating point.
        k: neighbours of each.
    """

    def __init__(self, queries: Tensor, k: int = 1) -> None:
        check_matrix(queries, "queries")
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self.k = k
        self.count = 0
        """Features seen so far."""
        self._queries = queries.detach().cpu().double()
        self._squares = torch.empty(len(queries), 0, dtype=torch.float64)
        self.numbers = torch.empty(len(queries), 0, dtype=torch.int64)
        """``(N, k)``, which in the stream the neighbours were, the nearest first; narrower before k have come."""

    def update(self, features: Tensor) -> None:
        """Take in ``(B, D)``."""
        check_matrix(features, "features", width=self._queries.shape[1])
        features = features.detach().cpu().double()
        found = torch.cat(list(distance_blocks(self._queries, features)))
        numbers = torch.arange(self.count, self.count + len(features)).expand(len(found), -1)
        squares, numbers = torch.cat([self._squares, found], 1), torch.cat([self.numbers, numbers], 1)
        self._squares, chosen = squares.topk(min(self.k, squares.shape[1]), largest=False)
        self.numbers = numbers.gather(1, chosen)
        self.count += len(features)

    @property
    def distances(self) -> Tensor:
        """``(N, k)`` as :attr:`numbers`, in float64."""
        return self._squares.sqrt()


def memorization(
    samples: Tensor, train: Tensor, held_out: Tensor, quantile: float = 0.01, reference: int | None = None
) -> MemorizationResult:
    """Measure memorisation from features of samples, of all training images and of held-out ones.

    Args:
        samples: ``(S, D)``.
        train: ``(N, D)``, of all that the model was trained on: what is left out it may copy unseen.
        held_out: ``(n, D)``, of images drawn as the training images were, and not trained on.
        quantile: share of held-out images that count as copies.
        reference: take so many held-out images for the threshold of copies; None: all.

    Raises:
        ValueError: features that are no finite matrices of one width, or ``quantile`` out of range.

    Example:
        >>> import torch
        >>> train, held_out = torch.randn(300, 4), torch.randn(100, 4)
        >>> found = memorization(train[:50], train, held_out)
        >>> found.copies, found.memorization
        (1.0, 1.0)
    """
    to_train, to_held_out = NearestNeighbors(samples), NearestNeighbors(samples)
    between = NearestNeighbors(held_out[:reference])
    to_train.update(train)
    to_held_out.update(held_out)
    between.update(train)
    return judge_distances(to_train, to_held_out, between, quantile)


def judge_distances(
    to_train: NearestNeighbors, to_held_out: NearestNeighbors, between: NearestNeighbors, quantile: float = 0.01
) -> MemorizationResult:
    """As :func:`memorization`, from neighbours that were found in streams.

    Args:
        to_train: training images nearest to the samples.
        to_held_out: held-out images nearest to the samples.
        between: training images nearest to held-out images.
        quantile: share of held-out images that count as copies.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile must lie between 0 and 1, got {quantile}")
    near, far = to_train.distances[:, 0], to_held_out.distances[:, 0]
    threshold = between.distances[:, 0].quantile(quantile).item()
    # Where samples do not know which images were trained on, each of N + n is held out with equal probability. One that
    # is the nearest to c samples counts c times: the variance is that of drawing n of all without replacement.
    total = to_train.count + to_held_out.count
    expected = to_held_out.count / total
    strange = far < near
    nearest = torch.where(strange, to_train.count + to_held_out.numbers[:, 0], to_train.numbers[:, 0])
    concentration = nearest.bincount().double().square().sum().item() / len(near) ** 2
    variance = expected * (1 - expected) * (concentration - 1 / total) * total / (total - 1)
    return MemorizationResult(
        copies=(near <= threshold).double().mean().item(),
        memorization=1 - strange.double().mean().item() / expected,
        memorization_error=math.sqrt(variance) / expected,
        threshold=threshold,
    )
