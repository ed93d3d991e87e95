"""How much the images drawn for captions look like the images that the captions describe."""

import math
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from lit_gen.callbacks.evaluation import EvaluationCallback, Stage, evaluation, is_due, positive
from lit_gen.callbacks.metrics import batch_seed, check_stages
from lit_gen.models.base import Batch, CaptionConditional, GenerativeModel

SMALLEST_SIDE = 6
"""Pixels that the Gaussian window of the index needs to mirror an image at its edge."""


class CaptionSimilarity(EvaluationCallback):
    """Logs the structural similarity index (SSI) of images drawn for captions and the images that these belong to.

    One image is drawn for each caption. ``test/ssi`` is the mean index, 1 for equal images, and ``test/ssi_std`` the
    standard deviation over images, as alignDRAW's table has them (Mansimov et al. 2016, section 4.3).
    ``test/ssi_shuffled`` is the mean for images of other captions, the next ones in the batch: what a model that
    ignores captions reaches too.

    The index is that of Wang et al. 2004 with a Gaussian window of 1.5 pixels, mean over channels and all places,
    images mirrored at their edges. Images under 6 pixels are too small for it.

    Args:
        num_images: of all processes together.
        stages: any of ``val`` and ``test``.
        every_n_epochs: of validation: measure in every n-th epoch of a fit, and in the last.
        seed: of the noise.
    """

    def __init__(
        self, num_images: int = 1_000, stages: Sequence[Stage] = ("test",), every_n_epochs: int = 1, seed: int = 0
    ) -> None:
        self.num_images = positive("num_images", num_images)
        self.stages = check_stages(stages)
        self.every_n_epochs = positive("every_n_epochs", every_n_epochs)
        self.seed = seed
        self._left = 0
        self._sums = torch.zeros(5)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not isinstance(pl_module, GenerativeModel) or not isinstance(pl_module, CaptionConditional):
            raise TypeError(
                f"CaptionSimilarity needs a model of captions, and {type(pl_module).__name__} is none: leave it out"
            )
        if not measurable(pl_module):
            rank_zero_info(f"CaptionSimilarity is idle: images of {pl_module.image_shape} are too small for the index")

    def on_evaluation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, stage: Stage, batch: Batch, batch_idx: int, dataloader_idx: int
    ) -> None:
        if stage not in self.stages or not is_due(trainer, self.every_n_epochs) or not measurable(pl_module):
            return
        if batch_idx + dataloader_idx == 0:
            self._left = len(range(trainer.global_rank, self.num_images, trainer.world_size))
            self._sums = torch.zeros(5, device=pl_module.device)
        images, captions = pl_module.unpack(batch)
        count = min(self._left, len(images))
        if not count:
            return
        self._left -= count
        with evaluation(pl_module, batch_seed(self.seed, trainer, batch_idx)):
            drawn = pl_module.sample(len(images), captions)
            own = similarity(drawn[:count], images[:count])
            # A batch of one image has no other.
            other = similarity(drawn[:count], images.roll(-1, 0)[:count]) if len(images) > 1 else own[:0]
        self._sums += torch.stack(
            [own.new_tensor(count), own.sum(), own.square().sum(), own.new_tensor(len(other)), other.sum()]
        )

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(trainer, pl_module, "test")

    def _report(self, trainer: pl.Trainer, pl_module: Any, stage: Stage) -> None:
        if stage not in self.stages or not is_due(trainer, self.every_n_epochs) or not measurable(pl_module):
            return
        sums = trainer.strategy.reduce(self._sums, reduce_op="sum")
        count, total, squares, others, total_of_others = sums.tolist()
        mean = total / count
        values = {"ssi": mean, "ssi_std": math.sqrt(max(0.0, squares / count - mean**2))}
        values |= {"ssi_shuffled": total_of_others / others} if others else {}
        pl_module.log_dict({f"{stage}/{name}": value for name, value in values.items()}, sync_dist=True)


def measurable(model: GenerativeModel) -> bool:
    """Whether its images are pictures large enough for the index."""
    return len(model.image_shape) == 3 and min(model.image_shape[1:]) >= SMALLEST_SIDE


def similarity(images: Tensor, others: Tensor) -> Tensor:
    """The index ``(B,)`` of pairs of images ``(B, C, H, W)`` in [0, 1]."""
    found = structural_similarity_index_measure(images.float(), others.float(), data_range=1.0, reduction="none")
    assert isinstance(found, Tensor)
    return found.reshape(len(images))
