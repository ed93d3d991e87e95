"""Grids of samples, of reconstructions and of filters."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_gen.callbacks.evaluation import FirstBatchCallback, evaluation, first, has_validation, is_due, positive
from lit_gen.callbacks.logging import image_grid, log_image
from lit_gen.models.base import ClassConditional, GenerativeModel, HasFilters, Reconstructs


class SampleGrid(FirstBatchCallback):
    """Logs a grid of samples, from the same noise every time, as ``val/samples`` and ``test/samples``.

    A run without validation logs ``train/samples`` at the end of its epochs. A model of up to 20 classes has a column
    for each, in their order.

    Args:
        num_samples: images in the grid, at most.
        columns: images in a row.
        every_n_epochs: act in every n-th epoch of a fit, and in the last.
        seed: of the noise.
    """

    def __init__(self, num_samples: int = 64, columns: int = 8, every_n_epochs: int = 1, seed: int = 0) -> None:
        super().__init__(every_n_epochs, seed)
        self.num_samples = positive("num_samples", num_samples)
        self.columns = positive("columns", columns)

    def show(self, trainer: pl.Trainer, model: Any, stage: str, images: Tensor | None, condition: Any) -> None:
        count, columns, wanted = self.num_samples, self.columns, None
        if isinstance(model, ClassConditional) and model.num_classes <= min(self.num_samples, 20):
            columns = model.num_classes
            count -= count % columns
            wanted = torch.arange(count) % columns
        log_image(trainer, f"{stage}/samples", image_grid(model.sample(count, wanted), columns))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if has_validation(trainer) or not trainer.is_global_zero or not is_due(trainer, self.every_n_epochs):
            return
        if isinstance(pl_module, GenerativeModel):
            with evaluation(pl_module, self.seed):
                self.show(trainer, pl_module, "train", None, None)


class ReconstructionGrid(FirstBatchCallback):
    """Logs images of the first batch, each above its reconstruction, as ``val/`` and ``test/reconstructions``.

    Args:
        num_images: images to reconstruct.
        columns: images in a row.
        every_n_epochs: act in every n-th epoch of a fit, and in the last.
        seed: of the noise, where reconstruction draws any.
    """

    capability = Reconstructs

    def __init__(self, num_images: int = 32, columns: int = 8, every_n_epochs: int = 1, seed: int = 0) -> None:
        super().__init__(every_n_epochs, seed)
        self.num_images = positive("num_images", num_images)
        self.columns = positive("columns", columns)

    def show(self, trainer: pl.Trainer, model: Any, stage: str, images: Tensor, condition: Any) -> None:
        images = images[: self.num_images]
        reconstructions = model.reconstruct(images, first(condition, len(images)))
        grid = image_grid(interleave(images, reconstructions, self.columns), self.columns)
        log_image(trainer, f"{stage}/reconstructions", grid)


class Filters(FirstBatchCallback):
    """Logs the weights of hidden units to the pixels, as ``val/filters`` and ``test/filters``.

    Grey is zero, and each unit is scaled by its own largest weight; the units with the largest weights come first.

    Args:
        num_filters: units in the grid.
        columns: units in a row.
        every_n_epochs: act in every n-th epoch of a fit, and in the last.
    """

    capability = HasFilters

    def __init__(self, num_filters: int = 100, columns: int = 10, every_n_epochs: int = 1) -> None:
        super().__init__(every_n_epochs)
        self.num_filters = positive("num_filters", num_filters)
        self.columns = positive("columns", columns)

    def show(self, trainer: pl.Trainer, model: Any, stage: str, images: Tensor, condition: Any) -> None:
        weights = model.filters().float()
        strongest = weights.flatten(1).norm(dim=1).argsort(descending=True)[: self.num_filters]
        log_image(trainer, f"{stage}/filters", image_grid(centred(weights[strongest]), self.columns))


def centred(weights: Tensor) -> Tensor:
    """Weights ``(N, C, H, W)``, or of voxels, as images in [0, 1]: each scaled by its largest, with zero at 1/2."""
    largest = weights.abs().amax(tuple(range(1, weights.ndim)), keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    return 0.5 + 0.5 * weights / largest


def interleave(above: Tensor, below: Tensor, columns: int) -> Tensor:
    """Rows of ``above`` and of ``below`` in turn, each of ``columns`` images; a last short row is filled with black.

    Args:
        above: ``(N, ...)``.
        below: ``(N, ...)``.
        columns: images in a row.

    Returns:
        ``(2 * columns * ceil(N / columns), ...)``.
    """
    missing = -len(above) % columns
    pairs = torch.stack([above, below.to(above)])  # (2, N, ...)
    pairs = torch.cat([pairs, pairs.new_zeros(2, missing, *above.shape[1:])], 1)
    return pairs.unflatten(1, (-1, columns)).transpose(0, 1).flatten(0, 2)
