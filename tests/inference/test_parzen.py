"""The Parzen window against scipy and a closed form."""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import norm

from lit_gen.inference import parzen_log_likelihood
from lit_gen.inference.parzen import GRID


@pytest.mark.parametrize("max_rows", [1, 3, 500])
def test_direct_computation(max_rows: int) -> None:
    images, samples = torch.rand(7, 1, 2, 3).double(), torch.rand(20, 1, 2, 3).double()
    seen: list[int] = []

    def watch(parts: range) -> range:
        seen.extend(parts)
        return parts

    ours = parzen_log_likelihood(images, samples, sigmas=[0.2], max_rows=max_rows, progress=watch)
    x, y = images.flatten(1).numpy(), samples.flatten(1).numpy()
    theirs = logsumexp(norm.logpdf(x[:, None], y[None], 0.2).sum(2), axis=1) - math.log(20)
    np.testing.assert_allclose(ours.log_likelihoods.numpy(), theirs, atol=1e-11)
    assert ours.log_likelihood == pytest.approx(theirs.mean())
    assert ours.standard_error == pytest.approx(theirs.std(ddof=1) / math.sqrt(7))
    assert len(seen) == math.ceil(7 / max_rows)


def test_many_samples_are_the_density_convolved_with_the_kernel() -> None:
    samples = 0.5 + 0.3 * torch.randn(100_000, 2)
    images = torch.tensor([[0.5, 0.5], [0.2, 1.0], [0.9, 0.4]])
    ours = parzen_log_likelihood(images, samples, sigmas=[0.4])
    exact = norm.logpdf(images.numpy(), 0.5, math.hypot(0.3, 0.4)).sum(1)
    np.testing.assert_allclose(ours.log_likelihoods.numpy(), exact, atol=0.02)


def test_far_images_and_many_dimensions_stay_finite() -> None:
    """exp(-784 / 2 / 0.01) is zero in any precision."""
    found = parzen_log_likelihood(torch.ones(2, 784), torch.zeros(3, 784), sigmas=[0.1]).log_likelihoods
    expected = 784 * norm.logpdf(1.0, 0.0, 0.1)
    assert found.dtype is torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_sigma_is_chosen_on_validation_images() -> None:
    samples, validation, images = torch.randn(3, 50, 4).double().mul(0.3).unbind(0)
    ours = parzen_log_likelihood(images, samples, validation, max_rows=20)
    means = [parzen_log_likelihood(validation, samples, sigmas=[sigma]).log_likelihood for sigma in GRID]
    assert ours.sigma == GRID[int(np.argmax(means))]
    assert GRID[0] < ours.sigma < GRID[-1]
    alone = parzen_log_likelihood(images, samples, sigmas=[ours.sigma])
    torch.testing.assert_close(ours.log_likelihoods, alone.log_likelihoods)
    # The image itself is the worst judge: as a sample it would choose the narrowest kernel.
    assert parzen_log_likelihood(images, samples, samples).sigma == GRID[0]


def test_mistakes_are_told() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="10 sigmas and no validation"):
        parzen_log_likelihood(x, x)
    for sigmas in ([], [0.0], [0.1, -1.0]):
        with pytest.raises(ValueError, match="must be positive"):
            parzen_log_likelihood(x, x, x, sigmas)
    with pytest.raises(ValueError, match=r"shape \(3,\) and samples of shape \(4,\)"):
        parzen_log_likelihood(x, torch.zeros(2, 4), sigmas=[0.1])
