"""The U-Net of denoising diffusion.

Ho, Jain & Abbeel 2020, Denoising diffusion probabilistic models, appendix B (https://arxiv.org/abs/2006.11239):
residual blocks with group normalisation, told the time, and self-attention between some of them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention

from lit_gen.networks.conv import channels_last
from lit_gen.networks.network import Shape
from lit_gen.networks.timed import TimedNetwork, sinusoids

GROUP_CHANNELS = 4
"""Feature maps of a group, at least, where there are as many: those of the paper's first level. Groups of a single map
would take from each how bright and how noisy it is."""


def _norm(channels: int, groups: int) -> nn.GroupNorm:
    fitting = (number for number in range(min(groups, channels), 0, -1) if channels % number == 0)
    number = next(number for number in fitting if channels // number >= min(GROUP_CHANNELS, channels))
    return nn.GroupNorm(number, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around which the input goes straight on; the time comes in between.

    Args:
        before: channels of the input.
        after: channels of the output.
        embedding_dim: width of the embedding of time and class.
        groups: of the normalisation, at most.
        dropout: share of the features that are dropped in training.
    """

    def __init__(self, before: int, after: int, embedding_dim: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Sequential(_norm(before, groups), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1))
        self.embedding = nn.Sequential(nn.SiLU(), nn.Linear(embedding_dim, after))
        self.second = nn.Sequential(
            _norm(after, groups), nn.SiLU(), nn.Dropout(dropout), nn.Conv2d(after, after, 3, padding=1)
        )
        self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        hidden = self.first(x) + self.embedding(embedding)[:, :, None, None]
        return self.shortcut(x) + self.second(hidden)


