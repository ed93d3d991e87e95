"""Scores of samples and of the likelihood, at the end of validation and test."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import lightning.pytorch as pl
from torch import Tensor

from lit_gen.callbacks.evaluation import (
    EvaluationCallback,
    Stage,
    evaluation,
    forked_generators,
    is_due,
    positive,
)
from lit_gen.callbacks.files import write_whole
from lit_gen.callbacks.logging import batch_step, run_folder, writes_files
from lit_gen.metrics import (
    ClassifierFeatures,
    FeatureExtractor,
    GenerationScores,
    InceptionV3,
    MetricName,
    Pixels,
    Receipt,
)
from lit_gen.models.base import Batch, GenerativeModel, HasLowerBound, Reconstructs
from lit_gen.models.checkpoint import load_model

SEED_STRIDE = 1_000_003
"""Far enough apart that the noise of one batch or process is not that of another under a neighbouring seed."""


def batch_seed(seed: int, trainer: pl.Trainer, batch_idx: int) -> int:
    """A seed of its own for every batch of every process."""
    return seed + SEED_STRIDE * (batch_idx * trainer.world_size + trainer.global_rank)


@runtime_checkable
class HasProtocol(Protocol):
    """A data module that says of itself what a score depends on; those of ``lit_gen.data`` do, any may."""

    protocol: str
    """One line: data set, splits, and whatever is done to images."""


@runtime_checkable
class HasReference(Protocol):
    """A data module that gives its training images as evaluation would see them; those of ``lit_gen.data`` do."""

    def reference_dataloader(self) -> Iterable[Batch]:
        """Batches of this process's share of the training images: each image once, not augmented."""


INCEPTION_FILE = "inception:"
"""What stands before the path of Inception weights in ``features``."""


