"""The plain convolutional networks of spectrally normalised GANs, for images of any size and number of channels.

Miyato, Kataoka, Koyama & Yoshida 2018, Spectral normalization for generative adversarial networks
(https://arxiv.org/abs/1802.05957), table 3.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from lit_gen.networks.conv import halvings
from lit_gen.networks.dcgan import Enlarge, image_size
from lit_gen.networks.network import Network, Shape


class SNGANGenerator(Network):
    """From noise by transposed 4x4 convolutions, then one of 3x3 and stride 1, to what tanh makes an image.

    Example:
        >>> import torch
        >>> SNGANGenerator((128,), (3, 32, 32))(torch.zeros(2, 128)).shape
        torch.Size([2, 3, 32, 32])

    Args:
        input_shape: shape of one input, without the batch.
        output_shape: ``(C, H, W)``, at least 4 pixels a side.
        channels: of each level, from the largest image to the smallest.
    """

    def __init__(self, input_shape: Shape, output_shape: Shape, channels: Sequence[int] = (64, 128, 256, 512)) -> None:
        super().__init__(input_shape, output_shape)
        widths = list(channels)[::-1]
        sizes = halvings(image_size(self.output_shape, "what an SNGANGenerator makes"), len(widths) - 1)[::-1]
        first = (widths[0], *sizes[0])
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(math.prod(self.input_shape), math.prod(first))]
        layers.append(nn.Unflatten(1, first))
        for (before, after), (small, large) in zip(pairwise(widths), pairwise(sizes), strict=True):
            layers += [Enlarge(before, after, 4, small, large), nn.BatchNorm2d(after), nn.ReLU()]
        layers.append(nn.Conv2d(widths[-1], self.output_shape[0], 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class SNGANDiscriminator(Network):
    """From an image to one logit, each weight matrix divided by its largest singular value, no other normalisation.

    At each level a 3x3 convolution of stride 1, and but at the last one of 4x4 that halves the image. One power
    iteration in each training pass keeps the singular values known.

    Args:
        input_shape: ``(C, H, W)``, at least 4 pixels a side.
        output_shape: shape of one output, without the batch.
        channels: of each level, from the largest image to the smallest.
    """

    def __init__(self, input_shape: Shape, output_shape: Shape, channels: Sequence[int] = (64, 128, 256, 512)) -> None:
        super().__init__(input_shape, output_shape)
        sizes = halvings(image_size(self.input_shape, "what an SNGANDiscriminator sees"), len(channels) - 1, 4)
        if min(sizes[-1]) < 1:
            raise ValueError(
                f"images of {self.input_shape} are too small for {len(channels) - 1} halvings; give fewer channels"
            )
        layers: list[nn.Module] = []
        for level, (before, after) in enumerate(pairwise([self.input_shape[0], *channels]), start=1):
            layers += [spectral_norm(nn.Conv2d(before, after, 3, padding=1)), nn.LeakyReLU(0.1)]
            if level < len(channels):
                layers += [spectral_norm(nn.Conv2d(after, after, 4, stride=2, padding=1)), nn.LeakyReLU(0.1)]
        self.convolutions = nn.Sequential(*layers)
        units = channels[-1] * math.prod(sizes[-1])
        self.output = spectral_norm(nn.Linear(units, math.prod(self.output_shape)))

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.convolutions(x).flatten(1)).unflatten(1, self.output_shape)
