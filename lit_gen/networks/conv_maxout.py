"""The networks of the first adversarial nets on CIFAR-10: one transposed convolution against convolutional maxout.

Goodfellow et al. 2014, Generative adversarial networks (https://arxiv.org/abs/1406.2661), the authors' program.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from lit_gen.networks.maxout import Maxout, start_uniform
from lit_gen.networks.network import Network, Shape


class DeconvGenerator(Network):
    """Two wide layers, of ReLU and of sigmoid units, whose second is maps that one transposed convolution enlarges.

    At 32x32 the defaults are the published 8,000 units, and 80 maps of 10x10. Images of other sizes have as many maps
    as are needed to cover them; what hangs over is cut off.

    Example:
        >>> import torch
        >>> DeconvGenerator((100,), (3, 32, 32), hidden_dim=16, maps=2)(torch.zeros(5, 100)).shape
        torch.Size([5, 3, 32, 32])

    Args:
        input_shape: shape of one input, without the batch.
        output_shape: ``(C, H, W)``.
        hidden_dim: units of the first layer.
        maps: of the second layer.
        kernel_size: height and width of what each unit of a map adds to the image.
        stride: pixels from one to the next.
        weight_range: weights are uniform between minus this and this.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        hidden_dim: int = 8000,
        maps: int = 80,
        kernel_size: int = 5,
        stride: int = 3,
        weight_range: float = 0.05,
    ) -> None:
        super().__init__(input_shape, output_shape)
        if len(self.output_shape) != 3:
            raise ValueError(f"a DeconvGenerator makes images (channels, height, width), got {self.output_shape}")
        if not 1 <= stride <= kernel_size:
            raise ValueError(f"stride must lie in 1..kernel_size, got {stride} and a kernel of {kernel_size}")
        channels, *size = self.output_shape
        grid = [math.ceil(max(0, side - kernel_size) / stride) + 1 for side in size]
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(self.input_shape), hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, maps * math.prod(grid)),
            nn.Sigmoid(),
            nn.Unflatten(1, (maps, *grid)),
            nn.ConvTranspose2d(maps, channels, kernel_size, stride),
        )
        start_uniform(self, weight_range)

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.output_shape[1:]
        return self.layers(x)[:, :, :height, :width]


class ConvMaxout(nn.Module):
    """The largest of several convolutions at each place, and then of each neighbourhood (Goodfellow et al. 2013).

    Args:
        before: channels below.
        channels: of this layer.
        pieces: convolutions for each channel.
        kernel_size: height and width of the kernels.
        padding: rows and columns of zeros on each side.
        pool: height and width of a neighbourhood.
        pool_stride: pixels from one to the next.
    """

    def __init__(
        self, before: int, channels: int, pieces: int, kernel_size: int, padding: int, pool: int, pool_stride: int
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(before, channels * pieces, kernel_size, padding=padding)
        self.channels = channels
        self.pool = nn.MaxPool2d(pool, pool_stride, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, before, H, W) -> (B, channels, H', W')``."""
        return self.pool(self.convolution(x).unflatten(1, (self.channels, -1)).amax(2))


class ConvMaxoutDiscriminator(Network):
    """Three layers of convolutional maxout, one of maxout, and dropout before each.

    The geometry is the published one (kernels of 8, 8 and 5, pools of 4, 4 and 2 at strides of 2): 32x32 pixels become
    16x16, 7x7 and 5x5.

    Args:
        input_shape: ``(C, H, W)``, at least 8 pixels a side.
        output_shape: shape of one output, without the batch.
        channels: of the three layers of convolutional maxout, of two pieces each.
        hidden_dim: units of the layer of maxout, of five pieces.
        input_dropout: share of the inputs dropped in training.
        dropout: share of the units of each layer dropped in training.
        weight_range: weights are uniform between minus this and this.
    """

    GEOMETRY = ((8, 4, 4, 2), (8, 3, 4, 2), (5, 3, 2, 2))
    """Kernel, padding, pool and its stride of each layer."""

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        channels: Sequence[int] = (32, 32, 192),
        hidden_dim: int = 500,
        input_dropout: float = 0.2,
        dropout: float = 0.5,
        weight_range: float = 0.005,
    ) -> None:
        super().__init__(input_shape, output_shape)
        if len(self.input_shape) != 3 or min(self.input_shape[1:]) < 8:
            raise ValueError(
                "a ConvMaxoutDiscriminator sees images (channels, height, width) of at least 8 pixels a side, got"
                f" {self.input_shape}"
            )
        if len(channels) != len(self.GEOMETRY):
            raise ValueError(f"channels must be of {len(self.GEOMETRY)} layers, got {list(channels)}")
        layers: list[nn.Module] = [nn.Dropout(input_dropout)]
        size = list(self.input_shape[1:])
        for (before, after), (kernel, padding, pool, stride) in zip(
            pairwise([self.input_shape[0], *channels]), self.GEOMETRY, strict=True
        ):
            layers += [ConvMaxout(before, after, 2, kernel, padding, pool, stride), nn.Dropout(dropout)]
            convolved = [side + 2 * padding - kernel + 1 for side in size]
            size = [math.ceil((side - pool) / stride) + 1 for side in convolved]
        layers += [
            nn.Flatten(),
            Maxout(channels[-1] * math.prod(size), hidden_dim, 5),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, math.prod(self.output_shape)),
        ]
        self.layers = nn.Sequential(*layers)
        start_uniform(self, weight_range)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).unflatten(1, self.output_shape)
