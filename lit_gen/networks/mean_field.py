"""The feed-forward network that a deep Boltzmann machine becomes when it is fine-tuned to classify."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class MeanFieldClassifier(nn.Module):
    """Layers that see the one below and the mean-field values of the one above, as in the machine, and a softmax.

    h_l = sigmoid(W_l h_(l-1) + R_l mu_(l+1) + c_l), where mu comes from the machine and is an input like the image.

    Source: Salakhutdinov & Hinton 2009, Deep Boltzmann machines, section 3.3.

    Args:
        sizes: units of the visible and of each hidden layer.
        num_classes: number of classes.
    """

    def __init__(self, sizes: Sequence[int], num_classes: int) -> None:
        super().__init__()
        pairs = list(pairwise(sizes))
        self.up = nn.ModuleList(nn.Linear(below, above) for below, above in pairs)
        self.down = nn.ModuleList(nn.Linear(above, below, bias=False) for below, above in pairs[1:])
        self.output = nn.Linear(sizes[-1], num_classes)
        nn.init.zeros_(self.output.weight)

    @torch.no_grad()
    def start_from(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
        """Copy the machine.

        Args:
            weights: ``(units below, units above)`` of each pair of layers.
            biases: of each hidden layer.
        """
        for layer, weight, bias in zip(self.up, weights, biases, strict=True):
            layer.weight.copy_(weight.T)  # type: ignore[operator]
            layer.bias.copy_(bias)  # type: ignore[operator]
        for layer, weight in zip(self.down, weights[1:], strict=True):
            layer.weight.copy_(weight)  # type: ignore[operator]

    def forward(self, visible: Tensor, mean_field: Sequence[Tensor]) -> Tensor:
        """Logits ``(B, num_classes)``.

        Args:
            visible: ``(B, V)``, scaled as the machine's weights expect.
            mean_field: values of each hidden layer, ``(B, H_l)``.
        """
        layer = visible
        for number, up in enumerate(self.up):
            inputs = up(layer)
            if number + 1 < len(self.up):
                inputs = inputs + self.down[number](mean_field[number + 1])
            layer = torch.sigmoid(inputs)
        logits: Tensor = self.output(layer)
        return logits
