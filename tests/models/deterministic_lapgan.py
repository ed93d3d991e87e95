"""A LAPGAN whose noise follows from the batch, so that runs differ by nothing but their arithmetic."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_gen.models import LAPGAN
from lit_gen.models.lapgan import Rung


class Written(LAPGAN):
    """Takes pixels of the batch for noise, and writes the weights that a process begins and ends with."""

    def fakes(self, images: Tensor, condition: Any = None) -> Tensor:
        rung: Rung = condition
        noise = images.flatten(1)[:, : self.latent_dim] if rung.coarse is None else images[:, :1].flip(3)
        return self.imagine(rung, noise, averaged=not self.training)

    def on_train_start(self) -> None:
        self.start = {name: value.clone() for name, value in self.state_dict().items()}

    def on_train_end(self) -> None:
        torch.save({"start": self.start, "end": self.state_dict()}, Path(f"process{self.global_rank}.pt"))
