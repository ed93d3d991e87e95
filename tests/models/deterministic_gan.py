"""A GAN whose noise follows from the batch, so that runs differ by nothing but their arithmetic."""

from typing import Any

from torch import Tensor

from lit_gen.models import GAN
from lit_gen.networks import MLP, Shape
from tests.models.written import WritesWeights

SHAPE: Shape = (1, 8, 8)
LATENTS = 4


def small(input_shape: Shape, output_shape: Shape) -> MLP:
    return MLP(input_shape, output_shape, hidden_dims=[16])


class Deterministic(GAN):
    """Takes a few pixels of the batch for noise."""

    def fakes(self, images: Tensor, condition: Any = None) -> Tensor:
        return self.generate(images.flatten(1)[:, 20 : 20 + LATENTS], condition)


class Written(WritesWeights, Deterministic):
    """Writes the weights that a process begins and ends with."""
