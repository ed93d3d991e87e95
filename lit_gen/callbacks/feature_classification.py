"""How well images are classified by what a model has learnt to see without labels."""

from collections import Counter
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_gen.callbacks.evaluation import EvaluationCallback, Stage, evaluation, positive
from lit_gen.callbacks.memorization import training_batches
from lit_gen.metrics.linear_probe import FittedProbe, fit_probe, pooled_features
from lit_gen.models.base import Batch, HasFeatureMaps


class FeatureClassification(EvaluationCallback):
    """Logs ``test/feature_accuracy``, of a linear classifier on feature maps (Radford et al. 2015, section 5).

    Maps are max-pooled to 4x4 and strung together, the classifier is an L2-SVM whose cost is chosen by
    cross-validation (:func:`~lit_gen.metrics.linear_probe`). ``test/pixel_accuracy`` is that of the same classifier on
    bare pixels. Convolutions with weights at random make good features too: what was learnt is what the accuracy has
    gained since the first step. The data module gives the labelled training images.

    The published values: 82.8 % on CIFAR-10 by the features of a network trained on ImageNet, with all labels, and an
    error of 22.48 % on SVHN with 1000 labels, 100 of each class.

    Args:
        num_train: training images, at most; features of 10,000 images at 32x32 take some gigabytes. None: all.
        labels_per_class: take so many of each class; None: as they come.
        grid: height and width to which maps are pooled.
        folds: parts of cross-validation.
        seed: of the division into folds.
    """

    def __init__(
        self,
        num_train: int | None = 5000,
        labels_per_class: int | None = None,
        grid: int = 4,
        folds: int = 3,
        seed: int = 0,
    ) -> None:
        self.num_train = None if num_train is None else positive("num_train", num_train)
        self.labels_per_class = None if labels_per_class is None else positive("labels_per_class", labels_per_class)
        self.grid = positive("grid", grid)
        if folds < 2:
            raise ValueError(f"folds must be at least 2, got {folds}")
        self.folds = folds
        self.seed = seed
        self._probes: dict[str, FittedProbe] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not isinstance(pl_module, HasFeatureMaps):
            raise TypeError(
                f"FeatureClassification needs feature maps, and {type(pl_module).__name__} has none: leave it out"
            )
        if stage == "test" and trainer.datamodule is None:  # type: ignore[attr-defined]
            raise ValueError(
                "FeatureClassification fits a classifier to training images: give the data as a data module"
            )

    def on_evaluation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, stage: Stage, batch: Batch, batch_idx: int, dataloader_idx: int
    ) -> None:
        if stage != "test":
            return
        with evaluation(pl_module, self.seed):
            if batch_idx + dataloader_idx == 0:
                self._probes = self._fit(trainer, pl_module)
            images, targets = batch[0], labels(batch)
            rows = self._features(pl_module, images)
        for name, probe in self._probes.items():
            accuracy = probe.correct(rows[name], targets).float().mean().to(pl_module.device)
            pl_module.log(
                f"test/{name}_accuracy",
                accuracy,
                on_step=False,
                on_epoch=True,
                batch_size=len(images),
                sync_dist=True,
            )

    def _features(self, model: Any, images: Tensor) -> dict[str, Tensor]:
        maps = model.feature_maps(images)
        return {
            "feature": pooled_features(maps, self.grid).float().cpu(),
            "pixel": images.flatten(1).float().cpu(),
        }

    def _fit(self, trainer: pl.Trainer, model: Any) -> dict[str, FittedProbe]:
        gathered: dict[str, list[Tensor]] = {"feature": [], "pixel": []}
        classes: list[int] = []
        counts: Counter[int] = Counter()
        for batch in training_batches(trainer):
            chosen = []
            for number, target in enumerate(labels(batch).tolist()):
                full = self.num_train is not None and len(classes) >= self.num_train
                if not full and (self.labels_per_class is None or counts[target] < self.labels_per_class):
                    counts[target] += 1
                    classes.append(target)
                    chosen.append(number)
            if chosen:
                for name, rows in self._features(model, batch[0][chosen].to(model.device)).items():
                    gathered[name].append(rows)
            if self.num_train is not None and len(classes) >= self.num_train:
                break
        targets = torch.tensor(classes)
        return {
            name: fit_probe(torch.cat(rows), targets, folds=self.folds, seed=self.seed)
            for name, rows in gathered.items()
        }


def labels(batch: Batch) -> Tensor:
    """Class numbers ``(B,)`` of a batch.

    Raises:
        ValueError: it has none.
    """
    target = batch[1]
    if not isinstance(target, Tensor) or target.ndim != 1 or target.is_floating_point():
        raise ValueError(
            f"FeatureClassification needs class numbers (B,) with the images, got {target!r}; use labelled data"
        )
    return target
