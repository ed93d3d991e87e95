"""Moments of codes that are followed batch by batch."""

import numpy as np
import pytest
import torch
from torch.distributions import Independent, MultivariateNormal

from lit_gen.networks import RunningMoments


def test_first_batches_count_alike() -> None:
    moments, codes = RunningMoments(3), torch.randn(50, 10, 3) @ torch.randn(3, 3) + torch.randn(50, 1, 3)
    for batch in codes:
        moments.update(batch)
    # As many as decay forgets: 50 batches weigh the same.
    pooled = codes.reshape(-1, 3).double().numpy()
    np.testing.assert_allclose(moments.mean, pooled.mean(0), atol=1e-5)
    np.testing.assert_allclose(moments.covariance, np.cov(pooled.T, bias=True), rtol=1e-4, atol=1e-4)


def test_later_batches_count_by_the_decay() -> None:
    moments = RunningMoments(2, decay=0.5)
    batches = torch.randn(6, 7, 2)
    weights = np.array([0.5**5, 0.5**5, 0.5**4, 0.5**3, 0.5**2, 0.5])
    for batch in batches:
        moments.update(batch)
    values = batches.double().numpy()
    mean = np.einsum("b,bij->j", weights, values) / 7
    square = np.einsum("b,bij,bik->jk", weights, values, values) / 7
    np.testing.assert_allclose(moments.mean, mean, atol=1e-6)
    np.testing.assert_allclose(moments.covariance, square - np.outer(mean, mean), atol=1e-5)


@pytest.mark.parametrize("dim", [64, 2000])
def test_codes_that_hardly_differ_and_lie_far_from_zero(dim: int) -> None:
    moments = RunningMoments(dim)
    for _ in range(3):
        moments.update(1000 + 0.01 * torch.randn(8, dim))
    drawn = moments.distribution()
    assert isinstance(drawn, MultivariateNormal if dim == 64 else Independent)
    assert 0.005 < float(drawn.stddev.mean()) < 0.02
