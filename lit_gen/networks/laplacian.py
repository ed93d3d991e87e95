"""Laplacian pyramids of images, and the networks of a pyramid of adversarial nets.

Burt & Adelson 1983, The Laplacian pyramid as a compact image code; Denton, Chintala, Szlam & Fergus 2015, Deep
generative image models using a Laplacian pyramid of adversarial networks (https://arxiv.org/abs/1506.05751), with the
sizes of the authors' program (eyescream).
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from lit_gen.networks.conv import channels_last
from lit_gen.networks.network import Network, NetworkFactory, Shape, build

Size = tuple[int, int]
"""Height and width."""


def resize(images: Tensor, size: Size) -> Tensor:
    """Images of another size, by a triangle filter as wide as the coarser of both grids: linear, and keeps constants.

    Args:
        images: ``(B, C, H, W)``.
        size: height and width wanted.
    """
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    return interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


def laplacian_pyramid(images: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
    """What each size adds to the next coarser one, enlarged; last the coarsest image itself.

    h_k = I_k - u(I_k+1) with I_k+1 = d(I_k), where d and u are :func:`resize`.

    Args:
        images: ``(B, C, H, W)``.
        sizes: of all levels, that of the images first.

    Returns:
        ``(B, C, *size)`` of each level.
    """
    levels = [images]
    for size in sizes[1:]:
        levels.append(resize(levels[-1], size))
    return [fine - resize(coarse, size) for (fine, coarse), size in zip(pairwise(levels), sizes)] + [levels[-1]]


def collapse_pyramid(pyramid: Sequence[Tensor]) -> Tensor:
    """The image that :func:`laplacian_pyramid` was made of: I_k = u(I_k+1) + h_k from the coarsest level on.

    Args:
        pyramid: ``(B, C, *size)`` of each level, the finest first.
    """
    image = pyramid[-1]
    for residual in reversed(pyramid[:-1]):
        image = resize(image, (residual.shape[-2], residual.shape[-1])) + residual
    return image


def default_sizes(side: int) -> list[int]:
    """The shorter sides of a pyramid, the coarsest first: halved until they come near 8 pixels.

    Images under 12 pixels, and those from 64 on, go down to 4.

    >>> default_sizes(28), default_sizes(32), default_sizes(64), default_sizes(8)
    ([8, 14, 28], [8, 16, 32], [4, 8, 16, 32, 64], [4, 8])

    Args:
        side: the shorter side of the image.
    """
    coarsest = 8 if 12 <= side < 64 else 4
    sizes = [side]
    while sizes[0] >= 1.5 * coarsest:
        sizes.insert(0, max(coarsest, math.ceil(sizes[0] / 2)))
    return sizes


class PlaneGenerator(Network):
    """From a plane of noise and an image to what is to be added to the image: convolutions that keep its size.

    Example:
        >>> network = PlaneGenerator((4, 28, 28), (3, 28, 28))
        >>> sum(parameter.numel() for parameter in network.parameters())
        218179

    Args:
        input_shape: ``(C, H, W)`` of all planes.
        output_shape: ``(C, H, W)`` of the image, with the same height and width.
        channels: maps of each hidden layer.
        kernel_sizes: of each hidden layer and of the output, odd.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        channels: Sequence[int] = (64, 64),
        kernel_sizes: Sequence[int] = (7, 7, 5),
    ) -> None:
        super().__init__(input_shape, output_shape)
        if self.input_shape[1:] != self.output_shape[1:]:
            raise ValueError(f"a PlaneGenerator keeps height and width, got {self.input_shape} and {self.output_shape}")
        if len(kernel_sizes) != len(channels) + 1 or any(size % 2 == 0 for size in kernel_sizes):
            raise ValueError(
                f"kernel_sizes must be odd, one more than channels (the last for the output), got {list(kernel_sizes)}"
                f" with {len(channels)} channels"
            )
        widths = [self.input_shape[0], *channels, self.output_shape[0]]
        layers: list[nn.Module] = []
        for (before, after), kernel in zip(pairwise(widths), kernel_sizes, strict=True):
            layers += [nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(channels_last(x))


class PlaneDiscriminator(Network):
    """From an image to one logit: a convolution, one of stride 2, dropout and a linear layer.

    Example:
        >>> network = PlaneDiscriminator((3, 28, 28), (1,))
        >>> sum(parameter.numel() for parameter in network.parameters())
        113729

    Args:
        input_shape: ``(C, H, W)``.
        output_shape: shape of one output, without the batch.
        channels: maps of each of the two convolutions.
        dropout: share of the units before the last layer dropped in training.
    """

    def __init__(self, input_shape: Shape, output_shape: Shape, channels: int = 64, dropout: float = 0.5) -> None:
        super().__init__(input_shape, output_shape)
        planes, *size = self.input_shape
        # Unpadded as published, where something is left of the image then: from 9 pixels on.
        padding = 0 if min(size) >= 9 else 2
        rows, columns = (((side + 2 * padding - 4) + 2 * padding - 5) // 2 + 1 for side in size)
        self.layers = nn.Sequential(
            nn.Conv2d(planes, channels, 5, padding=padding),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 5, stride=2, padding=padding),
            nn.Flatten(),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(channels * rows * columns, math.prod(self.output_shape)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).unflatten(1, self.output_shape)


class CoarseGenerator(Network):
    """From noise to the coarsest image: fully connected, the last hidden layer with an activation of its own.

    Example:
        >>> with torch.device("meta"):
        ...     network = CoarseGenerator((100,), (3, 8, 8))
        >>> sum(parameter.numel() for parameter in network.parameters())
        66352192

    Args:
        input_shape: shape of one input, without the batch.
        output_shape: shape of one output, without the batch.
        hidden_dims: width of each hidden layer; ReLU follows all but the last.
        last_activation: after the last hidden layer; with classes the authors' program takes ``relu``.
        weight_std: standard deviation of the initial weights; biases start at zero.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        hidden_dims: Sequence[int] = (8000, 8000),
        last_activation: Literal["sigmoid", "relu"] = "sigmoid",
        weight_std: float = 0.05,
    ) -> None:
        super().__init__(input_shape, output_shape)
        if last_activation not in ("sigmoid", "relu"):
            raise ValueError(f"last_activation must be sigmoid or relu, got {last_activation!r}")
        layers = hidden_layers(math.prod(self.input_shape), hidden_dims)
        layers[-1] = nn.Sigmoid() if last_activation == "sigmoid" else nn.ReLU()
        self.layers = nn.Sequential(*layers, nn.Linear(hidden_dims[-1], math.prod(self.output_shape)))
        start_normal(self, weight_std)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1)).unflatten(1, self.output_shape)


class CoarseDiscriminator(Network):
    """From the coarsest image to one logit: fully connected, ReLU and dropout.

    Example:
        >>> network = CoarseDiscriminator((3, 8, 8), (1,))
        >>> sum(parameter.numel() for parameter in network.parameters())
        2872001

    Args:
        input_shape: shape of one input, without the batch.
        output_shape: shape of one output, without the batch.
        hidden_dims: width of each hidden layer.
        dropout: share of the units of each hidden layer dropped in training.
        weight_std: standard deviation of the initial weights; biases start at zero.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        hidden_dims: Sequence[int] = (1600, 1600),
        dropout: float = 0.5,
        weight_std: float = 0.005,
    ) -> None:
        super().__init__(input_shape, output_shape)
        layers = hidden_layers(math.prod(self.input_shape), hidden_dims, dropout)
        self.layers = nn.Sequential(*layers, nn.Linear(hidden_dims[-1], math.prod(self.output_shape)))
        start_normal(self, weight_std)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1)).unflatten(1, self.output_shape)


