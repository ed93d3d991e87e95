"""Strided convolutional networks between images of any size and vectors."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from lit_gen.networks.mlp import ACTIVATIONS, Activation, hidden_layers
from lit_gen.networks.network import Network, Shape

KernelSize = Literal[3, 4]


def halvings(size: tuple[int, int], times: int, kernel_size: KernelSize = 3) -> list[tuple[int, int]]:
    """Heights and widths before and after each of ``times`` strided convolutions: 3x3 rounds up, 4x4 down.

    >>> halvings((28, 20), 3)
    [(28, 20), (14, 10), (7, 5), (4, 3)]
    >>> halvings((28, 20), 3, kernel_size=4)
    [(28, 20), (14, 10), (7, 5), (3, 2)]
    """
    sizes = [size]
    odd = 4 - kernel_size
    for _ in range(times):
        sizes.append(((sizes[-1][0] + odd) // 2, (sizes[-1][1] + odd) // 2))
    return sizes


def doubling_channels(first: int, size: tuple[int, int]) -> list[int]:
    """Feature maps of as many layers as bring the shorter side to about 4 pixels, each twice those before.

    They stop at 16 times the first.

    >>> [doubling_channels(32, (side, side)) for side in (8, 28, 32, 48, 64)]
    [[32], [32, 64, 128], [32, 64, 128], [32, 64, 128, 256], [32, 64, 128, 256]]
    """
    levels = max(1, math.ceil(math.log2(min(size) / 4)))
    return [first * 2 ** min(level, 4) for level in range(levels)]


def channels_last(x: Tensor) -> Tensor:
    """The same numbers, laid out so that most convolutions are faster; what follows keeps the layout.

    To be called on what a convolution has made: an image of one channel has both layouts at once.
    """
    return x.contiguous(memory_format=torch.channels_last)


def _image_shape(shape: Shape, what: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError(f"{what} must be (channels, height, width), got {shape}; use MLP for other shapes")
    return shape[0], shape[1], shape[2]


def _levels(channels: Sequence[int] | int, shape: Shape, what: str, kernel_size: KernelSize) -> list[int]:
    """Feature maps of each layer, from the largest image to the smallest where a number stands for all."""
    size = (shape[1], shape[2])
    maps = doubling_channels(channels, size) if isinstance(channels, int) else list(channels)
    longest = min(size).bit_length() - (kernel_size == 4)
    if len(maps) > longest:
        raise ValueError(
            f"{what} {shape} is too small for {len(maps)} strided convolutions; give at most {longest} entries in"
            " `channels`"
        )
    return maps


class ResidualBlock(nn.Module):
    """x + f(x), f two 3x3 convolutions each after its non-linearity (He et al. 2016, https://arxiv.org/abs/1603.05027).

    Args:
        channels: feature maps.
        activation: non-linearity before each convolution.
        batch_norm: batch normalisation before each non-linearity.
    """

    def __init__(self, channels: int, activation: Activation, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for last in (False, True):
            layers += [nn.BatchNorm2d(channels)] if batch_norm else []
            layers += [ACTIVATIONS[activation]()]
            layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=last or not batch_norm)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ConvEncoder(Network):
    """Strided convolutions, then hidden layers if any and a linear layer: image -> vector.

    Args:
        input_shape: ``(C, H, W)``, any size.
        output_shape: shape of one output, without the batch.
        channels: feature maps of each layer, each of which halves height and width; or those of the first alone,
            doubled by as many layers as bring the shorter side to about 4 pixels.
        activation: non-linearity after each convolution and hidden layer.
        batch_norm: batch normalisation before each non-linearity.
        kernel_size: 3 rounds odd sizes up when it halves them, 4 down.
        residual_blocks: residual blocks after each strided convolution.
        dense_dims: width of each fully connected layer between the convolutions and the output.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        channels: Sequence[int] | int = (32, 64, 128),
        activation: Activation = "relu",
        batch_norm: bool = False,
        kernel_size: KernelSize = 3,
        residual_blocks: int = 0,
        dense_dims: Sequence[int] = (),
    ) -> None:
        super().__init__(input_shape, output_shape)
        what = "the input of ConvEncoder"
        colours, height, width = _image_shape(self.input_shape, what)
        maps = _levels(channels, self.input_shape, what, kernel_size)
        layers: list[nn.Module] = []
        for before, after in pairwise([colours, *maps]):
            bias = not batch_norm or residual_blocks > 0
            layers.append(nn.Conv2d(before, after, kernel_size, stride=2, padding=1, bias=bias))
            layers += [ResidualBlock(after, activation, batch_norm) for _ in range(residual_blocks)]
            layers += [nn.BatchNorm2d(after)] if batch_norm else []
            layers.append(ACTIVATIONS[activation]())
        last = halvings((height, width), len(maps), kernel_size)[-1]
        self.convolutions = nn.Sequential(*layers)
        outputs = nn.Unflatten(1, self.output_shape)
        widths = [last[0] * last[1] * maps[-1], *dense_dims]
        hidden = hidden_layers(widths, activation, batch_norm)
        linear = nn.Linear(widths[-1], math.prod(self.output_shape))
        self.output = nn.Sequential(nn.Flatten(), *hidden, linear, outputs)
        self.to(memory_format=torch.channels_last)  # of the weights: up to 15 % faster

    def activations(self, x: Tensor) -> list[Tensor]:
        """What each strided convolution gives after its non-linearity, ``(B, C, H, W)`` each, the largest first."""
        found: list[Tensor] = []
        for position, layer in enumerate(self.convolutions, start=1):
            x = layer(x)
            # The next layer is that of a smaller image, or there is none.
            if position == len(self.convolutions) or isinstance(self.convolutions[position], nn.Conv2d):
                found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.convolutions(x))


