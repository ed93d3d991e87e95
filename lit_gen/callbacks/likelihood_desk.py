"""Every estimate of log p(x) that fits a model, in one place and under one protocol."""

import logging
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lit_gen import __version__
from lit_gen.callbacks.estimator import Finding, LikelihoodEstimator, Moments, Work
from lit_gen.callbacks.estimators import ActiveUnits, Annealing, ImportanceSampling, ParzenWindow
from lit_gen.callbacks.evaluation import EvaluationCallback, Stage, evaluation, first, on_grey_levels, positive
from lit_gen.callbacks.ledger import Ledger, digest, model_digest
from lit_gen.callbacks.logging import run_folder, writes_files
from lit_gen.callbacks.metrics import real_data, write_receipts
from lit_gen.callbacks.partition import bar
from lit_gen.callbacks.pyramid_parzen import PyramidParzen
from lit_gen.metrics import Receipt
from lit_gen.models.base import Batch, GenerativeModel
from lit_gen.objectives import bits_per_dim

log = logging.getLogger(__name__)

EXTENT = ("num_images", "num_simulated")
"""Options that say how much is measured: with more, what was measured before is gone on with."""
DENSITY = "density of pixels in [0, 1], whose bits per dimension are 8 more for 256 grey levels, if dequantized"
DISCRETE = "probability of discrete pixels"


