"""Recurrent cells, plain and convolutional, with one interface."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lit_gen.networks.network import Recorded, Shape, full_precision


class LSTMState(NamedTuple):
    """What a cell remembers from step to step."""

    hidden: Tensor
    """(B, *state_shape) its output."""
    cell: Tensor
    """(B, *state_shape)."""


class RecurrentCell(Recorded, nn.Module, ABC):
    """One step of a long short-term memory: ``(B, *input_shape)`` and a state give the next state.

    Args:
        input_shape: shape of one input, without the batch.
        state_shape: shape of one hidden state, without the batch.
    """

    sizes = 2

    def __init__(self, input_shape: Shape, state_shape: Shape) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)
        self.state_shape = tuple(state_shape)

    def start(self, hidden: Tensor, batch_size: int) -> LSTMState:
        """The state before the first step: this hidden state ``state_shape`` in all rows, cells of zero."""
        hidden = hidden.expand(batch_size, *self.state_shape)
        return LSTMState(hidden, torch.zeros_like(hidden))

    @abstractmethod
    def gates(self, x: Tensor) -> Tensor:
        """Input, forget and output gate and candidate before their non-linearities, from input and hidden state."""

    @abstractmethod
    def head(self, outputs: int) -> nn.Module:
        """A new linear map of hidden states to ``outputs`` numbers (for each place, where states have places)."""

    def forward(self, x: Tensor, state: LSTMState) -> LSTMState:
        gates = full_precision(self.gates(torch.cat([x, state.hidden.to(x.dtype)], 1)))
        taken, kept, shown, candidate = gates.chunk(4, 1)
        cell = torch.sigmoid(kept) * state.cell + torch.sigmoid(taken) * torch.tanh(candidate)
        return LSTMState(torch.sigmoid(shown) * torch.tanh(cell), cell)


def linear_of_unit_gain(inputs: int, outputs: int) -> nn.Linear:
    """A linear map that starts with weights from N(0, 1 / inputs) and no bias."""
    linear = nn.Linear(inputs, outputs)
    nn.init.normal_(linear.weight, std=inputs**-0.5)
    nn.init.zeros_(linear.bias)
    return linear


class LSTMCell(RecurrentCell):
    """Long short-term memory with forget gates (Gers et al. 2000), without peepholes, and with one bias vector.

    Weights of the inputs start from N(0, 1 / inputs), those of the hidden state orthogonal, the bias of the forget gate
    at 1 and the others at 0: so that what is read reaches the latents, and these the canvas, from the first batch on.

    Args:
        input_shape: shape of one input, a vector.
        state_shape: shape of one hidden state, a vector.
    """

    def __init__(self, input_shape: Shape, state_shape: Shape) -> None:
        super().__init__(input_shape, state_shape)
        (inputs,), (units,) = self.input_shape, self.state_shape
        self.linear = nn.Linear(inputs + units, 4 * units)
        with torch.no_grad():
            nn.init.normal_(self.linear.weight[:, :inputs], std=inputs**-0.5)
            nn.init.orthogonal_(self.linear.weight[:, inputs:])
            nn.init.zeros_(self.linear.bias)
            self.linear.bias[units : 2 * units] = 1

    def gates(self, x: Tensor) -> Tensor:
        return self.linear(x)

    def head(self, outputs: int) -> nn.Module:
        return linear_of_unit_gain(self.state_shape[0], outputs)


class ConvLSTMCell(RecurrentCell):
    """Convolutional LSTM (Shi et al. 2015, https://arxiv.org/abs/1506.04214), without peepholes.

    Args:
        input_shape: ``(C, H, W)``.
        state_shape: ``(units, H, W)``.
        kernel_size: odd, of all convolutions.
    """

    def __init__(self, input_shape: Shape, state_shape: Shape, kernel_size: int = 3) -> None:
        super().__init__(input_shape, state_shape)
        if self.input_shape[1:] != self.state_shape[1:] or len(self.state_shape) != 3:
            raise ValueError(
                "inputs and states of a ConvLSTMCell must be (channels, height, width) of one size, got"
                f" {self.input_shape} and {self.state_shape}; take a reader that gives such maps (ConvReader)"
            )
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        self.kernel_size = kernel_size
        inputs, units = self.input_shape[0], self.state_shape[0]
        self.convolution = nn.Conv2d(inputs + units, 4 * units, kernel_size, padding=kernel_size // 2)

    def gates(self, x: Tensor) -> Tensor:
        return self.convolution(x)

    def head(self, outputs: int) -> nn.Module:
        return nn.Conv2d(self.state_shape[0], outputs, self.kernel_size, padding=self.kernel_size // 2)


CellFactory = Callable[[Shape, Shape], RecurrentCell]
