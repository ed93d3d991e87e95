"""Fréchet (Inception) distance.

Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter: GANs Trained by a Two Time-Scale Update Rule Converge to a Local
Nash Equilibrium, NeurIPS 2017, https://arxiv.org/abs/1706.08500.
"""

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.utilities import rank_zero_warn

from lit_gen.metrics.base import SmallSampleWarning, check_matrix, check_sample_counts


def frechet_distance(mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor) -> Tensor:
    r"""Squared Wasserstein-2 distance of two Gaussians.

    .. math:: \|\mu_1 - \mu_2\|^2 + \mathrm{Tr}\left(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2}\right)

    With :math:`\Sigma_i = L_i L_i^T` the trace of the root is the nuclear norm of :math:`L_1^T L_2`. Unlike a root of
    the product, which is not symmetric, that is real and accurate for singular covariances too.

    Args:
        mean1: ``(D,)``.
        covariance1: ``(D, D)``, symmetric positive semi-definite.
        mean2: ``(D,)``.
        covariance2: ``(D, D)``, symmetric positive semi-definite.

    Returns:
        The distance ``()``, not negative.

    Example:
        >>> import torch
        >>> zero, one = torch.zeros(3), torch.ones(3)
        >>> distance = frechet_distance(zero, torch.eye(3), one, 4 * torch.eye(3))  # 3 * 1 + 3 * (1 - 2)^2
        >>> round(distance.item(), 4)
        6.0
    """
    root_product = _factor(covariance1).mT @ _factor(covariance2)
    trace_root = torch.linalg.svdvals(root_product).sum()
    distance = (mean1 - mean2).square().sum() + covariance1.trace() + covariance2.trace() - 2 * trace_root
    return distance.clamp(min=0)  # what is below zero is rounding


def _factor(covariance: Tensor) -> Tensor:
    """Return L ``(D, rank)`` with L Lᵀ = covariance."""
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance)
    rounding = eigenvalues[-1] * len(eigenvalues) * torch.finfo(eigenvalues.dtype).eps
    kept = eigenvalues > rounding.clamp(min=0)
    return eigenvectors[:, kept] * eigenvalues[kept].sqrt()


class _PassOn(nn.Identity):
    """The feature network that the parent class asks for: features arrive ready."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


class FID(FrechetInceptionDistance):
    """Fréchet distance between the Gaussians fitted to real and generated features; lower is better.

    It takes features instead of images, so that one pass of an extractor serves several metrics. torchmetrics' class
    gives the states (float64 sums, constant memory, exact over processes); the distance itself is ``frechet_distance``.
    The estimate is biased upwards, for unit Gaussian features by about 2 D / N + D (D + 1) / (2 N): compare only scores
    with equal N.

    Args:
        num_features: D, the width of the features.
        reset_real_features: if False, ``reset`` keeps the real side, which usually does not change between evaluations.

    Raises:
        ValueError: if ``num_features`` is not positive.

    Example:
        >>> import torch
        >>> fid = FID(num_features=1)
        >>> fid.update(torch.tensor([[0.0], [2.0]]), real=True)
        >>> fid.update(torch.tensor([[3.0], [5.0]]), real=False)
        >>> round(fid.compute().item(), 6)
        9.0
    """

    def __init__(self, num_features: int, reset_real_features: bool = True) -> None:
        if num_features < 1:
            raise ValueError(f"num_features must be at least 1, got {num_features}")
        super().__init__(feature=_PassOn(num_features), reset_real_features=reset_real_features)
        self.num_features = num_features

    def update(self, features: Tensor, real: bool) -> None:
        """Add a batch.

        Args:
            features: ``(N, D)``, finite.
            real: whether they belong to real images or to generated ones.

        Raises:
            ValueError: if the features are not a finite matrix of width ``num_features``.
        """
        check_matrix(features, "features", width=self.num_features)
        super().update(features, real)

    def compute(self) -> Tensor:
        """Return the distance ``()`` in float64; warn if either side has fewer samples than features.

        Raises:
            ValueError: if either side has fewer than two samples.
        """
        num_real, num_generated = int(self.real_features_num_samples), int(self.fake_features_num_samples)
        check_sample_counts(num_real, num_generated, minimum=2, metric="FID")
        if min(num_real, num_generated) <= self.num_features:
            rank_zero_warn(
                f"FID from {num_real} real and {num_generated} generated samples of {self.num_features} features: a "
                "covariance of N samples has at most rank N - 1, so the score is far too high. KID has no such bias: "
                f"use it, or take many more than {self.num_features} samples of each side",
                SmallSampleWarning,
            )
        real = _gaussian(self.real_features_sum, self.real_features_cov_sum, num_real)
        generated = _gaussian(self.fake_features_sum, self.fake_features_cov_sum, num_generated)
        return frechet_distance(*real, *generated)


def _gaussian(total: Tensor, second_moment: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return mean ``(D,)`` and sample covariance (over N - 1) ``(D, D)`` from the sums of x and of x xᵀ."""
    mean = total / count
    return mean, (second_moment - count * torch.outer(mean, mean)) / (count - 1)
