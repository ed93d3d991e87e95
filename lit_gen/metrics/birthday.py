"""How many different images a generator seems to draw from, by the duplicates among its samples.

Arora, Risteski & Zhang: Do GANs learn the distribution? Some theory and empirics, ICLR 2018,
https://arxiv.org/abs/1706.08224.
"""

import math
from typing import NamedTuple

import torch
from scipy.stats import chi2
from torch import Tensor

from lit_gen.metrics.base import check_matrix
from lit_gen.metrics.neighbors import distance_blocks, neighbor_distances


class BirthdayResult(NamedTuple):
    """What the duplicates in one sample say of the support it was drawn from."""

    num_samples: int  # s
    pairs: int  # pairs of samples that are duplicates of each other
    duplicates: float  # share of the samples that have a duplicate among the others
    support: float  # estimated number of different images, s (s - 1) / (2 pairs); infinite without any pair
    support_at_least: float  # lower end of its one-sided interval of 95 %
    radius: float  # distance below which two samples are duplicates


def duplicate_radius(real: Tensor) -> float:
    """Half the median distance of a real image to its nearest neighbour: nearer than real images hardly ever are.

    Args:
        real: features ``(M, D)``, at least two.

    Raises:
        ValueError: no finite matrix of at least two rows.
    """
    check_matrix(real, "real")
    if len(real) < 2:
        raise ValueError(f"real must have at least 2 rows, got {len(real)}: without neighbours there is no scale")
    return 0.5 * neighbor_distances(real.double(), 1).sqrt().median().item()


def birthday_test(samples: Tensor, radius: float) -> BirthdayResult:
    """The birthday test: a sample of size s from n equally likely images holds s (s - 1) / (2 n) pairs of duplicates.

    Of images that are not equally likely it tells 1 / Σ p², which is below their number: it sees a collapse onto a few
    modes beside which others are rare. The interval takes pairs to be independent, and so is too narrow where some
    image is drawn over and over; that support is small is then beyond doubt all the same.

    Args:
        samples: features ``(s, D)``, at least two.
        radius: Euclidean distance up to which two samples are duplicates: :func:`duplicate_radius` of real images.

    Raises:
        ValueError: no finite matrix of at least two rows, or a negative radius.

    Example:
        >>> import torch
        >>> found = birthday_test(torch.tensor([[0.0], [1.0], [1.0], [2.0]]), radius=0.1)
        >>> found.pairs, found.duplicates, found.support
        (1, 0.5, 6.0)
    """
    check_matrix(samples, "samples")
    count = len(samples)
    if count < 2:
        raise ValueError(f"samples must have at least 2 rows, got {count}: a pair takes two")
    if not radius >= 0:
        raise ValueError(f"radius must not be negative, got {radius}")
    samples = samples.double()
    # Of each sample with the others; the one that it always finds is itself.
    twins = torch.cat([(block <= radius**2).sum(1) - 1 for block in distance_blocks(samples, samples)])
    pairs, possible = int(twins.sum()) // 2, count * (count - 1) / 2
    return BirthdayResult(
        num_samples=count,
        pairs=pairs,
        duplicates=(twins > 0).double().mean().item(),
        support=possible / pairs if pairs else math.inf,
        support_at_least=possible / (chi2.ppf(0.95, 2 * (pairs + 1)) / 2),
        radius=radius,
    )