class SelfAttention(nn.Module):
    """Every place of a feature map looks at all others, with one head.

    Args:
        channels: of input and output.
        groups: of the normalisation, at most.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = _norm(channels, groups)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.output = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.query_key_value(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, 2)
        attended = scaled_dot_product_attention(query, key, value)
        return x + self.output(attended.transpose(1, 2).unflatten(2, x.shape[2:]))


class Block(nn.Module):
    """A residual block, and self-attention after it if there is any.

    Args:
        before: channels of the input.
        after: channels of the output.
        embedding_dim: width of the embedding of time and class.
        groups: of the normalisation, at most.
        dropout: share of the features that are dropped in training.
        attention: whether there is self-attention.
    """

    def __init__(
        self, before: int, after: int, embedding_dim: int, groups: int, dropout: float, attention: bool
    ) -> None:
        super().__init__()
        self.residual = ResidualBlock(before, after, embedding_dim, groups, dropout)
        self.attention = SelfAttention(after, groups) if attention else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.attention(self.residual(x, embedding))


class UNet(TimedNetwork):
    """Down to small feature maps and up again, each level handing its features over to the level of the same size.

    Any height and width: a level halves them, rounding up. With its defaults on 3x32x32 it is the network of the paper
    for CIFAR-10, of 35.7 million parameters; fewer channels and levels serve small images.

    Example:
        >>> network = UNet((1, 28, 28), (1, 28, 28), channels=16, multipliers=[1, 2], blocks=1)
        >>> network(torch.zeros(2, 1, 28, 28), torch.rand(2)).shape
        torch.Size([2, 1, 28, 28])

    Args:
        input_shape: ``(C, H, W)``.
        output_shape: ``(C, H, W)`` of the same height and width.
        num_classes: classes that it is told; 0: none.
        channels: feature maps of the largest level, an even number.
        multipliers: feature maps of each level, from the largest, in these units.
        blocks: residual blocks of each level on the way down; there is one more on the way up.
        attention_levels: levels with self-attention, 0 being the largest; the smallest always has it in the middle.
        dropout: share of the features that are dropped in training.
        groups: of the normalisation, at most: fewer where they do not divide the feature maps, or would have less than
            four of them.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        num_classes: int = 0,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention_levels: Sequence[int] = (1,),
        dropout: float = 0.1,
        groups: int = 32,
    ) -> None:
        super().__init__(input_shape, output_shape, num_classes)
        self._check(channels, multipliers, blocks, attention_levels)
        self.channels = channels
        dim = 4 * channels
        self.time = nn.Sequential(nn.Linear(channels, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.label = nn.Embedding(num_classes + 1, dim) if num_classes else None
        self.input = nn.Conv2d(self.input_shape[0], channels, 3, padding=1)

        widths = [channels * multiplier for multiplier in multipliers]
        levels = range(len(widths))
        handed, width = [channels], channels
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        for level in levels:
            row = nn.ModuleList()
            for _ in range(blocks):
                row.append(Block(width, widths[level], dim, groups, dropout, level in attention_levels))
                width = widths[level]
                handed.append(width)
            self.down.append(row)
            if level < len(widths) - 1:
                self.shrink.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                handed.append(width)
        self.middle = nn.ModuleList(Block(width, width, dim, groups, dropout, attention) for attention in (True, False))
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level in reversed(levels):
            row = nn.ModuleList()
            for _ in range(blocks + 1):
                before = width + handed.pop()
                row.append(Block(before, widths[level], dim, groups, dropout, level in attention_levels))
                width = widths[level]
            self.up.append(row)
            if level:
                self.grow.append(nn.Conv2d(width, width, 3, padding=1))
        last = nn.Conv2d(width, self.output_shape[0], 3, padding=1)
        self.output = nn.Sequential(_norm(width, groups), nn.SiLU(), last)
        self._initialize()

    def _check(self, channels: int, multipliers: Sequence[int], blocks: int, attention_levels: Sequence[int]) -> None:
        shapes = self.input_shape, self.output_shape
        if any(len(shape) != 3 for shape in shapes) or self.input_shape[1:] != self.output_shape[1:]:
            raise ValueError(
                f"a UNet maps images (C, H, W) to images of the same height and width, got {shapes[0]} and {shapes[1]}"
            )
        if channels < 2 or channels % 2 or not multipliers or min(multipliers) < 1 or blocks < 1:
            raise ValueError(
                "channels must be even, multipliers at least one number from 1, and blocks at least 1; got"
                f" {channels}, {list(multipliers)} and {blocks}"
            )
        levels = len(multipliers)
        if min(self.input_shape[1:]) <= 2 ** (levels - 2):
            raise ValueError(
                f"images of {self.input_shape[1]}x{self.input_shape[2]} are too small for {levels} levels; give fewer"
                " multipliers"
            )
        if any(not 0 <= level < levels for level in attention_levels):
            raise ValueError(f"attention_levels must lie in 0..{levels - 1}, got {list(attention_levels)}")

    def _initialize(self) -> None:
        # Uniform, of the variance that keeps signals (Glorot); what ends a residual or the network starts at zero.
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        for layer in self.modules():
            if isinstance(layer, ResidualBlock):
                nn.init.zeros_(layer.second[-1].weight)  # type: ignore[arg-type]
            elif isinstance(layer, SelfAttention):
                nn.init.zeros_(layer.output.weight)
                for part in layer.query_key_value.weight.chunk(3):
                    nn.init.xavier_uniform_(part)
        nn.init.zeros_(self.output[-1].weight)  # type: ignore[arg-type]

    @staticmethod
    def _laid_out(x: Tensor) -> Tensor:
        # Channels last, a tenth faster; not under autocast on a CPU, where normalisation would then be very slow.
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            return x
        return channels_last(x)

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:  # type: ignore[override]
        embedding = self.time(sinusoids(time, self.channels).to(x.dtype))
        if self.label is not None:
            embedding = embedding + self.label(label)
        x = self._laid_out(self.input(x))
        handed = [x]
        for level, row in enumerate(self.down):
            for block in row:  # type: ignore[attr-defined]
                x = block(x, embedding)
                handed.append(x)
            if level < len(self.shrink):
                x = self.shrink[level](x)
                handed.append(x)
        for block in self.middle:
            x = block(x, embedding)
        for level, row in enumerate(self.up):
            for block in row:  # type: ignore[attr-defined]
                x = block(torch.cat([x, handed.pop()], 1), embedding)
            if level < len(self.grow):
                x = self.grow[level](interpolate(x, size=handed[-1].shape[2:]))
        return self.output(x)
