"""Readers and writers by convolution, which see all of the image and keep its layout."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_gen.networks.attention import Glimpse, Reader, Stroke, Writer
from lit_gen.networks.conv import halvings
from lit_gen.networks.network import Shape, full_precision


def halving_convolutions(inputs: int, channels: Sequence[int]) -> nn.Sequential:
    """Strided 3x3 convolutions with ReLU between them; each halves height and width, rounding up."""
    layers: list[nn.Module] = []
    for before, after in pairwise([inputs, *channels]):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class ConvReader(Reader):
    """Image and error through strided convolutions, as maps ``(channels[-1], h, w)``.

    Args:
        image_shape: ``(C, H, W)``, any size.
        hidden_dim: units of the decoder at each place, which is not asked.
        channels: feature maps of each layer; each halves height and width (rounding up).
    """

    def __init__(self, image_shape: Shape, hidden_dim: int, channels: Sequence[int] = (32, 32)) -> None:
        super().__init__(image_shape, hidden_dim)
        if not channels:
            raise ValueError("channels must name at least one layer, got none")
        self.channels = tuple(channels)
        self.convolutions = halving_convolutions(2 * self.image_shape[0], self.channels)

    @property
    def output_shape(self) -> Shape:
        return (self.channels[-1], *halvings(self.image_shape[1:], len(self.channels))[-1])

    def forward(self, images: Tensor, error: Tensor, hidden: Tensor) -> Glimpse:
        return Glimpse(self.convolutions(torch.cat([images, error], 1)), None)


class ConvWriter(Writer):
    """Transposed convolutions from maps to the canvas, the mirror of :class:`ConvReader`.

    Args:
        hidden_shape: ``(units, h, w)``, as the reader's halvings leave them.
        canvas_shape: ``(C, H, W)``.
        channels: feature maps of each layer, from the smallest image to the largest; one number less than there are
            layers, each of which doubles the size.
    """

    def __init__(self, hidden_shape: Shape, canvas_shape: Shape, channels: Sequence[int] = (32,)) -> None:
        super().__init__(hidden_shape, canvas_shape)
        sizes = halvings(self.canvas_shape[1:], len(channels) + 1)[::-1]
        if len(self.hidden_shape) != 3 or self.hidden_shape[1:] != sizes[0]:
            raise ValueError(
                f"a ConvWriter with channels={list(channels)} writes on {self.canvas_shape[1:]} from maps of size"
                f" {sizes[0]}, the hidden state has shape {self.hidden_shape}; give it one entry less than the reader"
            )
        layers: list[nn.Module] = []
        widths = [self.hidden_shape[0], *channels, self.canvas_shape[0]]
        for (before, after), (small, large) in zip(pairwise(widths), pairwise(sizes), strict=True):
            # A stride-2 transposed convolution gives 2n - 1 pixels; the padding at the far edge makes up the rest.
            extra = (large[0] - 2 * small[0] + 1, large[1] - 2 * small[1] + 1)
            layers += [nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=extra), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers[:-1])

    def forward(self, hidden: Tensor) -> Stroke:
        return Stroke(full_precision(self.convolutions(hidden)), None)