class ConvDecoder(Network):
    """Linear layers, then transposed convolutions: vector -> image, the mirror of :class:`ConvEncoder`.

    Args:
        input_shape: shape of one input, without the batch.
        output_shape: ``(C, H, W)``, any size.
        channels: feature maps of each layer, from the smallest image to the largest, each of which doubles the size; or
            those of the last alone, where :class:`ConvEncoder` has as many in its first.
        activation: non-linearity after each hidden layer and before each transposed convolution.
        batch_norm: batch normalisation before each non-linearity.
        kernel_size: 4 touches every pixel equally often, 3 leaves a faint chequerboard to be unlearned.
        residual_blocks: residual blocks before each transposed convolution.
        dense_dims: width of each fully connected layer before the first transposed convolution.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        channels: Sequence[int] | int = (128, 64, 32),
        activation: Activation = "relu",
        batch_norm: bool = False,
        kernel_size: KernelSize = 3,
        residual_blocks: int = 0,
        dense_dims: Sequence[int] = (),
    ) -> None:
        super().__init__(input_shape, output_shape)
        what = "the output of ConvDecoder"
        colours, height, width = _image_shape(self.output_shape, what)
        maps = _levels(channels, self.output_shape, what, kernel_size)
        if isinstance(channels, int):
            maps = maps[::-1]
        sizes = halvings((height, width), len(maps), kernel_size)[::-1]
        start = (maps[0], *sizes[0])
        widths = [math.prod(self.input_shape), *dense_dims]
        layers: list[nn.Module] = [nn.Flatten(), *hidden_layers(widths, activation, batch_norm)]
        layers += [nn.Linear(widths[-1], math.prod(start)), nn.Unflatten(1, start)]
        for (before, after), (small, large) in zip(pairwise([*maps, colours]), pairwise(sizes), strict=True):
            layers += [ResidualBlock(before, activation, batch_norm) for _ in range(residual_blocks)]
            layers += [nn.BatchNorm2d(before)] if batch_norm else []
            layers.append(ACTIVATIONS[activation]())
            # Without it the size would be 2n - 1 (3x3) or 2n (4x4): padding at the far edge makes up the rest.
            extra = tuple(wide - 2 * narrow + 4 - kernel_size for narrow, wide in zip(small, large, strict=True))
            layers.append(
                nn.ConvTranspose2d(before, after, kernel_size, stride=2, padding=1, output_padding=(extra[0], extra[1]))
            )
        self.layers = nn.Sequential(*layers)
        self.to(memory_format=torch.channels_last)  # as in ConvEncoder

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
            # Transposed convolutions are the faster for it under autocast alone.
            if isinstance(layer, nn.Unflatten) and torch.is_autocast_enabled(x.device.type):
                x = channels_last(x)
        return x
