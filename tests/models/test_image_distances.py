"""Distances that weigh the same whatever the scale: of pixels, of features, of sizes."""

import pytest
import torch
from torch import Tensor

from lit_gen.models import FeatureDistance, ImageDistance, PixelDistance, SumOfDistances
from lit_gen.networks import Comparator, ExemplarComparator, RandomComparator, Shape

SHAPE: Shape = (1, 8, 8)


class Scaled(Comparator):
    """Features of any scale: those of random convolutions, times a number."""

    def __init__(self, image_shape: Shape, scale: float = 1.0) -> None:
        super().__init__(image_shape)
        self.scale = scale
        self.inner = RandomComparator(image_shape, [4, 8])
        self.freeze()

    def layers(self, images: Tensor) -> list[Tensor]:
        return [self.scale * layer for layer in self.inner.layers(images)]


def started(distance: ImageDistance, images: Tensor) -> ImageDistance:
    distance.start(lambda count: images[:count])
    return distance


def test_the_scale_of_pixels_does_not_matter() -> None:
    images, others = torch.rand(50, *SHAPE), torch.rand(50, *SHAPE)
    ours = started(PixelDistance(SHAPE), images)(others, images)
    for scale in (255.0, 1 / 127.5):
        scaled = started(PixelDistance(SHAPE), scale * images)
        torch.testing.assert_close(scaled(scale * others, scale * images), ours)


def test_the_scale_of_features_does_not_matter() -> None:
    images, others = torch.rand(50, *SHAPE), torch.rand(50, *SHAPE)
    distances = [
        started(FeatureDistance(SHAPE, lambda shape, k=scale: Scaled(shape, k), [0, 1]), images)(others, images)
        for scale in (1.0, 300.0)
    ]
    torch.testing.assert_close(*distances)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 20)])
@pytest.mark.parametrize("kind", [PixelDistance, lambda shape: FeatureDistance(shape, Scaled)])
def test_the_size_of_images_does_not_matter(kind: type[ImageDistance], shape: Shape) -> None:
    images = torch.rand(400, *shape)
    distance = started(kind(shape), images)
    assert distance(images, images).abs().max() == 0
    assert distance(images.roll(1, 0), images).mean().item() == pytest.approx(2, rel=0.02)


def test_the_plain_distance_is_that_of_caffe() -> None:
    images, others = torch.rand(3, *SHAPE), torch.rand(3, *SHAPE)
    plain = started(PixelDistance(SHAPE, normalize=False), images)(images, others)
    expected = [0.5 * float(((a - b) ** 2).sum()) for a, b in zip(images, others, strict=True)]
    assert plain.tolist() == pytest.approx(expected, rel=1e-5)


def test_gradients_go_to_the_images_alone() -> None:
    images, targets = (torch.rand(4, *SHAPE, requires_grad=True) for _ in range(2))
    distance = started(FeatureDistance(SHAPE, Scaled), torch.rand(20, *SHAPE))
    distance(images, targets).sum().backward()
    assert targets.grad is None
    assert all(weight.grad is None for weight in distance.parameters())
    # Against finite differences of one pixel.
    step = torch.zeros_like(images)
    step[0, 0, 3, 3] = 1e-3
    with torch.no_grad():
        slope = (distance(images + step, targets) - distance(images - step, targets)).sum() / 2e-3
    assert float(images.grad[0, 0, 3, 3]) == pytest.approx(float(slope), rel=0.02, abs=1e-3)


def test_a_start_teaches_the_comparator_first_and_happens_once() -> None:
    images = torch.rand(40, *SHAPE)

    def exemplar(shape: Shape) -> ExemplarComparator:
        return ExemplarComparator(shape, [4], 5, exemplars=10, steps=3, batch_size=4)

    distance = started(FeatureDistance(SHAPE, exemplar, [-1, 0]), images)
    spread = distance.layers(images)[0].var(0, correction=0).sum()
    torch.testing.assert_close(distance.spreads[0], spread)
    before = distance.spreads.clone()
    assert torch.equal(started(distance, images[:5]).spreads, before)


def test_a_layer_that_never_changes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"is the same for all training images \(layers \[0\]\)"):
        started(PixelDistance(SHAPE), torch.zeros(5, *SHAPE))


def test_unknown_layers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"layers must be numbers from -2 to 1, which Scaled has; got \[2\]"):
        FeatureDistance(SHAPE, Scaled, [2])


def test_a_sum_weighs_its_parts_and_starts_each() -> None:
    images, others = torch.rand(50, *SHAPE), torch.rand(50, *SHAPE)
    both = SumOfDistances(SHAPE, [PixelDistance, lambda shape: FeatureDistance(shape, Scaled)], [2.0, 0.5])
    parts = [started(PixelDistance(SHAPE), images), started(FeatureDistance(SHAPE, Scaled), images)]
    found = started(both, images)(others, images)
    torch.testing.assert_close(found, 2 * parts[0](others, images) + 0.5 * parts[1](others, images))
    with pytest.raises(
        ValueError, match=r"each distance needs a weight above 0, got 1 distances and weights \[1.0, 2.0\]"
    ):
        SumOfDistances(SHAPE, [PixelDistance], [1.0, 2.0])
    with pytest.raises(ValueError, match="each distance needs a weight above 0"):
        SumOfDistances(SHAPE, [PixelDistance], [0.0])