class GenerationMetrics(EvaluationCallback):
    """Logs FID, KID, precision, recall, density and coverage of samples as ``{val,test}/fid`` and so on.

    The real images are those of the validation or test data, or the training images. Samples are drawn with the
    averaged weights (EMA) if there are any, from the same noise every time. A checkpoint can be chosen by any of the
    values (``--trainer.callbacks+=BestAndLast --trainer.callbacks.monitor=val/fid``). Receipts go to
    ``<run>/receipts/<stage>.json``; they name the data by the ``protocol`` of the data module, if it has one.

    Args:
        features: ``inception`` (natural images; needs the extra ``[fid]``), ``inception:PATH`` for weights on this
            machine instead of downloaded ones, ``pixels``, or the path of a checkpoint of a ``Classifier`` trained on
            this kind of data.
        metrics: any of ``fid``, ``inception_score``, ``kid``, ``precision_recall``, ``density_coverage``.
        num_samples: samples of all processes together; None: as many as there are real images.
        stages: any of ``val`` and ``test``.
        every_n_epochs: measure in every n-th epoch of a fit, and in the last.
        batch_size: samples drawn at a time.
        seed: of the noise.
        of: what is measured: ``samples``, or ``reconstructions`` of the real images, which tell of an autoencoder how
            real it makes them look.
        real: which images are the real ones: those of the ``evaluation``, or the training images (``train``), each once
            and not augmented, for data with few others: FID needs thousands. A model that copies its training images
            then looks good: see ``Memorization``.
    """

    def __init__(
        self,
        features: str = "inception",
        metrics: Sequence[MetricName] = ("fid", "kid", "precision_recall", "density_coverage"),
        num_samples: int | None = None,
        stages: Sequence[Stage] = ("val", "test"),
        every_n_epochs: int = 1,
        batch_size: int = 100,
        seed: int = 0,
        of: Literal["samples", "reconstructions"] = "samples",
        real: Literal["evaluation", "train"] = "evaluation",
    ) -> None:
        if of not in ("samples", "reconstructions"):
            raise ValueError(f"of must be samples or reconstructions, got {of!r}")
        if of == "reconstructions" and num_samples is not None:
            raise ValueError(
                f"there are as many reconstructions as real images: leave num_samples out, got {num_samples}"
            )
        if real not in ("evaluation", "train"):
            raise ValueError(f"real must be evaluation or train, got {real!r}")
        if real == "train" and of == "reconstructions":
            raise ValueError("reconstructions are compared with the images they are of: leave real out, got 'train'")
        self.of = of
        self.real = real
        self.features = features
        self.metrics = tuple(metrics)
        self.num_samples = None if num_samples is None else positive("num_samples", num_samples)
        self.stages = check_stages(stages)
        self.every_n_epochs = positive("every_n_epochs", every_n_epochs)
        self.batch_size = positive("batch_size", batch_size)
        self.seed = seed
        # Not attributes of the model: its optimizer and its checkpoints would take the extractor's weights for its own.
        self._scores: dict[str, GenerationScores] = {}
        self._takes_real = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not isinstance(pl_module, GenerativeModel):
            raise TypeError(
                f"GenerationMetrics measures samples, and {type(pl_module).__name__} draws none: leave it out"
            )
        if self.of == "reconstructions" and not isinstance(pl_module, Reconstructs):
            raise TypeError(f"{type(pl_module).__name__} reconstructs nothing: set `of` to samples")
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        if self.real == "train" and not isinstance(datamodule, HasReference):
            raise TypeError(
                "real=train needs a data module with a reference_dataloader, which gives its training images as"
                f" evaluation would see them; got {'none' if datamodule is None else type(datamodule).__name__}: set"
                " `real` to evaluation"
            )
        if not self._scores:
            # Building a network draws its weights. The module is still on the CPU here, its device the trainer knows.
            with forked_generators(trainer.strategy.root_device, self.seed):
                extractor = make_extractor(self.features, pl_module)
            for name in self.stages:
                # The validation images are the same in every epoch: their features are computed once.
                self._scores[name] = GenerationScores(
                    extractor, self._split(trainer, name), self.metrics, reset_real_features=name != "val"
                )

    def _split(self, trainer: pl.Trainer, stage: Stage) -> str:
        """What receipts say of the data, by which those of samples do not compare with those of reconstructions."""
        if self.real == "train":
            return real_data(trainer, "train, not augmented")
        return real_data(trainer, stage) + (", reconstructed" if self.of == "reconstructions" else "")

    def logs(self, name: str) -> bool:
        """Whether a value of this name is among those that are measured."""
        stage, _, value = name.partition("/")
        return stage in self.stages and any(value in (metric, *metric.split("_")) for metric in self.metrics)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(trainer, pl_module, "test")

    def on_evaluation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, stage: Stage, batch: Batch, batch_idx: int, dataloader_idx: int
    ) -> None:
        if stage not in self._scores or not is_due(trainer, self.every_n_epochs):
            return
        scores = self._scores[stage].to(pl_module.device)
        if batch_idx == 0:
            self._takes_real = scores.needs_real
            scores.split = self._split(trainer, stage)  # a data module may know its sizes only once it is set up
        images, condition = pl_module.unpack(batch)
        if self._takes_real and self.real == "evaluation":
            scores.update(images, real=True)
        elif self._takes_real and batch_idx == 0:
            for others in trainer.datamodule.reference_dataloader():  # type: ignore[attr-defined]
                scores.update(pl_module.unpack(others)[0], real=True)
        # Here and not at the end of the epoch, where averaged weights may have been swapped out again.
        count = len(images)
        if self.num_samples is not None:
            share = len(range(trainer.global_rank, self.num_samples, trainer.world_size))
            count = share if batch_idx == 0 else 0
        elif self.real == "train" and (own := int(scores.counts.real)):
            count = own if batch_idx == 0 else 0
        with evaluation(pl_module, batch_seed(self.seed, trainer, batch_idx)):
            if self.of == "reconstructions":
                scores.update(pl_module.reconstruct(images, condition), real=False)
                return
            for start in range(0, count, self.batch_size):
                scores.update(pl_module.sample(min(self.batch_size, count - start)), real=False)

    def _report(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: Stage) -> None:
        if stage not in self._scores or not is_due(trainer, self.every_n_epochs):
            return
        with evaluation(pl_module, self.seed):
            receipts = self._scores[stage].compute()
        self._scores[stage].reset()
        for name, receipt in receipts.items():
            pl_module.log(f"{stage}/{name}", receipt.value, sync_dist=True)
        if writes_files(trainer):
            write_receipts(trainer, stage, self.seed, receipts.values())


