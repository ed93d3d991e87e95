"""The birthday test, on samples of a support that is known."""

import math

import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import poisson

from lit_gen.metrics import birthday_test, duplicate_radius


@pytest.mark.parametrize("support", [50, 2000, 20_000])
def test_support_of_equally_likely_images(support):
    images = torch.randn(support, 20)
    found = birthday_test(images[torch.randint(support, (1000,))], radius=1e-6)
    expected = 1000 * 999 / 2 / support  # pairs; their number is nearly that of a Poisson variable
    assert abs(found.pairs - expected) < 5 * math.sqrt(expected)
    assert found.support == 1000 * 999 / 2 / found.pairs
    assert found.support_at_least < support


def test_of_images_that_are_not_equally_likely_it_tells_the_effective_number():
    probabilities = torch.tensor([0.5, 0.2, 0.1, 0.1, 0.1])
    drawn = torch.multinomial(probabilities, 2000, replacement=True)
    found = birthday_test(torch.eye(5)[drawn], radius=0.1)
    assert found.support == pytest.approx(1 / probabilities.square().sum().item(), rel=0.05)
    assert found.duplicates == 1


def test_pairs_agree_with_scipy():
    samples = torch.randn(200, 3)
    distances = pdist(samples.double().numpy())
    for radius in (0.0, 0.2, 0.5, 2.0):
        assert birthday_test(samples, radius).pairs == (distances <= radius).sum()


def test_no_pairs_still_say_how_many_there_are_at_least():
    found = birthday_test(10 * torch.arange(300.0)[:, None], radius=1.0)
    assert (found.pairs, found.duplicates, found.support) == (0, 0.0, math.inf)
    expected_pairs = 300 * 299 / 2 / found.support_at_least
    assert poisson.pmf(0, expected_pairs) == pytest.approx(0.05)


def test_the_radius_is_half_the_way_to_the_nearest():
    assert duplicate_radius(torch.tensor([[0.0], [1.0], [3.0], [7.0], [8.5]])) == pytest.approx(0.75)
    images = torch.rand(400, 10)
    assert birthday_test(images, duplicate_radius(images)).support > 20_000, "images are no duplicates of each other"


def test_bad_input():
    with pytest.raises(ValueError, match="samples must have at least 2 rows, got 1"):
        birthday_test(torch.rand(1, 3), 0.1)
    with pytest.raises(ValueError, match=r"radius must not be negative, got -1"):
        birthday_test(torch.rand(2, 3), -1.0)
    with pytest.raises(ValueError, match="real must have at least 2 rows, got 1"):
        duplicate_radius(torch.rand(1, 3))
    with pytest.raises(ValueError, match="samples hold NaN"):
        birthday_test(torch.full((2, 3), math.nan), 0.1)
