"""What the metrics over features share: the checked, accumulated features of the real and the generated side."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

REFERENCE_SEED = 2020
"""Default seed of the random subsets of KID and of the splits of the Inception Score.

It is torch-fidelity's. Both metrics draw from ``numpy.random.RandomState``, whose stream NumPy keeps fixed, so that
equal features give torch-fidelity's very subsets, and neither touches a global generator.
"""


class SmallSampleWarning(UserWarning):
    """A score was computed from fewer samples than its usual protocol asks for, or left out for want of samples."""


class MeanStd(NamedTuple):
    """A score averaged over subsets or splits."""

    mean: Tensor  # ()
    std: Tensor  # () population standard deviation over the subsets or splits, not an error of the mean


def check_matrix(values: Tensor, what: str, width: int | None = None) -> None:
    """Raise unless ``values`` is a finite floating-point matrix.

    Args:
        values: what a user handed in, to be of shape ``(N, D)``.
        what: its name in the message, such as "features".
        width: the required D, when it is known.

    Raises:
        ValueError: with the shape, the type or the number of non-finite rows got.
    """
    if values.ndim != 2 or (width is not None and values.shape[1] != width):
        raise ValueError(
            f"{what} must have shape (N, {'D' if width is None else width}), got {tuple(values.shape)}: "
            "one row for each image, from the same extractor in every update"
        )
    if not values.is_floating_point():
        raise ValueError(f"{what} must be floating point, got {values.dtype}")
    broken = int((~values.isfinite()).any(dim=1).sum())
    if broken:
        raise ValueError(
            f"{broken} of {len(values)} rows of {what} hold NaN or infinity: look at the images they come from, "
            "a diverged model's samples are often NaN"
        )


def check_sample_counts(num_real: int, num_generated: int, minimum: int, metric: str) -> None:
    """Raise ValueError unless ``metric`` has seen at least ``minimum`` samples of each side."""
    if min(num_real, num_generated) < minimum:
        raise ValueError(
            f"{metric} needs at least {minimum} real and {minimum} generated samples, got {num_real} real and "
            f"{num_generated} generated: call update with both sides before compute, or take more samples"
        )


class FeatureMetric(Metric):
    """Base of the metrics that keep the features of both sides until ``compute``.

    Several such metrics fed with the same tensors share their memory. The states are concatenated over processes;
    each process must have seen at least one batch of each side.

    Args:
        reset_real_features: if False, ``reset`` keeps the real side, which usually does not change between evaluations.
    """

    is_differentiable = False
    full_state_update = False

    real_features: list[Tensor]
    generated_features: list[Tensor]

    def __init__(self, reset_real_features: bool = True) -> None:
        super().__init__()
        self.reset_real_features = reset_real_features
        # "cat", not torchmetrics' usual None: without it ranks with unlike numbers of batches wait for each other.
        self.add_state("real_features", [], dist_reduce_fx="cat")
        self.add_state("generated_features", [], dist_reduce_fx="cat")

    def update(self, features: Tensor, real: bool) -> None:
        """Add a batch.

        Args:
            features: ``(N, D)``, finite.
            real: whether they belong to real images or to generated ones.

        Raises:
            ValueError: if the features are not a finite matrix with the D of the batches before.
        """
        kept = self.real_features + self.generated_features
        check_matrix(features, "features", width=kept[0].shape[1] if kept else None)
        (self.real_features if real else self.generated_features).append(features.detach())

    def both_sides(self, minimum: int) -> tuple[Tensor, Tensor]:
        """Return all real ``(N, D)`` and all generated ``(M, D)`` features in float64.

        Raises:
            ValueError: if either side has fewer than ``minimum`` samples.
        """
        real, generated = (
            dim_zero_cat(side).double() if len(side) else torch.empty(0, 0, dtype=torch.float64)
            for side in (self.real_features, self.generated_features)
        )
        check_sample_counts(len(real), len(generated), minimum, type(self).__name__)
        return real, generated

    def reset(self) -> None:
        """Forget the generated side, and the real one unless ``reset_real_features`` is False."""
        kept = [] if self.reset_real_features else list(self.real_features)
        super().reset()
        self.real_features = kept
