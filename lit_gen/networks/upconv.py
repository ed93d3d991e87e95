"""Up-convolutional network from an object's number, its view and a transformation to image and mask.

Dosovitskiy, Springenberg & Brox 2015, Learning to generate chairs with convolutional neural networks
(https://arxiv.org/abs/1411.5928), with the sizes of the code that its authors published.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_gen.networks.conv import halvings
from lit_gen.networks.network import Network, Shape

VIEW_DIM = 4
"""Sine and cosine of azimuth and of elevation."""


def unpool(x: Tensor) -> Tensor:
    """Every value at the upper left of a 2x2 block of zeros: ``(B, C, H, W) -> (B, C, 2H, 2W)``.

    >>> unpool(torch.tensor([[[[3.0]]]]))
    tensor([[[[3., 0.],
              [0., 0.]]]])
    """
    block = x.new_zeros(2, 2)
    block[0, 0] = 1
    return torch.kron(x, block)


class UpConv(nn.ConvTranspose2d):
    """:func:`unpool`, then a 5x5 convolution: both are one transposed convolution of stride 2.

    Args:
        in_channels: feature maps before.
        out_channels: feature maps after.
        odd: (height, width), whether the size is twice that before less one.
    """

    def __init__(self, in_channels: int, out_channels: int, odd: tuple[bool, bool] = (False, False)) -> None:
        extra = (1 - odd[0], 1 - odd[1])
        super().__init__(in_channels, out_channels, 5, stride=2, padding=2, output_padding=extra)


class UpConvNetwork(Network):
    """Class, view and transformation, each through two layers of its own, then joint layers and two streams.

    All weights are drawn as He et al. 2015 do, so that rectified layers keep the scale of what they are given.

    Args:
        input_shape: ``(num_classes, num_parameters)``: lengths of the class vector and of the transformation's; 0 for
            no transformation.
        output_shape: ``(C, H, W)`` of the image; the mask comes in C copies, as published.
        branch_dim: units in each of the two layers of class, view and transformation.
        joint_dim: units in each of the two layers after these are joined.
        image_channels: feature maps of the image's stream, from the smallest size on, each of which is half as high and
            wide as the next; published are 256, 256, 92 for 64 pixels, and one 92 more for 128.
        mask_channels: the same of the mask's stream; 128, 92, 32, and one 32 more for 128.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        branch_dim: int = 512,
        joint_dim: int = 1024,
        image_channels: Sequence[int] = (256, 256, 92),
        mask_channels: Sequence[int] = (128, 92, 32),
    ) -> None:
        super().__init__(input_shape, output_shape)
        num_classes, num_parameters = self.input_shape
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Linear(size, branch_dim), nn.ReLU(), nn.Linear(branch_dim, branch_dim), nn.ReLU())
            for size in (num_classes, VIEW_DIM, num_parameters)
            if size
        )
        self.joint = nn.Sequential(
            nn.Linear(len(self.branches) * branch_dim, joint_dim),
            nn.ReLU(),
            nn.Linear(joint_dim, joint_dim),
            nn.ReLU(),
        )
        self.image_stream = self._stream(joint_dim, image_channels, "image_channels")
        self.mask_stream = self._stream(joint_dim, mask_channels, "mask_channels")
        for layer in self.modules():
            if isinstance(layer, nn.Linear | UpConv):
                # A quarter of the unpooled values are no zeros.
                fan_in = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels * 25 / 4
                nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_in))
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def _stream(self, joint_dim: int, channels: Sequence[int], name: str) -> nn.Sequential:
        colours, height, width = self.output_shape
        if not channels or min(height, width) < 2 ** len(channels):
            raise ValueError(
                f"{name} has {len(channels)} entries, each of which doubles the size: an image of {height}x{width}"
                f" takes 1 to {int(math.log2(min(height, width)))}"
            )
        sizes = halvings((height, width), len(channels))[::-1]
        start = (channels[0], *sizes[0])
        layers: list[nn.Module] = [nn.Linear(joint_dim, math.prod(start)), nn.ReLU(), nn.Unflatten(1, start)]
        for (before, after), (small, large) in zip(pairwise([*channels, colours]), pairwise(sizes), strict=True):
            odd = (large[0] < 2 * small[0], large[1] < 2 * small[1])
            layers += [UpConv(before, after, odd), nn.ReLU()]
        return nn.Sequential(*layers[:-1])  # the output is linear

    def forward(self, classes: Tensor, view: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Image and mask, ``(B, C, H, W)`` each, of any range.

        Args:
            classes: ``(B, num_classes)``, ones at the classes, or weights of mixtures.
            view: ``(B, 4)``.
            parameters: ``(B, num_parameters)``.
        """
        inputs = (classes, view, parameters)[: len(self.branches)]
        joined = torch.cat([branch(part) for branch, part in zip(self.branches, inputs, strict=True)], 1)
        hidden = self.joint(joined)
        return self.image_stream(hidden), self.mask_stream(hidden)


UpConvFactory = Callable[[Shape, Shape], UpConvNetwork]
