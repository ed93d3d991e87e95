"""An exponential moving average of a network."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class MovingAverage(nn.Module):
    """A copy of a network whose weights follow those of the network slowly: w_average <- b w_average + (1 - b) w.

    Buffers (the running statistics of batch normalisation) are copied as they are: they are averages already. Nothing
    in the copy takes a gradient.

    Args:
        network: what is averaged; the average begins at its weights.
        decay: b, between 0 and 1; about the last 1 / (1 - b) updates count.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of an average must lie in [0, 1), got {decay}")
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False)

    def forward(self, *inputs: Any) -> Tensor:
        return self.network(*inputs)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Follow the network by one step."""
        self._follow(network, 1 - self.decay)

    @torch.no_grad()
    def restart(self, network: nn.Module) -> None:
        """Begin anew at the weights of the network."""
        self._follow(network, 1.0)

    def _follow(self, network: nn.Module, weight: float) -> None:
        for average, parameter in zip(self.network.parameters(), network.parameters(), strict=True):
            average.lerp_(parameter, weight)
        for copied, buffer in zip(self.network.buffers(), network.buffers(), strict=True):
            copied.copy_(buffer)
