"""Log-likelihoods of models that know them up to the partition function."""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import Tensor
from tqdm import tqdm

from lit_gen.callbacks.evaluation import EvaluationCallback, Stage, evaluation, is_due, positive
from lit_gen.callbacks.metrics import check_stages
from lit_gen.models.base import Batch, BoundsFreeEnergy, EstimatesLogLikelihood, EstimatesPartition, HasFreeEnergy

log = logging.getLogger(__name__)

NORMALIZERS = {
    "ais": "log_partition_ais",
    "reverse_ais": "log_partition_reverse_ais",
    "low": "log_partition_reverse_ais_high",
    "high": "log_partition_ais_low",
    "raise": "log_partition_raise",
}
"""By which log Z each log-likelihood is normalised."""


class LogPartition(EvaluationCallback):
    """Logs log p(x) with log Z from annealed importance sampling, in both directions, so that the truth is bracketed.

    ``test/log_likelihood_ais`` is too high on average, ``test/log_likelihood_reverse_ais`` too low, both in nats, the
    mean over images; a wide gap means that neither is to be trusted. ``test/log_likelihood_low`` and ``_high`` are the
    two with three standard errors of log Z to be safe: the interval to state. Logged besides:
    ``test/log_partition_ais`` and ``_reverse_ais``, each with ``_low`` and ``_high`` (three standard errors),
    ``_standard_error`` and ``_effective_sample_size``, the number of chains that count.

    A model that only bounds its free energy (:class:`BoundsFreeEnergy`) has a bound in the place of log p(x):
    ``test/lower_bound_ais`` and so on, where the interval is that of the bound.

    Chains of the reverse direction begin at images of the first batch. Its bound holds as far as the burn-in has turned
    them into samples of the model, and a warning tells when the two directions contradict each other. RAISE needs no
    samples: ``test/log_likelihood_raise``, logged for a model that has it, is too low on average for the model that
    annealing makes. Its log Z comes from a few images, the free energies from all, so that it compares with the others;
    its error is ``test/log_partition_raise_standard_error``.

    Args:
        num_chains: independent chains of each direction.
        num_temperatures: steps of annealing.
        burn_in: Gibbs steps from images to samples of the model, for the reverse direction.
        raise_images: images of the first batch for RAISE, at least 2, or 0 for none; 100 of them cost as much as one
            direction with 100 chains.
        stages: any of ``val`` and ``test``.
        every_n_epochs: of validation: measure in every n-th epoch of a fit, and in the last.
        seed: of the chains.
    """

    def __init__(
        self,
        num_chains: int = 100,
        num_temperatures: int = 14_500,
        burn_in: int = 1000,
        raise_images: int = 20,
        stages: Sequence[Stage] = ("test",),
        every_n_epochs: int = 1,
        seed: int = 0,
    ) -> None:
        self.num_chains = positive("num_chains", num_chains)
        self.num_temperatures = positive("num_temperatures", num_temperatures)
        self.burn_in = positive("burn_in", burn_in)
        if raise_images < 0 or raise_images == 1:
            raise ValueError(f"raise_images must be 0 or at least 2, to tell their spread; got {raise_images}")
        self.raise_images = raise_images
        self.stages = check_stages(stages)
        self.every_n_epochs = positive("every_n_epochs", every_n_epochs)
        self.seed = seed
        self._values: dict[str, float] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        known = isinstance(pl_module, HasFreeEnergy | BoundsFreeEnergy)
        if not known or not isinstance(pl_module, EstimatesPartition):
            raise TypeError(f"LogPartition needs a free energy, and {type(pl_module).__name__} has none: leave it out")

    def on_evaluation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, stage: Stage, batch: Batch, batch_idx: int, dataloader_idx: int
    ) -> None:
        if stage not in self.stages or not is_due(trainer, self.every_n_epochs):
            return
        images, _ = pl_module.unpack(batch)
        if batch_idx == 0:
            # One estimate for all processes; with the weights of the evaluation, which EMA may swap out at its end.
            values = self._estimate(trainer, pl_module, images) if trainer.is_global_zero else {}
            self._values = trainer.strategy.broadcast(values)
            for name, value in self._values.items():
                pl_module.log(f"{stage}/{name}", value, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        if isinstance(pl_module, HasFreeEnergy):
            kind, energy = "log_likelihood", pl_module.free_energy
        else:
            kind, energy = "lower_bound", pl_module.free_energy_bound
        with evaluation(pl_module, self.seed):
            free_energy = energy(images).double().mean()
        for name, log_partition in NORMALIZERS.items():
            if log_partition in self._values:
                pl_module.log(
                    f"{stage}/{kind}_{name}",
                    (-free_energy - self._values[log_partition]).float(),
                    on_step=False,
                    on_epoch=True,
                    batch_size=len(images),
                    sync_dist=True,
                )

    def _estimate(self, trainer: pl.Trainer, model: Any, images: Tensor) -> dict[str, float]:
        start = images[torch.arange(self.num_chains, device=images.device) % len(images)]
        temperatures = self.num_temperatures
        with evaluation(model, self.seed):
            estimates = {
                "log_partition_ais": model.log_partition_ais(self.num_chains, temperatures, bar(trainer, "AIS")),
                "log_partition_reverse_ais": model.log_partition_reverse_ais(
                    start, temperatures, self.burn_in, bar(trainer, "reverse AIS")
                ),
            }
        values = {}
        for name, estimate in estimates.items():
            values[name] = estimate.log_partition
            values[f"{name}_low"] = estimate.low
            values[f"{name}_high"] = estimate.high
            values[f"{name}_standard_error"] = estimate.standard_error
            values[f"{name}_effective_sample_size"] = estimate.effective_sample_size
        below, above = estimates["log_partition_ais"], estimates["log_partition_reverse_ais"]
        if below.low > above.high:
            log.warning(
                "The two directions of annealing contradict each other: log Z is"
                f" {below.log_partition:.2f} by AIS, which is too low on average, and {above.log_partition:.2f} by"
                f" reverse AIS, which should be too high. {self.burn_in} Gibbs steps have not turned the images into"
                " samples of the model, which may believe in states unlike any image. Only the upper end (_high) still"
                " holds: raise burn_in, or train on with more Gibbs steps and a lower learning rate."
            )
        if self.raise_images and len(images) > 1 and isinstance(model, EstimatesLogLikelihood):
            values |= self._raise(trainer, model, images[: self.raise_images])
        return values

    def _raise(self, trainer: pl.Trainer, model: Any, images: Tensor) -> dict[str, float]:
        with evaluation(model, self.seed):
            found = model.log_likelihood_raise(images, 1, self.num_temperatures, bar(trainer, "RAISE"))
            # Images differ in log p(x) by tens of nats, and hardly in the log Z that each of them gives.
            log_partitions = -model.free_energy(images).double() - found
        return {
            "log_partition_raise": log_partitions.mean().item(),
            "log_partition_raise_standard_error": log_partitions.std().item() / math.sqrt(len(images)),
        }


def bar(trainer: pl.Trainer, name: str) -> Callable[[range], Iterable[int]]:
    """A progress bar below that of the trainer, or none where the trainer draws none."""
    above = trainer.progress_bar_callback
    if isinstance(above, TQDMProgressBar) and above.is_enabled:
        return partial(tqdm, desc=name, leave=False, dynamic_ncols=True)
    return iter