class LikelihoodDesk(EvaluationCallback):
    """Measures the likelihood of any model in ``lit-gen test``, or ``validate``, by every estimator that fits it.

    Without options: the bound with 5,000 samples, annealing in both directions, the Parzen window (of a pyramid also
    level by level) and active units. Named after what they estimate by (``test/log_likelihood_iw5000``,
    ``test/log_likelihood_ais`` and so on), in mean nats of an image, and of bounds and annealing also in bits per
    dimension. What a model or a run lacks is said in one line, and the rest measured. During a fit it rests.

    It may take hours, and may be interrupted: the results of every few images are kept beside the checkpoint, in
    ``likelihood_desk/``, under the weights, options and pixels that they belong to, and the same command goes on with
    the rest. Receipts go to ``<run>/receipts/<stage>_likelihood.json``. Several processes share the images.

    Example:
        >>> desk = LikelihoodDesk([ImportanceSampling(100), Annealing(num_images=50, num_temperatures=500)])

    Args:
        estimators: any of :class:`ImportanceSampling`, :class:`Annealing`, :class:`ParzenWindow`,
            :class:`PyramidParzen` and :class:`ActiveUnits`, with options; None: all of them as they are.
        max_rows: images decoded at a time, which bounds the memory. With another number the noise is another, and what
            was measured before is gone on with all the same.
        seed: of the noise.
    """

    def __init__(
        self, estimators: Sequence[LikelihoodEstimator] | None = None, max_rows: int = 1000, seed: int = 0
    ) -> None:
        if estimators is None:
            estimators = [ImportanceSampling(), Annealing(), ParzenWindow(), PyramidParzen(), ActiveUnits()]
        kinds = [type(estimator).__name__ for estimator in estimators]
        if not kinds or len(set(kinds)) < len(kinds):
            raise ValueError(f"estimators must be at least one, and no two of a kind, got {kinds or 'none'}")
        self.estimators = tuple(estimators)
        self.max_rows = positive("max_rows", max_rows)
        self.seed = seed
        self._able: list[LikelihoodEstimator] = []
        self._ledgers: dict[LikelihoodEstimator, Ledger] = {}
        self._moments: dict[LikelihoodEstimator, dict[str, Moments]] = {}
        self._seen = self._kept = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._able, self._moments = [], {}
        if trainer.state.fn == TrainerFn.FITTING:
            return
        if not isinstance(pl_module, GenerativeModel):
            rank_zero_info(f"LikelihoodDesk is idle: {type(pl_module).__name__} generates nothing")
            return
        with evaluation(pl_module, self.seed):
            reasons = {estimator: estimator.lacks(trainer, pl_module) for estimator in self.estimators}
        self._able = [estimator for estimator, reason in reasons.items() if reason is None]
        missing = [f"no {type(estimator).__name__}: {reason}" for estimator, reason in reasons.items() if reason]
        if missing:
            rank_zero_info(f"LikelihoodDesk{'' if self._able else ' is idle'}: {'; '.join(missing)}")

    def on_evaluation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, stage: Stage, batch: Batch, batch_idx: int, dataloader_idx: int
    ) -> None:
        if not self._able or trainer.state.fn == TrainerFn.FITTING:
            return
        # Annealing needs gradients, which tensors made in inference mode never have.
        with torch.inference_mode(False):
            images, condition = pl_module.unpack(batch)
            images, condition = images.clone(), apply_to_collection(condition, Tensor, Tensor.clone)
            if batch_idx + dataloader_idx == 0:
                self._open(trainer, pl_module, stage, images)
            name = (dataloader_idx, batch_idx, digest(images, condition))
            for estimator in self._able:
                count = len(images)
                if estimator.num_images is not None:
                    share = len(range(trainer.global_rank, estimator.num_images, trainer.world_size))
                    count = min(count, max(0, share - self._seen))
                if count:
                    work = Work("data", images[:count], first(condition, count))
                    self._measure(trainer, pl_module, estimator, work, name)
            self._seen += len(images)

    def _open(self, trainer: pl.Trainer, model: Any, stage: Stage, images: Tensor) -> None:
        self._seen = self._kept = 0
        measured = model_digest(model)
        folder = None if trainer.fast_dev_run else desk_folder(trainer)  # type: ignore[attr-defined]
        self._moments = {estimator: {} for estimator in self._able}
        for estimator in self._able:
            with evaluation(model, self.seed):
                facts = estimator.prepare(trainer, model, self.max_rows)
            if estimator.is_density(model) and not estimator.takes_grey_levels and on_grey_levels(images):
                log.warning(
                    f"The images lie on grey levels, where {type(estimator).__name__} measures a density: what it"
                    " gives depends on how sharp the density is there, and its bits per dimension bound nothing."
                    " Add noise of one level (--data.dequantize true)"
                )
            identity = {
                "model": type(model).__name__,
                "model_and_weights": measured,
                "estimator": type(estimator).__name__,
                "options": {name: value for name, value in estimator.options.items() if name not in EXTENT},
                "facts": facts,
                "precision": str(trainer.precision),
                "seed": self.seed,
                "stage": stage,
                "version": __version__,
            }
            self._ledgers[estimator] = Ledger(folder and folder / type(estimator).__name__, identity)
            with evaluation(model, self.seed):
                work = estimator.simulated(model)
            if work is not None:
                work = work.part(slice(trainer.global_rank, None, trainer.world_size))
                self._measure(trainer, model, estimator, work, (digest(work.images, work.condition),))

    def _measure(
        self, trainer: pl.Trainer, model: Any, estimator: LikelihoodEstimator, work: Work, batch: tuple[int | str, ...]
    ) -> None:
        """Measure those images of a batch that have not been measured before, a few at a time."""
        ledger, name = self._ledgers[estimator], (work.table, trainer.global_rank, trainer.world_size, *batch)
        found = ledger.read(name)
        rows = [] if found is None else [found[: len(work.images)]]
        done = sum(map(len, rows))
        self._kept += done
        step = estimator.images_at_a_time(self.max_rows)
        parts = list(pairwise([*range(done, len(work.images), step), len(work.images)]))
        label = f"{type(estimator).__name__} of {'simulated ' if work.latents is not None else ''}images"
        for number in bar(trainer, label)(range(len(parts))):
            start, end = parts[number]
            with evaluation(model, int(digest(self.seed, name, start)[:15], 16)):
                part = work.part(slice(start, end))
                rows.append(estimator.measure(model, part, self.max_rows, bar(trainer, "steps")).cpu().double())
            ledger.write(name, torch.cat(rows))
        if rows:
            self._moments[estimator].setdefault(work.table, Moments()).add(torch.cat(rows))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(trainer, pl_module, "test")

    def _report(self, trainer: pl.Trainer, model: Any, stage: Stage) -> None:
        if not self._moments or not self._able or trainer.state.fn == TrainerFn.FITTING:
            return
        receipts = []
        for estimator in self._able:
            moments = gathered(trainer, self._moments[estimator])
            density = estimator.is_density(model)
            for finding in estimator.conclude(moments):
                values = {finding.name: finding.value}
                if finding.in_bits:
                    name = finding.name.replace("log_likelihood", "bits_per_dim")
                    nats = torch.tensor(finding.value, dtype=torch.float64)
                    values[name] = bits_per_dim(nats, math.prod(model.image_shape), density).item()
                for name, value in values.items():
                    model.log(f"{stage}/{name}", value, sync_dist=True)
                receipts.append(self._receipt(trainer, model, stage, estimator, finding, density))
        if self._kept:
            rank_zero_info(f"LikelihoodDesk: {self._kept} results are of an earlier run, from {desk_folder(trainer)}")
        if writes_files(trainer):
            write_receipts(trainer, f"{stage}_likelihood", self.seed, receipts)

    def _receipt(
        self,
        trainer: pl.Trainer,
        model: GenerativeModel,
        stage: Stage,
        estimator: LikelihoodEstimator,
        finding: Finding,
        density: bool,
    ) -> Receipt:
        options = {name: str(value) if isinstance(value, list) else value for name, value in estimator.options.items()}
        settings = {name: "none" if value is None else value for name, value in options.items()}
        settings |= {"pixels": DENSITY if density else DISCRETE, "image_shape": str(tuple(model.image_shape))}
        return Receipt(
            metric=finding.name,
            value=finding.value,
            std=finding.standard_error,
            extractor="none",
            extractor_description=f"no features: {type(estimator).__name__}; std is the standard error over images",
            num_real=finding.num_images,
            num_generated=finding.num_generated,
            split=real_data(trainer, stage),
            resize="none",
            dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
            settings=settings,
        )


def desk_folder(trainer: pl.Trainer) -> Path:
    """Where results are kept: beside the checkpoint that is measured, or in the folder of a run without one."""
    if not trainer.ckpt_path:
        return run_folder(trainer) / "likelihood_desk"
    folder = Path(trainer.ckpt_path).parent
    return (folder.parent if folder.name == "checkpoints" else folder) / "likelihood_desk"


def gathered(trainer: pl.Trainer, moments: dict[str, Moments]) -> dict[str, Moments]:
    """Those of all processes together, on each of them."""
    merged: dict[str, Moments] = {}
    for rank in range(trainer.world_size):
        for table, part in trainer.strategy.broadcast(moments, src=rank).items():
            merged.setdefault(table, Moments()).merge(part)
    return merged
