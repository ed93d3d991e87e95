"""Networks that know at which step of a diffusion they are."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lit_gen.networks.mlp import Activation, hidden_layers
from lit_gen.networks.network import Network, Shape


class TimedNetwork(Network):
    """A network of an image, of the step it was taken at, and of a class where there are any.

    Args:
        input_shape: shape of one input, without the batch.
        output_shape: shape of one output, without the batch.
        num_classes: classes that it is told; 0: none.
    """

    sizes = 3

    def __init__(self, input_shape: Shape, output_shape: Shape, num_classes: int = 0) -> None:
        super().__init__(input_shape, output_shape)
        self.num_classes = num_classes

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """``(B, *input_shape) -> (B, *output_shape)``.

        Args:
            x: the noisy images.
            time: ``(B,)`` share of the steps behind them, in 0..1.
            label: ``(B,)`` class, or ``num_classes`` for an image whose class is not told; None for a network that
                knows no classes.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward")


TimedNetworkFactory = Callable[[Shape, Shape, int], TimedNetwork]


def sinusoids(time: Tensor, dim: int, period: float = 10_000.0) -> Tensor:
    """Sines and cosines of the time in thousandths (Vaswani et al. 2017, section 3.5): ``(B,) -> (B, dim)``.

    Args:
        time: in 0..1.
        dim: how many, an even number; frequencies fall geometrically from 1.
        period: the lowest frequency is its inverse.
    """
    half = dim // 2
    exponents = torch.arange(half, device=time.device, dtype=torch.float32) / max(1, half - 1)
    angles = 1000 * time.float()[:, None] * torch.exp(-math.log(period) * exponents)
    return torch.cat([angles.sin(), angles.cos()], 1)


class BumpMLP(TimedNetwork):
    """The dense network of Sohl-Dickstein et al. (2015): its output is a mean of several, weighted by bumps over time.

    Each bump is a Gaussian over the steps (appendix D.2.1); together they sum to one.

    Args:
        input_shape: shape of one input, without the batch.
        output_shape: shape of one output, without the batch.
        num_classes: classes that it is told; 0: none.
        hidden_dims: width of each hidden layer, at least one.
        activation: non-linearity after each hidden layer.
        bumps: how many outputs, spread evenly over time.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        num_classes: int = 0,
        hidden_dims: Sequence[int] = (500, 500),
        activation: Activation = "tanh",
        bumps: int = 10,
    ) -> None:
        super().__init__(input_shape, output_shape, num_classes)
        if not hidden_dims or bumps < 1:
            raise ValueError(
                f"BumpMLP needs at least one hidden layer and one bump, got {list(hidden_dims)} and {bumps}"
            )
        self.bumps = bumps
        widths = [math.prod(self.input_shape), *hidden_dims]
        layers = hidden_layers(widths, activation, batch_norm=False)
        self.first, self.rest = layers[0], nn.Sequential(*layers[1:])
        self.label = nn.Embedding(num_classes + 1, widths[1]) if num_classes else None
        self.output = nn.Linear(widths[-1], bumps * math.prod(self.output_shape))

    def weights(self, time: Tensor) -> Tensor:
        """How much each bump counts at a time: ``(B,) -> (B, bumps)``."""
        centres = (torch.arange(self.bumps, device=time.device) + 0.5) / self.bumps
        return torch.softmax(-0.5 * ((time.float()[:, None] - centres) * self.bumps).square(), 1)

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:  # type: ignore[override]
        hidden = self.first(x.flatten(1))
        if self.label is not None:
            hidden = hidden + self.label(label)
        outputs = self.output(self.rest(hidden)).unflatten(1, (self.bumps, -1))
        weights = self.weights(time).to(outputs.dtype)
        return (weights[:, :, None] * outputs).sum(1).unflatten(1, self.output_shape)
