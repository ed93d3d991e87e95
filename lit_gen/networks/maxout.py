"""Fully connected networks as those of the first adversarial nets: small uniform weights, maxout, dropout."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_gen.networks.minibatch import MinibatchDeviation, MinibatchDiscrimination
from lit_gen.networks.mlp import MLP, Activation
from lit_gen.networks.network import Network, Shape


class UniformMLP(MLP):
    """An :class:`MLP` with small uniform weights and biases of zero: the generator of Goodfellow et al. 2014 on MNIST.

    Args:
        input_shape: shape of one input, without the batch.
        output_shape: shape of one output, without the batch.
        hidden_dims: width of each hidden layer.
        activation: non-linearity after each hidden layer.
        weight_range: weights are uniform between minus this and this.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        hidden_dims: Sequence[int] = (1200, 1200),
        activation: Activation = "relu",
        weight_range: float = 0.05,
    ) -> None:
        super().__init__(input_shape, output_shape, hidden_dims, activation)
        start_uniform(self, weight_range)

    @torch.no_grad()
    def set_output_bias(self, bias: Tensor) -> None:
        """What the network adds to its last product: ``output_shape``, or flat."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        last.bias.copy_(bias.flatten())


class Maxout(nn.Module):
    """The largest of several linear maps, for each unit (Goodfellow et al. 2013, https://arxiv.org/abs/1302.4389).

    Args:
        inputs: units below.
        units: of this layer.
        pieces: linear maps for each unit.
    """

    def __init__(self, inputs: int, units: int, pieces: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, units * pieces)
        self.units = units

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs) -> (B, units)``."""
        return self.linear(x).unflatten(1, (self.units, -1)).amax(2)


class MaxoutMLP(Network):
    """Maxout layers with dropout before each: the discriminator of Goodfellow et al. 2014 on MNIST.

    Example:
        >>> import torch
        >>> MaxoutMLP((1, 28, 28), (1,))(torch.zeros(3, 1, 28, 28)).shape
        torch.Size([3, 1])

    Args:
        input_shape: shape of one input, without the batch.
        output_shape: shape of one output, without the batch.
        hidden_dims: units of each maxout layer.
        pieces: linear maps for each unit.
        input_dropout: share of the inputs dropped in training.
        dropout: share of the units of each layer dropped in training.
        weight_range: weights are uniform between minus this and this.
        minibatch_deviation: show the last layer how much the batch varies.
        minibatch_kernels: show the last layer how many images of the batch are close, by so many learned distances
            (:class:`~lit_gen.networks.MinibatchDiscrimination`).
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        hidden_dims: Sequence[int] = (240, 240),
        pieces: int = 5,
        input_dropout: float = 0.2,
        dropout: float = 0.5,
        weight_range: float = 0.005,
        minibatch_deviation: bool = False,
        minibatch_kernels: int = 0,
    ) -> None:
        super().__init__(input_shape, output_shape)
        if pieces < 1:
            raise ValueError(f"pieces must be at least 1, got {pieces}")
        widths = [math.prod(self.input_shape), *hidden_dims]
        layers: list[nn.Module] = [nn.Dropout(input_dropout)]
        for before, after in pairwise(widths):
            layers += [Maxout(before, after, pieces), nn.Dropout(dropout)]
        units = widths[-1]
        if minibatch_kernels:
            layers.append(MinibatchDiscrimination(units, minibatch_kernels))
            units += minibatch_kernels
        if minibatch_deviation:
            layers.append(MinibatchDeviation())
            units += 1
        self.layers = nn.Sequential(*layers, nn.Linear(units, math.prod(self.output_shape)))
        start_uniform(self, weight_range)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1)).unflatten(1, self.output_shape)


def start_uniform(network: nn.Module, weight_range: float) -> None:
    """Draw the weights of all linear layers and convolutions uniformly, and set their biases to zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            assert layer.bias is not None
            nn.init.uniform_(layer.weight, -weight_range, weight_range)
            nn.init.zeros_(layer.bias)