def make_extractor(features: str, model: GenerativeModel) -> FeatureExtractor:
    """What ``features`` names: ``inception``, ``inception:PATH``, ``pixels``, or the checkpoint of a ``Classifier``."""
    if features == "inception":
        return InceptionV3()
    if features.startswith(INCEPTION_FILE):
        return InceptionV3(features.removeprefix(INCEPTION_FILE))
    if features == "pixels":
        return Pixels(model.image_shape)
    return ClassifierFeatures(load_model(features))


def write_receipts(trainer: pl.Trainer, name: str, seed: int, receipts: Iterable[Receipt]) -> None:
    """Write ``<run>/receipts/<name>.json``: the receipts, with the checkpoint and the seed they belong to."""
    content = {
        "checkpoint": None if trainer.ckpt_path is None else str(trainer.ckpt_path),
        "step": batch_step(trainer),
        "seed": seed,
        "scores": [receipt.to_dict() for receipt in receipts],
    }
    text = json.dumps(content, indent=2) + "\n"
    write_whole(run_folder(trainer) / "receipts" / f"{name}.json", lambda path: Path(path).write_text(text))


def real_data(trainer: pl.Trainer, split: str) -> str:
    """What the receipts say of the real images: the protocol of the data module, or its name, and the split."""
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    if isinstance(datamodule, HasProtocol):
        return f"{datamodule.protocol} [{split}]"
    return f"{'data' if datamodule is None else type(datamodule).__name__} [{split}]"


class ImportanceBound(EvaluationCallback):
    """Logs the importance-weighted bound on log p(x) as ``test/log_likelihood_iw<num_samples>``, mean nats of an image.

    The bound tightens with the number of samples (Burda et al. 2015, https://arxiv.org/abs/1509.00519); published
    values are often those of 200 or 5000.

    Args:
        num_samples: samples for each image.
        stages: any of ``val`` and ``test``.
        every_n_epochs: of validation: measure in every n-th epoch of a fit, and in the last.
        seed: of the noise.
    """

    def __init__(
        self, num_samples: int = 200, stages: Sequence[Stage] = ("test",), every_n_epochs: int = 1, seed: int = 0
    ) -> None:
        self.num_samples = positive("num_samples", num_samples)
        self.stages = check_stages(stages)
        self.every_n_epochs = positive("every_n_epochs", every_n_epochs)
        self.seed = seed

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not isinstance(pl_module, HasLowerBound):
            raise TypeError(f"ImportanceBound needs a bound, and {type(pl_module).__name__} has none: leave it out")

    def on_evaluation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, stage: Stage, batch: Batch, batch_idx: int, dataloader_idx: int
    ) -> None:
        if stage not in self.stages or not is_due(trainer, self.every_n_epochs):
            return
        images, condition = pl_module.unpack(batch)
        with evaluation(pl_module, batch_seed(self.seed, trainer, batch_idx)):
            bound: Tensor = pl_module.lower_bound(images, self.num_samples, condition)
        # Lightning averages over images and processes when it is told the batch size.
        pl_module.log(
            f"{stage}/log_likelihood_iw{self.num_samples}",
            bound.float().mean(),
            on_step=False,
            on_epoch=True,
            batch_size=len(images),
            sync_dist=True,
        )


def check_stages(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages.

    Raises:
        ValueError: none, or one that is neither ``val`` nor ``test``.
    """
    if not stages or set(stages) - {"val", "test"}:
        raise ValueError(f"stages must be one or both of val and test, got {list(stages)}")
    return tuple(stages)
