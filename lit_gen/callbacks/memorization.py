"""The nearest training images beside samples, and how often they are copies."""

from collections.abc import Iterator, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from lit_gen.callbacks.evaluation import EvaluationCallback, Stage, evaluation, forked_generators, is_due, positive
from lit_gen.callbacks.logging import image_grid, log_image, writes_files
from lit_gen.callbacks.metrics import check_stages, make_extractor, real_data, write_receipts
from lit_gen.metrics import FeatureExtractor, NearestNeighbors, Receipt, judge_distances
from lit_gen.metrics.receipt import Setting
from lit_gen.models.base import Batch, GenerativeModel


def training_batches(trainer: pl.Trainer) -> Iterator[Any]:
    """Batches of the training data of the run's data module."""
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    datamodule.setup("fit")
    yield from datamodule.train_dataloader()


class Memorization(EvaluationCallback):
    """Shows samples with the training images nearest to them, and says how many seem to be copies.

    ``test/neighbours`` has a sample at the left of each row, and its nearest training images in order beside it. Of
    :func:`~lit_gen.metrics.memorization`, by the images of the test, are logged

    - ``test/copies``: the share of samples as near to a training image as only one held-out image in a hundred is:
      near 0.01 without copying, though blurred samples raise it too; 1 for a model that replays its training images;
    - ``test/memorization``: 0 where the nearest of all images to a sample is as often a held-out one as chance has it,
      1 where it never is. Blur does not matter, but where few images are held out its error is large; that is in the
      receipt, ``<run>/receipts/test-memorization.json``.

    Distances are those of pixels or of given features. Measured on one process, from a pass over the training data as
    training sees it (binarized or flipped at random, where it is). Any model that draws samples will do; a run without
    a data module has no training images to look at, and leaves it idle.

    Args:
        features: ``pixels``, ``inception``, ``inception:PATH``, or the path of a checkpoint of a ``Classifier``.
        num_samples: samples that are compared.
        num_shown: samples in the picture.
        num_neighbors: training images beside each.
        num_reference: held-out images that say how near is too near, at most.
        stages: any of ``val`` and ``test``.
        every_n_epochs: of validation: measure in every n-th epoch of a fit, and in the last.
        batch_size: samples drawn at a time.
        seed: of the noise.
    """

    def __init__(
        self,
        features: str = "pixels",
        num_samples: int = 1000,
        num_shown: int = 10,
        num_neighbors: int = 5,
        num_reference: int = 1000,
        stages: Sequence[Stage] = ("test",),
        every_n_epochs: int = 1,
        batch_size: int = 100,
        seed: int = 0,
    ) -> None:
        self.features = features
        self.num_samples = positive("num_samples", num_samples)
        self.num_shown = positive("num_shown", num_shown)
        self.num_neighbors = positive("num_neighbors", num_neighbors)
        if num_reference < 100:
            raise ValueError(f"num_reference must be at least 100, to know one in a hundred; got {num_reference}")
        self.num_reference = num_reference
        self.stages = check_stages(stages)
        self.every_n_epochs = positive("every_n_epochs", every_n_epochs)
        self.batch_size = positive("batch_size", batch_size)
        self.seed = seed
        # No attribute of the model, whose checkpoints would take its weights for their own.
        self._extractor: FeatureExtractor | None = None
        self._samples: Tensor | None = None
        self._to_held_out: NearestNeighbors | None = None
        self._reference: list[Tensor] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not isinstance(pl_module, GenerativeModel):
            raise TypeError(f"Memorization looks at samples, and {type(pl_module).__name__} draws none: leave it out")
        if trainer.datamodule is None:  # type: ignore[attr-defined]
            rank_zero_info("Memorization is idle: without a data module it finds no training images")
        elif self._extractor is None:
            with forked_generators(trainer.strategy.root_device, self.seed):
                self._extractor = make_extractor(self.features, pl_module)

    def on_evaluation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, stage: Stage, batch: Batch, batch_idx: int, dataloader_idx: int
    ) -> None:
        idle = self._extractor is None or stage not in self.stages or not trainer.is_global_zero
        if idle or not is_due(trainer, self.every_n_epochs):
            return
        images, _ = pl_module.unpack(batch)
        with evaluation(pl_module, self.seed):
            if self._samples is None or self._to_held_out is None:
                # Here and not at the end of the epoch, where averaged weights may have been swapped out again.
                sizes = [
                    min(self.batch_size, self.num_samples - start)
                    for start in range(0, self.num_samples, self.batch_size)
                ]
                self._samples = torch.cat([pl_module.sample(size) for size in sizes])
                self._to_held_out = NearestNeighbors(self._extract(self._samples))
                self._reference = []
            features = self._extract(images)
            self._to_held_out.update(features)
            missing = self.num_reference - sum(map(len, self._reference))
            if missing > 0:
                self._reference.append(features[:missing])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(trainer, pl_module, "test")

    def _extract(self, images: Tensor) -> Tensor:
        assert self._extractor is not None
        extractor = self._extractor.to(images.device)
        return torch.cat([extractor(part).features.cpu() for part in images.split(self.batch_size)])

    def _report(self, trainer: pl.Trainer, pl_module: Any, stage: Stage) -> None:
        samples, to_held_out = self._samples, self._to_held_out
        self._samples = self._to_held_out = None
        if samples is None or to_held_out is None:
            return
        seen = self._extract(samples)
        to_train = NearestNeighbors(seen)
        shown = NearestNeighbors(seen[: self.num_shown], self.num_neighbors)
        between = NearestNeighbors(torch.cat(self._reference))
        kept: dict[int, Tensor] = {}
        with evaluation(pl_module, self.seed):
            for batch in training_batches(trainer):
                images, _ = pl_module.unpack(batch)
                features, first = self._extract(images.to(pl_module.device)), to_train.count
                for neighbors in (to_train, shown, between):
                    neighbors.update(features)
                wanted = set(shown.numbers.flatten().tolist())
                kept = {number: image for number, image in kept.items() if number in wanted}
                kept |= {number: images[number - first].cpu() for number in wanted if number >= first}
        found = judge_distances(to_train, to_held_out, between)
        scores = {"copies": found.copies, "memorization": found.memorization}
        for name, value in scores.items():
            pl_module.log(f"{stage}/{name}", value, rank_zero_only=True)
        rows = [
            torch.stack([sample.cpu(), *(kept[number] for number in numbers)])
            for sample, numbers in zip(samples, shown.numbers.tolist())
        ]
        log_image(trainer, f"{stage}/neighbours", image_grid(torch.cat(rows), rows[0].shape[0]))
        if writes_files(trainer):
            assert self._extractor is not None
            settings: dict[str, Setting] = {
                "training_images": to_train.count,
                "threshold_of_copies": found.threshold,
                "standard_error_of_memorization": found.memorization_error,
            }
            receipts = [
                Receipt(
                    metric=name,
                    value=value,
                    std=None,
                    extractor=self._extractor.digest(),
                    extractor_description=self._extractor.description,
                    num_real=to_held_out.count,
                    num_generated=len(samples),
                    split=real_data(trainer, stage),
                    resize=self._extractor.resize,
                    dtype=self._extractor.dtype,
                    settings=settings,
                )
                for name, value in scores.items()
            ]
            write_receipts(trainer, f"{stage}-memorization", self.seed, receipts)
