"""How many modes samples fall into, and how evenly."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class ModeStatistics(NamedTuple):
    """What the frequencies of modes say."""

    modes: int
    """That occur at all."""
    kl: float
    """KL(frequencies || uniform), nats: 0 where all modes are equally frequent, log K where there is but one."""


def mode_statistics(counts: Tensor) -> ModeStatistics:
    """Modes that occur, and how far their frequencies are from equal ones.

    Both depend on the number of samples N: K equally likely modes give a KL of about (K - 1) / 2N on average, 0.0192
    for a thousand modes and 26,000 samples, and 1,000 samples of them find 632 modes. Compare at equal N.

    >>> mode_statistics(torch.tensor([5, 5, 0, 0]))
    ModeStatistics(modes=2, kl=0.693...)

    Args:
        counts: ``(K,)`` samples in each mode.

    Raises:
        ValueError: no samples.
    """
    if counts.sum() == 0:
        raise ValueError("modes are counted of samples, and there are none")
    found = counts[counts > 0].double()
    frequencies = found / found.sum()
    kl = (frequencies * frequencies.log()).sum().item() + math.log(len(counts))
    return ModeStatistics(len(found), max(kl, 0.0))


def stacked_classes(predictions: Tensor, num_classes: int) -> Tensor:
    """The class of each image whose planes have classes of their own: these read as one number.

    Args:
        predictions: ``(B, planes)``, 0 to ``num_classes`` - 1.
        num_classes: of a plane.

    Returns:
        ``(B,)``, 0 to ``num_classes ** planes`` - 1.
    """
    places = num_classes ** torch.arange(predictions.shape[1] - 1, -1, -1, device=predictions.device)
    return (predictions * places).sum(1)
