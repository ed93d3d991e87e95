"""What several tests of the data sets use."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch import Tensor

from lit_gen.data import BatchLoader


def everything(loader: Any) -> tuple[Tensor, Tensor]:
    """All images and targets that a loader gives."""
    assert isinstance(loader, BatchLoader)
    images, targets = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(targets)


def picture(path: Path, mode: str = "RGB", size: tuple[int, int] = (12, 8), seed: int = 0) -> Path:
    """Write a picture of (width, height) in random colours."""
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    Image.fromarray(pixels.squeeze(-1) if channels == 1 else pixels).save(path)
    return path


def folder_of(root: Path, count: int = 40) -> Path:
    """A folder of two classes."""
    for i in range(count):
        (root / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        picture(root / "ab"[i % 2] / f"{i:03}.png", seed=i)
    return root


class Recorder(pl.LightningModule):
    """A model that learns a little from every batch, and remembers what it saw."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, 8, 8))
        self.seen: list[tuple[int, float]] = []
        self.validated: list[float] = []
        self.stop_after = stop_after

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, targets = batch
        if len(self.seen) == self.stop_after:
            raise InterruptedError
        self.seen.append((self.current_epoch, float((images * torch.arange(64).view(1, 8, 8)).sum() + targets.sum())))
        return (images - self.weight).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated.append(float(batch[0].sum()))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


def trainer(folder: Path, **options: Any) -> pl.Trainer:
    keep_all = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1, auto_insert_metric_name=False)
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[keep_all],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=1,
        **options,
    )
