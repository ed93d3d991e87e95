"""The three networks of the VAE/GAN, for images of any size and number of channels.

Larsen, Sonderby, Larochelle & Winther 2016, Autoencoding beyond pixels using a learned similarity metric
(https://arxiv.org/abs/1512.09300), table 1: 5x5 kernels, batch normalisation and ReLU.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from lit_gen.networks.conv import halvings
from lit_gen.networks.dcgan import Enlarge
from lit_gen.networks.network import Network, Shape


def _sizes(shape: Shape, times: int, what: str) -> list[tuple[int, int]]:
    """Heights and widths from the largest to the smallest, after so many halvings that round up."""
    if len(shape) != 3:
        raise ValueError(f"{what} must be images (channels, height, width), got {shape}")
    if min(shape[1:]) < 2**times:
        raise ValueError(f"{what}, {shape}, are too small for {times} halvings; give fewer channels")
    return halvings((shape[1], shape[2]), times)


class VAEGANEncoder(Network):
    """Strided convolutions and a hidden layer: image -> mean and log-variance of the latents.

    Args:
        input_shape: ``(C, H, W)``, any size.
        output_shape: shape of one output, without the batch.
        channels: feature maps of each layer, each of which halves height and width.
        hidden_dim: units of the fully connected layer.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        channels: Sequence[int] = (64, 128, 256),
        hidden_dim: int = 1024,
    ) -> None:
        super().__init__(input_shape, output_shape)
        smallest = _sizes(self.input_shape, len(channels), "what a VAEGANEncoder sees")[-1]
        layers: list[nn.Module] = []
        for before, after in pairwise([self.input_shape[0], *channels]):
            layers += [nn.Conv2d(before, after, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        units = channels[-1] * math.prod(smallest)
        layers += [nn.Flatten(), nn.Linear(units, hidden_dim, bias=False), nn.BatchNorm1d(hidden_dim), nn.ReLU()]
        layers += [nn.Linear(hidden_dim, math.prod(self.output_shape)), nn.Unflatten(1, self.output_shape)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class VAEGANGenerator(Network):
    """Transposed convolutions, then one of stride 1: latents -> what tanh makes an image. The paper's decoder.

    Args:
        input_shape: shape of one input, without the batch.
        output_shape: ``(C, H, W)``, any size.
        channels: feature maps after each layer that doubles height and width, the smallest image first.
        base_channels: feature maps of the smallest image, which a fully connected layer makes.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        channels: Sequence[int] = (256, 128, 32),
        base_channels: int = 256,
    ) -> None:
        super().__init__(input_shape, output_shape)
        sizes = _sizes(self.output_shape, len(channels), "what a VAEGANGenerator makes")[::-1]
        first = (base_channels, *sizes[0])
        units = math.prod(first)
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(math.prod(self.input_shape), units, bias=False)]
        layers += [nn.BatchNorm1d(units), nn.ReLU(), nn.Unflatten(1, first)]
        for (before, after), (small, large) in zip(pairwise([base_channels, *channels]), pairwise(sizes), strict=True):
            layers += [Enlarge(before, after, 5, small, large), nn.BatchNorm2d(after), nn.ReLU()]
        layers.append(nn.Conv2d(channels[-1], self.output_shape[0], 5, padding=2))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class VAEGANDiscriminator(Network):
    """A convolution of stride 1, strided ones, a hidden layer, one logit: image -> logit.

    Its layers have names: ``layers.convolution0`` sees the image, ``layers.convolution3`` is the last strided one of
    the paper's four, before normalisation and ReLU.

    Args:
        input_shape: ``(C, H, W)``, any size.
        output_shape: shape of one output, without the batch.
        channels: feature maps of the convolution of stride 1, then of each that halves height and width.
        hidden_dim: units of the fully connected layer.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        channels: Sequence[int] = (32, 128, 256, 256),
        hidden_dim: int = 512,
    ) -> None:
        super().__init__(input_shape, output_shape)
        smallest = _sizes(self.input_shape, len(channels) - 1, "what a VAEGANDiscriminator sees")[-1]
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["convolution0"] = nn.Conv2d(self.input_shape[0], channels[0], 5, padding=2)
        layers["activation0"] = nn.ReLU()
        for level, (before, after) in enumerate(pairwise(channels), start=1):
            layers[f"convolution{level}"] = nn.Conv2d(before, after, 5, stride=2, padding=2, bias=False)
            layers[f"normalisation{level}"] = nn.BatchNorm2d(after)
            layers[f"activation{level}"] = nn.ReLU()
        layers["flat"] = nn.Flatten()
        layers["hidden"] = nn.Linear(channels[-1] * math.prod(smallest), hidden_dim, bias=False)
        layers["hidden_normalisation"] = nn.BatchNorm1d(hidden_dim)
        layers["hidden_activation"] = nn.ReLU()
        layers["output"] = nn.Linear(hidden_dim, math.prod(self.output_shape))
        self.layers = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).unflatten(1, self.output_shape)
