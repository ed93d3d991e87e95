"""Log-likelihoods of models that know them up to the partition function."""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch

from lit_gen.callbacks.evaluation import EvaluationCallback, Stage, evaluation, is_due, positive
from lit_gen.callbacks.metrics import check_stages
from lit_gen.models.base import Batch, EstimatesPartition


class LogPartition(EvaluationCallback):
    """Logs log p(x) with log Z from annealed importance sampling, in both directions, so that the truth is bracketed.

    ``test/log_likelihood_ais`` is too high on average, ``test/log_likelihood_reverse_ais`` too low, both in nats, the
    mean over images; a wide gap means that neither is to be trusted. Logged besides: ``test/log_partition_ais`` and
    ``_reverse_ais``, each with ``_standard_error`` and ``_effective_sample_size``, the number of chains that count.

    Chains of the reverse direction begin at images of the first batch. Its bound holds as far as the burn-in has turned
    them into samples of the model.

    Args:
        num_chains: independent chains of each direction.
        num_temperatures: steps of annealing.
        burn_in: Gibbs steps from images to samples of the model, for the reverse direction.
        stages: any of ``val`` and ``test``.
        every_n_epochs: of validation: measure in every n-th epoch of a fit, and in the last.
        seed: of the chains.
    """

    def __init__(
        self,
        num_chains: int = 100,
        num_temperatures: int = 14_500,
        burn_in: int = 1000,
        stages: Sequence[Stage] = ("test",),
        every_n_epochs: int = 1,
        seed: int = 0,
    ) -> None:
        self.num_chains = positive("num_chains", num_chains)
        self.num_temperatures = positive("num_temperatures", num_temperatures)
        self.burn_in = positive("burn_in", burn_in)
        self.stages = check_stages(stages)
        self.every_n_epochs = positive("every_n_epochs", every_n_epochs)
        self.seed = seed
        self._values: dict[str, float] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not isinstance(pl_module, EstimatesPartition):
            raise TypeError(f"LogPartition needs a free energy, and {type(pl_module).__name__} has none: leave it out")

    def on_evaluation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, stage: Stage, batch: Batch, batch_idx: int, dataloader_idx: int
    ) -> None:
        if stage not in self.stages or not is_due(trainer, self.every_n_epochs):
            return
        images, _ = pl_module.unpack(batch)
        if batch_idx == 0:
            # One estimate for all processes; with the weights of the evaluation, which EMA may swap out at its end.
            values = self._estimate(pl_module, images) if trainer.is_global_zero else {}
            self._values = trainer.strategy.broadcast(values)
            for name, value in self._values.items():
                pl_module.log(f"{stage}/{name}", value, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        with evaluation(pl_module, self.seed):
            free_energy = pl_module.free_energy(images).double().mean()
        for direction in ("ais", "reverse_ais"):
            pl_module.log(
                f"{stage}/log_likelihood_{direction}",
                (-free_energy - self._values[f"log_partition_{direction}"]).float(),
                on_step=False,
                on_epoch=True,
                batch_size=len(images),
                sync_dist=True,
            )

    def _estimate(self, model: Any, images: torch.Tensor) -> dict[str, float]:
        start = images[torch.arange(self.num_chains, device=images.device) % len(images)]
        with evaluation(model, self.seed):
            estimates = {
                "log_partition_ais": model.log_partition_ais(self.num_chains, self.num_temperatures),
                "log_partition_reverse_ais": model.log_partition_reverse_ais(
                    start, self.num_temperatures, self.burn_in
                ),
            }
        values = {}
        for name, estimate in estimates.items():
            values[name] = estimate.log_partition
            values[f"{name}_standard_error"] = estimate.standard_error
            values[f"{name}_effective_sample_size"] = estimate.effective_sample_size
        return values
