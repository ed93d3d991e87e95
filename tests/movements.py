"""What a training moves."""

import lightning.pytorch as pl
import torch


class Movements(pl.Callback):
    """Notes which parameters move in each epoch."""

    def __init__(self) -> None:
        self.moved: list[set[str]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.before = {name: value.detach().clone() for name, value in pl_module.named_parameters()}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now = pl_module.named_parameters()
        self.moved.append({name for name, value in now if not torch.equal(value, self.before[name])})
