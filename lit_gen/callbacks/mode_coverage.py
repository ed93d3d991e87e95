"""How many of the modes of stacked digits samples fall into."""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_gen.callbacks.evaluation import EvaluationCallback, Stage, evaluation, forked_generators, is_due, positive
from lit_gen.callbacks.metrics import batch_seed, check_stages
from lit_gen.metrics import ClassifierFeatures, mode_statistics, stacked_classes
from lit_gen.models.base import Batch, GenerativeModel
from lit_gen.models.checkpoint import load_model

KINDS = ("", "_real")


class ModeCoverage(EvaluationCallback):
    """Logs how many modes samples of a model of ``StackedMNIST`` fall into, and how evenly, as ``{val,test}/modes``.

    Each of the three planes of an image is seen by a classifier of grey digits; three digits are one of 1,000 modes.
    ``modes`` is how many occur, ``modes_kl`` the KL of their frequencies from equal ones in nats (Lin et al. 2018,
    PacGAN, https://arxiv.org/abs/1712.04086, section 4.2, with 26,000 samples); ``modes_real`` and ``modes_kl_real``
    are the same for the images themselves, as many as there are. Equally likely modes have a KL of 0.019 with 26,000
    samples, and more with fewer (:func:`~lit_gen.metrics.mode_statistics`).

    Args:
        classifier: path of a checkpoint of a ``Classifier`` of grey images, trained on the digits that are stacked:
            MNIST, or the embedded ones.
        num_samples: samples of all processes together.
        stages: any of ``val`` and ``test``.
        every_n_epochs: of validation: measure in every n-th epoch of a fit, and in the last.
        batch_size: samples drawn at a time.
        seed: of the noise.
    """

    def __init__(
        self,
        classifier: str,
        num_samples: int = 26_000,
        stages: Sequence[Stage] = ("test",),
        every_n_epochs: int = 1,
        batch_size: int = 500,
        seed: int = 0,
    ) -> None:
        self.classifier = str(classifier)
        self.num_samples = positive("num_samples", num_samples)
        self.stages = check_stages(stages)
        self.every_n_epochs = positive("every_n_epochs", every_n_epochs)
        self.batch_size = positive("batch_size", batch_size)
        self.seed = seed
        self._seer: ClassifierFeatures | None = None
        self._counts: dict[str, Tensor] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not isinstance(pl_module, GenerativeModel):
            raise TypeError(f"ModeCoverage counts samples, and {type(pl_module).__name__} draws none: leave it out")
        if self._seer is None:
            # Building a network draws its weights.
            with forked_generators(trainer.strategy.root_device, self.seed):
                self._seer = ClassifierFeatures(load_model(self.classifier))
        seen = tuple(self._seer.network.image_shape)  # type: ignore[arg-type]
        if seen != (1, *pl_module.image_shape[1:]):
            raise ValueError(
                f"{self.classifier!r} is a classifier of images of {seen}, and the planes of the model's images are"
                f" {(1, *pl_module.image_shape[1:])}: take one of the single digits, in grey, of this size"
            )

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(trainer, pl_module, "test")

    def on_evaluation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, stage: Stage, batch: Batch, batch_idx: int, dataloader_idx: int
    ) -> None:
        if stage not in self.stages or not is_due(trainer, self.every_n_epochs):
            return
        assert self._seer is not None
        seer = self._seer.to(pl_module.device)
        if batch_idx == 0:
            modes = (seer.num_classes or 0) ** pl_module.image_shape[0]
            self._counts = {kind: torch.zeros(modes, dtype=torch.int64, device=pl_module.device) for kind in KINDS}
            # Here and not at the end of the epoch, where averaged weights may have been swapped out again.
            share = len(range(trainer.global_rank, self.num_samples, trainer.world_size))
            with evaluation(pl_module, batch_seed(self.seed, trainer, batch_idx)):
                for start in range(0, share, self.batch_size):
                    self._count("", seer, pl_module.sample(min(self.batch_size, share - start)))
        self._count("_real", seer, pl_module.unpack(batch)[0])

    def _count(self, kind: str, seer: ClassifierFeatures, images: Tensor) -> None:
        logits = seer(images.flatten(0, 1)[:, None]).logits
        assert logits is not None
        classes = stacked_classes(logits.argmax(1).view(len(images), -1), logits.shape[1])
        self._counts[kind] += torch.bincount(classes, minlength=len(self._counts[kind]))

    def _report(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: Stage) -> None:
        if stage not in self.stages or not self._counts or not is_due(trainer, self.every_n_epochs):
            return
        for kind in KINDS:
            total: Tensor = trainer.strategy.reduce(self._counts[kind], reduce_op="sum")
            found = mode_statistics(total)
            # Every process has the sums of all.
            pl_module.log(f"{stage}/modes{kind}", float(found.modes), sync_dist=False, rank_zero_only=False)
            pl_module.log(f"{stage}/modes_kl{kind}", found.kl, sync_dist=False, rank_zero_only=False)
        self._counts = {}
