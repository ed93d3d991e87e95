"""The convolutional generator and discriminator of DCGAN, for images of any size and number of channels.

Radford, Metz & Chintala 2015, Unsupervised representation learning with deep convolutional generative adversarial
networks (https://arxiv.org/abs/1511.06434).
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as normalise_spectrum

from lit_gen.networks.conv import halvings
from lit_gen.networks.minibatch import MinibatchDeviation, MinibatchDiscrimination
from lit_gen.networks.network import Network, Shape

Norm = Literal["batch", "layer", "none"]

SMALLEST = 4
"""Height or width at which networks stop to halve images, unless they are told their channels."""
WIDEST = 8
"""Largest number of channels of a network that is not told, in multiples of its width."""


def default_channels(size: tuple[int, int], width: int) -> list[int]:
    """Channels of each level, from the largest image to the smallest: doubling, until four pixels a side are left.

    >>> default_channels((64, 64), 64), default_channels((28, 28), 64), default_channels((8, 8), 64)
    ([64, 128, 256, 512], [64, 128, 256], [64, 128])
    """
    levels = 2
    while min(halvings(size, levels)[-1]) > SMALLEST:
        levels += 1
    return [width * min(WIDEST, 2**level) for level in range(levels)]


def image_size(shape: Shape, what: str) -> tuple[int, int]:
    """Height and width.

    Raises:
        ValueError: it is no image, or smaller than four pixels a side.
    """
    if len(shape) != 3 or min(shape[1:]) < 4:
        raise ValueError(f"{what} must be images (channels, height, width) of at least 4 pixels a side, got {shape}")
    return shape[1], shape[2]


def start(network: nn.Module) -> None:
    """Weights from N(0, 0.02), gains of normalisation from N(1, 0.02), biases and shifts of zero (section 4)."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d | nn.GroupNorm):
            nn.init.normal_(layer.weight, 1.0, 0.02)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


class Enlarge(nn.Module):
    """A transposed convolution of stride 2 to exactly the size wanted, which is twice that of its input or one less.

    Args:
        before: channels of the input.
        after: channels of the output.
        kernel_size: height and width of the kernel.
        small: height and width of the input.
        large: those of the output.
    """

    def __init__(
        self, before: int, after: int, kernel_size: int, small: tuple[int, int], large: tuple[int, int]
    ) -> None:
        super().__init__()
        padding = (kernel_size - 1) // 2
        missing = [wanted - 2 * (given - 1) + 2 * padding - kernel_size for given, wanted in zip(small, large)]
        extra = (max(0, missing[0]), max(0, missing[1]))
        self.size = large
        self.convolution = nn.ConvTranspose2d(
            before, after, kernel_size, stride=2, padding=padding, output_padding=extra, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x)[:, :, : self.size[0], : self.size[1]]


