"""Distances between images, injected into models as factories: the parts of a perceptual similarity.

Dosovitskiy & Brox 2016, Generating images with perceptual similarity metrics based on deep networks
(https://arxiv.org/abs/1602.02644), equations 2 and 4.

The published weights of these terms belong to pixels from 0 to 255 and to the activations of one network. Here each
distance is measured in units of its own spread over the training images, so that weights mean the same for any scale of
pixels, any size of image and any comparator.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor, nn

from lit_gen.networks import (
    Comparator,
    ComparatorFactory,
    ExemplarComparator,
    Recorded,
    Shape,
    TrainingImages,
    build,
    full_precision,
)
from lit_gen.objectives import half_squares, unexplained

STATISTICS_IMAGES = 1000
"""Training images by which spreads are measured."""


class ImageDistance(Recorded, nn.Module, ABC):
    """How unlike images are.

    Args:
        image_shape: ``(C, H, W)``.
    """

    sizes = 1

    def __init__(self, image_shape: Shape) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)

    @abstractmethod
    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Distance of each image from its target, ``(B,)``; gradients go to the images alone."""

    @abstractmethod
    def start(self, training_images: TrainingImages) -> None:
        """Called when a training starts: what is learned or measured of the data is so once in the distance's life."""


class LayerDistance(ImageDistance):
    """Squared differences of one or more layers of values; a subclass gives :meth:`layers`.

    Args:
        image_shape: ``(C, H, W)``.
        normalize: give the squared differences as a share of the variance of the training images, averaged over layers:
            0 for equal images, 1 on average for their mean in place of each, 2 for another image. Otherwise half the
            sum of squares of all layers, which is Caffe's and what published weights belong to.
    """

    spreads: Tensor
    measured: Tensor

    def __init__(self, image_shape: Shape, num_layers: int, normalize: bool = True) -> None:
        super().__init__(image_shape)
        self.normalize = normalize
        # 1 until a training has shown images: an untrained distance is finite, and means nothing.
        self.register_buffer("spreads", torch.ones(num_layers))
        self.register_buffer("measured", torch.tensor(False))

    @abstractmethod
    def layers(self, images: Tensor) -> list[Tensor]:
        """What is compared: ``(B, C, H, W)`` in [0, 1] -> ``(B, ...)`` each."""

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = [full_precision(layer) for layer in self.layers(targets)]
        found = [full_precision(layer) for layer in self.layers(images)]
        if self.normalize:
            return unexplained(found, wanted, self.spreads)
        return torch.stack([half_squares(*pair) for pair in zip(found, wanted, strict=True)]).sum(0)

    @torch.no_grad()
    def start(self, training_images: TrainingImages) -> None:
        """Measure the spread of each layer over training images, once in the life of the distance.

        Raises:
            ValueError: a layer is the same for all training images.
        """
        if bool(self.measured):
            return
        parts = [self.layers(part) for part in training_images(STATISTICS_IMAGES).split(100)]
        for number, batches in enumerate(zip(*parts, strict=True)):
            values = torch.cat([full_precision(batch) for batch in batches]).flatten(1).double()
            self.spreads[number] = values.var(0, correction=0).sum()
        if not bool((self.spreads > 0).all()):
            raise ValueError(
                f"what {type(self).__name__} compares is the same for all training images (layers"
                f" {(self.spreads <= 0).nonzero().flatten().tolist()}): no distance can be measured by it. Take other"
                " layers, or another comparator"
            )
        self.measured.fill_(True)


class PixelDistance(LayerDistance):
    """Squared differences of pixels (equation 4 of the paper).

    Args:
        image_shape: ``(C, H, W)``.
        normalize: as a share of the variance of the training images; otherwise half the sum of squares.
    """

    def __init__(self, image_shape: Shape, normalize: bool = True) -> None:
        super().__init__(image_shape, 1, normalize)

    def layers(self, images: Tensor) -> list[Tensor]:
        return [images]


class FeatureDistance(LayerDistance):
    """Squared differences of what a frozen comparator sees (equation 2 of the paper).

    Args:
        image_shape: ``(C, H, W)``.
        comparator: network whose layers are compared. The default learns from the training images when a training
            starts; ``ClassifierComparator`` is a classifier of this package, ``TorchvisionComparator`` a network
            trained on ImageNet.
        layers: numbers of the layers, from the lowest; negative ones count from the top.
        normalize: as a share of the variance of the training images; otherwise half the sum of squares.

    Raises:
        ValueError: the comparator has no such layer.
    """

    def __init__(
        self,
        image_shape: Shape,
        comparator: ComparatorFactory = ExemplarComparator,
        layers: Sequence[int] = (-2,),
        normalize: bool = True,
    ) -> None:
        super().__init__(image_shape, len(layers), normalize)
        self.comparator = build(comparator, self.image_shape)
        total = len(self.comparator.layer_shapes())
        if not layers or not all(-total <= number < total for number in layers):
            raise ValueError(
                f"layers must be numbers from {-total} to {total - 1}, which {type(self.comparator).__name__} has; got"
                f" {list(layers)}"
            )
        self.chosen = tuple(layers)

    def layers(self, images: Tensor) -> list[Tensor]:
        found = self.comparator.layers(images)
        return [found[number] for number in self.chosen]

    def start(self, training_images: TrainingImages) -> None:
        """Let the comparator learn, if it does, and then measure spreads."""
        teach(self.comparator, training_images)
        super().start(training_images)

    def specification(self, skip: int = 0) -> dict[str, Any]:
        """With the comparator that was made in place of its factory, which may be a function."""
        specification = super().specification(skip)
        specification["init_args"]["comparator"] = self.comparator
        return specification


def teach(comparator: Comparator, training_images: TrainingImages) -> None:
    """Let a comparator look at the training images, and say so where it learns from them."""
    if not isinstance(comparator, ExemplarComparator) or bool(comparator.taught):
        comparator.start(training_images)
        return
    rank_zero_info("The comparator learns to tell training images apart, once, before the model trains")
    comparator.start(training_images)
    rank_zero_info(f"The comparator tells {100 * float(comparator.accuracy):.0f} % of transformed images apart")


ImageDistanceFactory = Callable[[Shape], ImageDistance]


class SumOfDistances(ImageDistance):
    """Several distances, each with a weight: pixels and features in one, say.

    Args:
        image_shape: ``(C, H, W)``.
        distances: what is added up.
        weights: of each.

    Raises:
        ValueError: no distances, or another number of weights, or a weight that is not positive.
    """

    def __init__(
        self,
        image_shape: Shape,
        distances: Sequence[ImageDistanceFactory] = (PixelDistance, FeatureDistance),
        weights: Sequence[float] = (1.0, 1.0),
    ) -> None:
        super().__init__(image_shape)
        if not distances or len(distances) != len(weights) or min(weights) <= 0:
            raise ValueError(
                f"each distance needs a weight above 0, got {len(distances)} distances and weights {list(weights)}"
            )
        self.parts = nn.ModuleList([build(distance, self.image_shape) for distance in distances])
        self.weights = tuple(float(weight) for weight in weights)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        terms = [weight * part(images, targets) for weight, part in zip(self.weights, self.parts, strict=True)]
        return torch.stack(terms).sum(0)

    def start(self, training_images: TrainingImages) -> None:
        for part in self.parts:
            assert isinstance(part, ImageDistance)
            part.start(training_images)

    def specification(self, skip: int = 0) -> dict[str, Any]:
        """With the distances that were made in place of their factories, which may be functions."""
        specification = super().specification(skip)
        specification["init_args"]["distances"] = list(self.parts)
        return specification