class ClassPlane(Network):
    """Shows a network of planes the class as one more plane, which is learned: ReLU of a linear map of the class.

    Args:
        input_shape: ``(C + num_classes, H, W)``: planes, and after them the class, one-hot, at every pixel.
        output_shape: of the network.
        num_classes: number of classes.
        network: from ``C + 1`` planes to the output.
    """

    def __init__(self, input_shape: Shape, output_shape: Shape, num_classes: int, network: NetworkFactory) -> None:
        super().__init__(input_shape, output_shape)
        planes, height, width = self.input_shape
        self.num_classes = num_classes
        self.plane = nn.Linear(num_classes, height * width)
        self.network = build(network, (planes - num_classes + 1, height, width), self.output_shape)

    def forward(self, x: Tensor) -> Tensor:
        planes, classes = x[:, : -self.num_classes], x[:, -self.num_classes :, 0, 0]
        plane = torch.relu(self.plane(classes)).view(len(x), 1, *x.shape[2:])
        return self.network(torch.cat([planes, plane.to(planes.dtype)], 1))


class VectorPlane(nn.Module):
    """Shows a network of planes a vector as one more plane, which is learned: ReLU of a linear map of the vector.

    Args:
        vector_dim: length of the vector.
        input_shape: ``(C, H, W)`` of the other planes.
        output_shape: of the network.
        network: from ``C + 1`` planes to the output.
    """

    def __init__(self, vector_dim: int, input_shape: Shape, output_shape: Shape, network: NetworkFactory) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.plane = nn.Linear(vector_dim, height * width)
        self.network = build(network, (channels + 1, height, width), output_shape)

    def forward(self, planes: Tensor, vector: Tensor) -> Tensor:
        """Planes ``(B, C, H, W)`` and vectors ``(B, vector_dim)`` -> ``(B, *output_shape)``."""
        plane = torch.relu(self.plane(vector)).view(len(planes), 1, *planes.shape[2:])
        return self.network(torch.cat([planes, plane.to(planes.dtype)], 1))


def hidden_layers(inputs: int, widths: Sequence[int], dropout: float = 0.0) -> list[nn.Module]:
    """Linear layers with ReLU, and dropout where there is any.

    Raises:
        ValueError: no layers.
    """
    if not widths:
        raise ValueError("hidden_dims must name at least one layer, got none")
    layers: list[nn.Module] = []
    for before, after in pairwise([inputs, *widths]):
        layers += [nn.Linear(before, after), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout > 0 else []
    return layers


def start_normal(network: nn.Module, weight_std: float) -> None:
    """Draw the weights of all linear layers from a normal distribution, and set their biases to zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0.0, weight_std)
            nn.init.zeros_(layer.bias)
