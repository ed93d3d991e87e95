"""Reconstructions of several models side by side, and how each of their distances takes a shift."""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_gen.callbacks.evaluation import FirstBatchCallback, positive
from lit_gen.callbacks.logging import image_grid, log_image
from lit_gen.models.base import ComparesImages, Conditional, GenerativeModel, Reconstructs
from lit_gen.models.checkpoint import load_model
from lit_gen.objectives import shift


class ReconstructionColumns(FirstBatchCallback):
    """Logs images beside their reconstructions by several models, as ``val/`` and ``test/columns``.

    Columns from left to right: the images, each of the other models in their order, and the model of the run.

    Args:
        others: checkpoints, or folders of runs, of models that reconstruct images of the same shape.
        num_images: images, one a row.
        every_n_epochs: act in every n-th epoch of a fit, and in the last.
        seed: of the noise, where reconstruction draws any.
    """

    capability = Reconstructs

    def __init__(self, others: Sequence[str], num_images: int = 8, every_n_epochs: int = 1, seed: int = 0) -> None:
        super().__init__(every_n_epochs, seed)
        if isinstance(others, str) or not others:
            raise ValueError(f"others must be a list of checkpoints or folders of runs, got {others!r}")
        self.others = tuple(others)
        self.num_images = positive("num_images", num_images)
        self._models: list[GenerativeModel] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if not self._models and isinstance(pl_module, GenerativeModel) and self.applies(pl_module):
            self._models = [other(path, pl_module) for path in self.others]

    def show(self, trainer: pl.Trainer, model: Any, stage: str, images: Tensor, condition: Any) -> None:
        images = images[: self.num_images]
        columns = [images]
        for one in [*self._models, model]:
            columns.append(one.to(images.device).reconstruct(images))
        log_image(trainer, f"{stage}/columns", image_grid(torch.stack(columns, 1).flatten(0, 1), len(columns)))


def other(path: str, model: GenerativeModel) -> GenerativeModel:
    """A model to be shown beside another.

    Raises:
        ValueError: it does not reconstruct images of that shape.
    """
    found = load_model(path)
    if not isinstance(found, GenerativeModel) or not isinstance(found, Reconstructs) or isinstance(found, Conditional):
        raise ValueError(
            f"{path!r} holds a {type(found).__name__}, which does not reconstruct images by themselves; leave it out"
        )
    if found.image_shape != model.image_shape:
        raise ValueError(
            f"the model in {path!r} is of images of shape {found.image_shape}, the run of {model.image_shape}; take"
            " models of the same data"
        )
    return found


class ShiftExperiment(FirstBatchCallback):
    """Logs how much each distance of a model notices that an image has moved, as ``val/shift1_pixel`` and so on.

    The distance of an image from itself moved to the right, relative to its distance from another image: 0 is not to
    notice, 1 is to take the moved image for another one. Shifts of 1 to ``reach`` pixels.

    Args:
        reach: longest shift in pixels.
        every_n_epochs: act in every n-th epoch of a fit, and in the last.
    """

    capability = ComparesImages

    def __init__(self, reach: int = 2, every_n_epochs: int = 1) -> None:
        super().__init__(every_n_epochs)
        self.reach = positive("reach", reach)

    def show(self, trainer: pl.Trainer, model: Any, stage: str, images: Tensor, condition: Any) -> None:
        if len(images) < 2:
            return
        unlike = model.compare(images, images.roll(1, 0))
        for pixels in range(1, self.reach + 1):
            for name, distance in model.compare(shift(images, 0, pixels), images).items():
                noticed = distance.mean() / unlike[name].mean().clamp(min=1e-12)
                model.log(f"{stage}/shift{pixels}_{name}", noticed, on_step=False, on_epoch=True, rank_zero_only=True)
