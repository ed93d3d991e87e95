"""Visible layers against sums over all their states."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_gen.networks import BernoulliVisible, CategoricalVisible, GaussianVisible, VisibleLayer
from lit_gen.networks.softmax import LabelledVisible, RepeatedLabel

LAYERS: dict[str, Any] = {
    "bernoulli": lambda: BernoulliVisible((1, 1, 4)),
    "gaussian": lambda: GaussianVisible((1, 1, 4)),
    "categorical": lambda: CategoricalVisible((1, 1, 4), levels=3),
    "labelled": lambda: LabelledVisible(BernoulliVisible((1, 1, 4)), 3),
    "labelled-twice": lambda: LabelledVisible(BernoulliVisible((1, 1, 4)), 3, copies=2),
    "labelled-gaussian": lambda: LabelledVisible(GaussianVisible((1, 1, 4)), 3),
}


def pixels(count: int) -> Tensor:
    """Black and white images of independent pixels."""
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.tensor([0.2, 0.5, 0.9, 0.4], dtype=torch.float64).expand(count, -1)
    return torch.bernoulli(probabilities, generator=generator)


def units(visible: VisibleLayer, images: Tensor) -> Tensor:
    if not isinstance(visible, LabelledVisible):
        return visible.encode(images)
    labels = torch.arange(len(images)) % 3
    copies = visible.label.copies if isinstance(visible.label, RepeatedLabel) else 1
    return visible.join(visible.image.encode(images), copies * torch.eye(3, dtype=torch.float64)[labels])


@pytest.mark.parametrize("name", LAYERS)
def test_visible_layers_are_exponential_families(name: str) -> None:
    """energy, log_partition and the natural parameters say the same, and independent pixels fit their data."""
    torch.manual_seed(0)
    visible = LAYERS[name]().double()
    data = units(visible, pixels(3000))
    mean, variance = data.mean(0), data.var(0, correction=0)
    visible.initialize(mean, variance, 10**9)
    values = data[:3]
    field = torch.randn(3, visible.num_units, dtype=torch.float64)
    joint = (visible.scale(values) * field).sum(1) - visible.energy(values) - visible.log_partition(field)
    natural = visible.natural(field)
    products = [(eta * part).sum(1) for eta, part in zip(natural, visible.statistics(values), strict=True)]
    torch.testing.assert_close(sum(products) - visible.log_normalizer(natural), joint)
    free = visible.natural(torch.zeros(visible.num_units, dtype=torch.float64))
    torch.testing.assert_close(visible.mean(free), mean, rtol=0, atol=1e-8)
    draws = visible.sample(tuple(eta.expand(100_000, -1) for eta in free))
    torch.testing.assert_close(draws.mean(0), mean, rtol=0, atol=0.01)
    torch.testing.assert_close(draws.var(0), variance, rtol=0.03, atol=1e-6)


def all_images(levels: int, count: int) -> Tensor:
    grey = [step / (levels - 1) for step in range(levels)]
    return torch.tensor(list(itertools.product(grey, repeat=count)), dtype=torch.float64)


def test_log_partition_of_categorical_pixels_is_the_sum_over_all_images() -> None:
    visible = CategoricalVisible((1, 1, 3), levels=4).double()
    torch.nn.init.normal_(visible.bias)
    field = torch.randn(1, 12, dtype=torch.float64)
    states = visible.encode(all_images(4, 3))
    expected = torch.logsumexp((states * field).sum(1) - visible.energy(states), 0)
    torch.testing.assert_close(visible.log_partition(field)[0], expected)


def test_grey_levels_there_and_back() -> None:
    visible = CategoricalVisible((1, 1, 3), levels=4)
    images = all_images(4, 3).float()
    states = visible.encode(images)
    assert states.shape == (64, 12)
    assert (states.unflatten(1, (3, 4)).sum(2) == 1).all()
    torch.testing.assert_close(visible.decode(states), images)
    assert torch.equal(visible.encode(images + 0.1), states), "the nearest level"
    assert visible.encode(torch.tensor([[0.2, 0.5, 1.0]])).argmax() == 1
    # A constant for all levels of a pixel leaves its distribution alone, and so the picture of it.
    weight = torch.randn(12, 5)
    shifted = weight + torch.randn(3, 1, 5).expand(3, 4, 5).reshape(12, 5)
    torch.testing.assert_close(visible.filters(shifted), visible.filters(weight))
    slope = torch.linspace(0, 1, 4).repeat(3)[:, None] * torch.tensor([2.0, -1.0])
    torch.testing.assert_close(visible.filters(slope), torch.tensor([[2.0] * 3, [-1.0] * 3]))
    with pytest.raises(ValueError, match="levels must be at least 2, got 1"):
        CategoricalVisible((1, 1, 3), levels=1)
