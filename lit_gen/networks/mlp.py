"""Fully connected networks."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from lit_gen.networks.network import Network, Shape

Activation = Literal["tanh", "relu", "leaky_relu", "softplus", "elu", "gelu", "silu"]
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "softplus": nn.Softplus,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


def hidden_layers(widths: Sequence[int], activation: Activation, batch_norm: bool) -> list[nn.Module]:
    """Linear layers between the given widths, each followed by its non-linearity.

    Args:
        widths: that of the input and of each layer.
        activation: non-linearity after each layer.
        batch_norm: batch normalization before each non-linearity.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers.append(nn.Linear(before, after))
        layers += [nn.BatchNorm1d(after)] if batch_norm else []
        layers.append(ACTIVATIONS[activation]())
    return layers


class MLP(Network):
    """Multi-layer perceptron between two shapes: flatten, hidden layers, a linear output, unflatten.

    With its defaults and one hidden layer it is the encoder, and the decoder, of Kingma & Welling (2013), appendix C.

    Example:
        >>> import torch
        >>> MLP((1, 28, 28), (40,), hidden_dims=[500])(torch.zeros(3, 1, 28, 28)).shape
        torch.Size([3, 40])

    Args:
        input_shape: shape of one input, without the batch.
        output_shape: shape of one output, without the batch.
        hidden_dims: width of each hidden layer.
        activation: non-linearity after each hidden layer.
        batch_norm: batch normalization before each non-linearity.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        hidden_dims: Sequence[int] = (500,),
        activation: Activation = "tanh",
        batch_norm: bool = False,
    ) -> None:
        super().__init__(input_shape, output_shape)
        widths = [math.prod(self.input_shape), *hidden_dims]
        hidden = hidden_layers(widths, activation, batch_norm)
        self.layers = nn.Sequential(*hidden, nn.Linear(widths[-1], math.prod(self.output_shape)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1)).unflatten(1, self.output_shape)


class GlorotMLP(MLP):
    """An :class:`MLP` that starts as in Glorot & Bengio (2010), with biases of zero: as those of Burda et al. (2015).

    Args:
        input_shape: shape of one input, without the batch.
        output_shape: shape of one output, without the batch.
        hidden_dims: width of each hidden layer.
        activation: non-linearity after each hidden layer.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        hidden_dims: Sequence[int] = (200, 200),
        activation: Activation = "tanh",
    ) -> None:
        super().__init__(input_shape, output_shape, hidden_dims, activation)
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    @torch.no_grad()
    def set_output_bias(self, bias: Tensor) -> None:
        """What the network adds to its last product: ``output_shape``, or flat."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        last.bias.copy_(bias.flatten())
