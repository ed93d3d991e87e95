"""Models that tell the weights they begin and end with, so that runs in several processes can be compared."""

from pathlib import Path

import lightning.pytorch as pl
import torch


class WritesWeights(pl.LightningModule):
    """To be named before the model it is mixed into."""

    def on_train_start(self) -> None:
        super().on_train_start()
        self.start = {name: value.clone() for name, value in self.state_dict().items()}

    def on_train_end(self) -> None:
        super().on_train_end()
        torch.save({"start": self.start, "end": self.state_dict()}, Path(f"process{self.global_rank}.pt"))
