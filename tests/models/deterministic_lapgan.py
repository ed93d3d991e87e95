"""A LAPGAN whose noise follows from the batch, so that runs differ by nothing but their arithmetic."""

from typing import Any

from torch import Tensor

from lit_gen.models import LAPGAN
from lit_gen.models.lapgan import Rung
from tests.models.written import WritesWeights


class Written(WritesWeights, LAPGAN):
    """Takes pixels of the batch for noise, and writes the weights that a process begins and ends with."""

    def fakes(self, images: Tensor, condition: Any = None) -> Tensor:
        rung: Rung = condition
        noise = images.flatten(1)[:, : self.latent_dim] if rung.coarse is None else images[:, :1].flip(3)
        return self.imagine(rung, noise, averaged=not self.training)
