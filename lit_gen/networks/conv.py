"""Strided convolutional networks between images of any size and vectors."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from lit_gen.networks.mlp import ACTIVATIONS, Activation
from lit_gen.networks.network import Network, Shape


def halvings(size: tuple[int, int], times: int) -> list[tuple[int, int]]:
    """Heights and widths before and after each of ``times`` strided convolutions (each rounds up).

    >>> halvings((28, 20), 3)
    [(28, 20), (14, 10), (7, 5), (4, 3)]
    """
    sizes = [size]
    for _ in range(times):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


def _image_shape(shape: Shape, what: str, levels: int) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError(f"{what} must be (channels, height, width), got {shape}; use MLP for other shapes")
    if min(shape[1:]) < 2 ** (levels - 1):
        raise ValueError(
            f"{what} {shape} is too small for {levels} strided convolutions; give at most"
            f" {min(shape[1:]).bit_length()} entries in `channels`"
        )
    return shape[0], shape[1], shape[2]


class ConvEncoder(Network):
    """Strided 3x3 convolutions, then a linear layer: image -> vector.

    Args:
        input_shape: ``(C, H, W)``, any size.
        output_shape: shape of one output, without the batch.
        channels: feature maps of each layer; each halves height and width (rounding up).
        activation: non-linearity after each convolution.
        batch_norm: batch normalisation before each non-linearity.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        channels: Sequence[int] = (32, 64, 128),
        activation: Activation = "relu",
        batch_norm: bool = False,
    ) -> None:
        super().__init__(input_shape, output_shape)
        colours, height, width = _image_shape(self.input_shape, "the input of ConvEncoder", len(channels))
        layers: list[nn.Module] = []
        for before, after in pairwise([colours, *channels]):
            layers.append(nn.Conv2d(before, after, 3, stride=2, padding=1, bias=not batch_norm))
            layers += [nn.BatchNorm2d(after)] if batch_norm else []
            layers.append(ACTIVATIONS[activation]())
        last = halvings((height, width), len(channels))[-1]
        self.convolutions = nn.Sequential(*layers)
        outputs = nn.Unflatten(1, self.output_shape)
        flat = last[0] * last[1] * channels[-1]
        self.output = nn.Sequential(nn.Flatten(), nn.Linear(flat, math.prod(self.output_shape)), outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.convolutions(x))


class ConvDecoder(Network):
    """A linear layer, then transposed 3x3 convolutions: vector -> image, the mirror of :class:`ConvEncoder`.

    Args:
        input_shape: shape of one input, without the batch.
        output_shape: ``(C, H, W)``, any size.
        channels: feature maps of each layer, from the smallest image to the largest; each layer doubles the size.
        activation: non-linearity before each transposed convolution.
        batch_norm: batch normalisation before each non-linearity.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        channels: Sequence[int] = (128, 64, 32),
        activation: Activation = "relu",
        batch_norm: bool = False,
    ) -> None:
        super().__init__(input_shape, output_shape)
        colours, height, width = _image_shape(self.output_shape, "the output of ConvDecoder", len(channels))
        sizes = halvings((height, width), len(channels))[::-1]
        start = (channels[0], *sizes[0])
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(math.prod(self.input_shape), math.prod(start))]
        layers.append(nn.Unflatten(1, start))
        for (before, after), (small, large) in zip(pairwise([*channels, colours]), pairwise(sizes), strict=True):
            layers += [nn.BatchNorm2d(before)] if batch_norm else []
            layers.append(ACTIVATIONS[activation]())
            # A stride-2 transposed convolution gives 2n - 1 pixels; the padding at the far edge makes up the rest.
            extra = (large[0] - 2 * small[0] + 1, large[1] - 2 * small[1] + 1)
            layers.append(nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=extra))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