class DCGANGenerator(Network):
    """From noise by transposed convolutions to what tanh makes an image: batch normalisation and ReLU between.

    The defaults are the networks of the authors' torch program at 64x64; ``kernel_size=5, width=128, unit_norm=True``
    are those of the paper's figure 1; ``kernel_size=3, refine=True, channels=[128, 256, 512]`` those of its features
    from ImageNet at 32x32.

    Example:
        >>> import torch
        >>> DCGANGenerator((100,), (3, 28, 20))(torch.zeros(2, 100)).shape
        torch.Size([2, 3, 28, 20])

    Args:
        input_shape: shape of one input, without the batch.
        output_shape: ``(C, H, W)``, at least 4 pixels a side.
        width: channels of the largest feature maps; they double as images halve, up to 8 times as many.
        channels: of each level, from the largest image to the smallest; None: as many levels as leave 4 pixels a side.
        kernel_size: height and width of the kernels.
        refine: a second convolution, of stride 1, after each that enlarges.
        unit_norm: normalise every unit of the first layer by itself, and not its channels.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        width: int = 64,
        channels: Sequence[int] | None = None,
        kernel_size: int = 4,
        refine: bool = False,
        unit_norm: bool = False,
    ) -> None:
        super().__init__(input_shape, output_shape)
        size = image_size(self.output_shape, "what a DCGANGenerator makes")
        widths = (list(channels) if channels else default_channels(size, width))[::-1]
        sizes = halvings(size, len(widths))[::-1]
        first = (widths[0], *sizes[0])
        layers: list[nn.Module] = [
            nn.Flatten(),
            nn.Linear(math.prod(self.input_shape), math.prod(first), bias=False),
            *([nn.BatchNorm1d(math.prod(first))] if unit_norm else []),
            nn.Unflatten(1, first),
            *([] if unit_norm else [nn.BatchNorm2d(widths[0])]),
            nn.ReLU(),
        ]
        for level, ((before, after), (small, large)) in enumerate(
            zip(pairwise([*widths, self.output_shape[0]]), pairwise(sizes), strict=True), start=1
        ):
            if refine:
                layers += [Enlarge(before, before, kernel_size, small, large), nn.BatchNorm2d(before), nn.ReLU()]
                layers.append(nn.Conv2d(before, after, 3, padding=1, bias=False))
            else:
                layers.append(Enlarge(before, after, kernel_size, small, large))
            if level < len(widths):
                layers += [nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        start(self)

    def feature_layers(self) -> list[str]:
        """Names of the layers whose outputs are feature maps, after normalisation and ReLU; the smallest maps first."""
        return [f"layers.{name}" for name, layer in self.layers.named_children() if isinstance(layer, nn.ReLU)]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class DCGANDiscriminator(Network):
    """From an image by strided convolutions to one logit: normalisation and leaky ReLU between.

    The mirror of :class:`DCGANGenerator`, with the same ready sizes.

    Args:
        input_shape: ``(C, H, W)``, at least 4 pixels a side.
        output_shape: shape of one output, without the batch.
        width: channels of the largest feature maps; they double as images halve, up to 8 times as many.
        channels: of each level, from the largest image to the smallest; None: as many levels as leave 4 pixels a side.
        kernel_size: height and width of the kernels.
        refine: a convolution of stride 1 before each that halves.
        norm: ``batch`` as published, or none; ``layer`` normalises each image by itself, as a gradient penalty needs.
            Without either, convolutions have biases.
        spectral_norm: divide every weight matrix by its largest singular value (Miyato et al. 2018, Spectral
            normalization for GANs, https://arxiv.org/abs/1802.05957), with one power iteration in each training pass.
        minibatch_deviation: show the last layer how much the batch varies.
        minibatch_kernels: show the last layer how many images of the batch are close, by so many learned distances
            (:class:`~lit_gen.networks.MinibatchDiscrimination`).
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        width: int = 64,
        channels: Sequence[int] | None = None,
        kernel_size: int = 4,
        refine: bool = False,
        norm: Norm = "batch",
        spectral_norm: bool = False,
        minibatch_deviation: bool = False,
        minibatch_kernels: int = 0,
    ) -> None:
        super().__init__(input_shape, output_shape)
        if norm not in ("batch", "layer", "none"):
            raise ValueError(f"norm must be batch, layer or none, got {norm!r}")
        height, breadth = image_size(self.input_shape, "what a DCGANDiscriminator sees")
        widths = list(channels) if channels else default_channels((height, breadth), width)
        self.norm = norm
        layers: list[nn.Module] = []
        for before, after in pairwise([self.input_shape[0], *widths]):
            if refine:
                layers += self._block(before, after, 3, 1, first=not layers)
                before = after
            layers += self._block(before, after, kernel_size, 2, first=not layers)
            height, breadth = (
                (side + 2 * ((kernel_size - 1) // 2) - kernel_size) // 2 + 1 for side in (height, breadth)
            )
            if min(height, breadth) < 1:
                raise ValueError(
                    f"images of {self.input_shape} are too small for {len(widths)} halvings; give fewer channels"
                )
        layers += [MinibatchDeviation()] if minibatch_deviation else []
        maps = widths[-1] + minibatch_deviation
        self.convolutions = nn.Sequential(*layers)
        units = maps * height * breadth
        self.minibatch = MinibatchDiscrimination(units, minibatch_kernels) if minibatch_kernels else nn.Identity()
        self.output = nn.Linear(units + minibatch_kernels, math.prod(self.output_shape), bias=norm == "none")
        start(self)
        if spectral_norm:
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    normalise_spectrum(layer)

    def _block(self, before: int, after: int, kernel_size: int, stride: int, first: bool) -> list[nn.Module]:
        padding = (kernel_size - 1) // 2
        bias = self.norm == "none"
        layers: list[nn.Module] = [nn.Conv2d(before, after, kernel_size, stride, padding, bias=bias)]
        # Not on the pixels themselves (section 3): the discriminator would not see their mean and scale.
        if self.norm != "none" and not first:
            layers.append(nn.BatchNorm2d(after) if self.norm == "batch" else nn.GroupNorm(1, after))
        return [*layers, nn.LeakyReLU(0.2)]

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """What each convolution finds in images, after normalisation and ReLU: ``(B, C, H, W)``, the largest first."""
        maps = []
        for layer in self.convolutions:
            x = layer(x)
            if isinstance(layer, nn.LeakyReLU):
                maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.minibatch(self.convolutions(x).flatten(1))).unflatten(1, self.output_shape)
