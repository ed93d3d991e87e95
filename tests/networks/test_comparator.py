"""Comparators: frozen, in eval mode, transparent to gradients; one learns once and tolerates shifts."""

import pytest
import torch
from torch import Tensor

from lit_gen.data import Digits
from lit_gen.networks import Comparator, ExemplarComparator, RandomComparator, Shape
from lit_gen.objectives import shift

SHAPE: Shape = (1, 8, 8)


def exemplar() -> ExemplarComparator:
    return ExemplarComparator(SHAPE, [8, 16], 32, exemplars=30, steps=200, batch_size=64, learning_rate=5e-3)


@pytest.fixture(scope="module")
def digits() -> Tensor:
    images, _ = next(iter(Digits(batch_size=200).train_dataloader()))
    return images


@pytest.fixture(scope="module")
def taught(digits: Tensor) -> ExemplarComparator:
    comparator = exemplar()
    comparator.start(lambda count: digits[:count])
    return comparator


def test_it_is_frozen_and_lets_gradients_through(taught: ExemplarComparator) -> None:
    for comparator in (taught, RandomComparator(SHAPE)):
        comparator.train()
        assert not any(part.training for part in comparator.modules())
        images = torch.rand(3, *SHAPE, requires_grad=True)
        comparator.layers(images)[-1].square().sum().backward()
        assert images.grad is not None
        assert images.grad.abs().sum() > 0
        assert all(weight.grad is None and not weight.requires_grad for weight in comparator.parameters())


@pytest.mark.parametrize(
    ("shape", "shapes"),
    [((1, 8, 8), [(32, 4, 4), (64, 2, 2)]), ((3, 28, 20), [(32, 14, 10), (64, 7, 5), (128, 3, 2)])],
)
def test_layers_halve_images_of_any_size(shape: Shape, shapes: list[Shape]) -> None:
    assert RandomComparator(shape).layer_shapes() == shapes
    assert ExemplarComparator(shape, num_features=9).layer_shapes() == [*shapes, (9,)]


def test_it_learns_to_tell_images_apart_and_only_once(digits: Tensor, taught: ExemplarComparator) -> None:
    assert float(taught.accuracy) > 10 / 30, "chance is 1/30"
    before = {name: value.clone() for name, value in taught.state_dict().items()}
    taught.start(lambda count: digits[-count:])
    assert all(torch.equal(value, before[name]) for name, value in taught.state_dict().items())


def test_learning_leaves_no_trace_in_other_random_numbers(digits: Tensor, taught: ExemplarComparator) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    comparator = exemplar()
    comparator.start(lambda count: digits[:count])
    assert torch.equal(torch.rand(3), expected)
    for name, value in comparator.state_dict().items():
        assert torch.equal(value, taught.state_dict()[name]), "another seed of the run gives another comparator"


def test_the_higher_the_layer_the_less_it_notices_a_shift(digits: Tensor, taught: ExemplarComparator) -> None:
    def noticed(values: Tensor, moved: Tensor) -> float:
        """Distance to the same image moved by a pixel, relative to that of another image."""
        values, moved = values.flatten(1), moved.flatten(1)
        return float((values - moved).square().sum() / (values - values.roll(1, 0)).square().sum())

    moved = shift(digits, 0, 1)
    pixels = noticed(digits, moved)
    layers = [noticed(*pair) for pair in zip(taught.layers(digits), taught.layers(moved), strict=True)]
    assert pixels > layers[0] > layers[1] > layers[2]
    assert layers[2] < 0.25 < 0.8 < pixels


def test_transformed_images_stay_images(digits: Tensor) -> None:
    torch.manual_seed(0)
    images = exemplar().transform(digits)
    assert images.shape == digits.shape
    assert images.min() >= 0
    assert images.max() <= 1
    assert ((images - digits).abs().flatten(1).amax(1) > 0.05).all()


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"cannot be halved by 4 layers; give 1 to 3 entries"):
        RandomComparator(SHAPE, [4, 4, 4, 4])
    with pytest.raises(ValueError, match="a comparator takes images"):
        RandomComparator((1, 8, 8, 8))
    with pytest.raises(ValueError, match="exemplars must be at least 2, got 1"):
        ExemplarComparator(SHAPE, exemplars=1)


def test_a_comparator_is_any_network_with_layers() -> None:
    class Blur(Comparator):
        def layers(self, images: Tensor) -> list[Tensor]:
            return [torch.nn.functional.avg_pool2d(images, 2)]

    torch.testing.assert_close(Blur(SHAPE).layers(torch.ones(1, *SHAPE))[0], torch.ones(1, 1, 4, 4))
