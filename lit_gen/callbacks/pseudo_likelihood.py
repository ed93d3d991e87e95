"""A cheap measure of models that know p(x) up to a constant."""

from typing import Any

import lightning.pytorch as pl

from lit_gen.callbacks.evaluation import EvaluationCallback, Stage, evaluation, is_due, positive
from lit_gen.models.base import Batch, GenerativeModel, HasFreeEnergy


class PseudoLikelihood(EvaluationCallback):
    """Logs ``val/pseudo_log_likelihood`` of binary images, an estimate at the price of two free energies for each.

    The sum over pixels of log p(pixel given the others), in nats, the mean over images. It follows training where
    log p(x) is out of reach, bounds it in no direction, and says little of whether the chains' dreams are any good.
    Nothing is logged for images with grey levels.

    Args:
        every_n_epochs: act in every n-th epoch of a fit, and in the last.
        seed: of the choice of pixels, the same every time.
    """

    def __init__(self, every_n_epochs: int = 1, seed: int = 0) -> None:
        self.every_n_epochs = positive("every_n_epochs", every_n_epochs)
        self.seed = seed

    def on_evaluation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, stage: Stage, batch: Batch, batch_idx: int, dataloader_idx: int
    ) -> None:
        if not isinstance(pl_module, HasFreeEnergy) or not isinstance(pl_module, GenerativeModel):
            return
        if not pl_module.needs_binary or not is_due(trainer, self.every_n_epochs):
            return
        images, _ = pl_module.unpack(batch)
        if bool(((images > 0) & (images < 1)).any()):
            return
        # Other pixels in every batch: with the same ones the means of all batches would err together.
        with evaluation(pl_module, self.seed + batch_idx):
            found = pl_module.pseudo_log_likelihood(images).mean()
        pl_module.log(
            f"{stage}/pseudo_log_likelihood",
            found.float(),
            on_step=False,
            on_epoch=True,
            batch_size=len(images),
            sync_dist=True,
        )
