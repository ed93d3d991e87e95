"""The Parzen estimate of a pyramid is a density of the image."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from lit_gen.inference import Downsampling, Windows, conditional_parzen, parzen_log_likelihood
from lit_gen.models.pyramid_likelihood import downsampling, pixels, pyramid_log_likelihood
from lit_gen.networks.laplacian import resize

SIZES = [(6, 5), (4, 3), (2, 2)]
SIGMAS = [0.3, 0.5, 0.9]


def test_means_of_blocks_cost_what_their_orthonormal_basis_does() -> None:
    # Means of 2x2 pixels are half the coordinates in an orthonormal basis: log(1/2) for each of 4 x 3 of them.
    halves = [torch.eye(count, dtype=torch.float64).repeat_interleave(2, 1) / 2 for count in (4, 3)]
    down = Downsampling(*halves)
    assert down.log_volume == pytest.approx(12 * math.log(0.5))
    images = torch.rand(2, 1, 8, 6, dtype=torch.float64)
    missing = down.missing(images)
    assert torch.nn.functional.avg_pool2d(missing, 2).abs().max() < 1e-12
    means = torch.nn.functional.avg_pool2d(images, 2)
    torch.testing.assert_close(images - missing, means.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_one_kernel_at_every_level_is_a_normal_density() -> None:
    """With one sample at each level p(I) is normal, with a covariance that dense matrices give."""
    torch.manual_seed(0)
    images = torch.rand(5, 1, *SIZES[0], dtype=torch.float64)
    levels = [images]
    for size in SIZES[1:]:
        levels.append(resize(levels[-1], size))
    means = [torch.rand(1, 1, *size, dtype=torch.float64) for size in SIZES]
    sigma = 0.4
    found = pyramid_log_likelihood(
        [(2 * level - 1, number) for number, level in enumerate(levels)],
        None,
        lambda part, number: (2 * means[number] - 1).expand(part.shape),
        shared=True,
        num_samples=1,
        num_residuals=1,
        sigmas=3 * [[sigma]],
        max_rows=2,
        progress=iter,
    )
    # From the coarsest level on: I_k = d^+ I_k+1 + N c, where N spans the kernel of d and c is normal.
    mean, covariance = means[-1].flatten(), sigma**2 * torch.eye(4, dtype=torch.float64)
    for number, (large, small) in reversed(list(enumerate(pairwise(SIZES)))):
        pixel_count = math.prod(large)
        basis = torch.eye(pixel_count, dtype=torch.float64).view(pixel_count, 1, *large)
        down = resize(basis, small).flatten(1).T
        inverse = torch.linalg.pinv(down)
        kernel = torch.eye(pixel_count, dtype=torch.float64) - inverse @ down
        mean = inverse @ mean + kernel @ means[number].flatten()
        covariance = inverse @ covariance @ inverse.T + sigma**2 * kernel
    expected = MultivariateNormal(mean, covariance).log_prob(images.flatten(1))
    torch.testing.assert_close(found.log_likelihoods, expected, rtol=0, atol=1e-8)
    assert found.log_likelihood == pytest.approx(expected.mean().item())
    assert len(found.levels) == 3
    assert len(found.log_volumes) == 2


def test_windows_shared_by_all_points_are_the_published_estimate() -> None:
    torch.manual_seed(0)
    points, validation, samples = (torch.rand(count, 7, dtype=torch.float64) for count in (9, 8, 30))

    def shared(points: Tensor) -> Windows:
        return Windows(points, lambda first, last: samples.expand(last - first, -1, -1))

    ours = conditional_parzen(shared(points), shared(validation), 7, SIGMAS, max_rows=4)
    theirs = parzen_log_likelihood(points, samples, validation, SIGMAS)
    assert ours.sigma == theirs.sigma
    torch.testing.assert_close(ours.log_likelihoods, theirs.log_likelihoods)


def test_centres_belong_to_their_points() -> None:
    points = torch.arange(5.0)[:, None]
    at_home = conditional_parzen(Windows(points, lambda first, last: points[first:last, None]), None, 1, [0.1], 2)
    expected = torch.full((5,), -math.log(0.1 * math.sqrt(2 * math.pi)), dtype=torch.float64)
    torch.testing.assert_close(at_home.log_likelihoods, expected)


def test_matrices_are_those_of_the_pyramid() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 28, 20, dtype=torch.float64)
    down = downsampling((28, 20), (14, 10), torch.device("cpu"))
    assert resize(down.missing(images), (14, 10)).abs().max() < 1e-12
    assert pixels(torch.tensor([-1.0, 1.0])).tolist() == [0, 1]


def test_mistakes_are_named() -> None:
    windows = Windows(torch.zeros(2, 1), lambda first, last: torch.zeros(last - first, 1, 1))
    with pytest.raises(ValueError, match="got 3 sigmas and no validation images"):
        conditional_parzen(windows, None, 1, SIGMAS)
    with pytest.raises(ValueError, match="sigmas must be positive"):
        conditional_parzen(windows, None, 1, [0.0])
