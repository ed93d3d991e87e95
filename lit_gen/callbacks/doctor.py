"""Says in plain words what is wrong with a training and what to try."""

import logging
import math
import statistics
import textwrap
from collections import Counter, deque
from contextlib import suppress
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor

from lit_gen.callbacks.evaluation import evaluation, first, is_due, on_grey_levels, positive
from lit_gen.callbacks.game import Game
from lit_gen.callbacks.remedies import clipping, either
from lit_gen.callbacks.symptoms import HiddenUnits, Posteriors, distance_moved, jumped, kl_per_unit, sample_spread
from lit_gen.inference import ACTIVE_VARIANCE, posterior_moments
from lit_gen.models.base import (
    Batch,
    Decodes,
    Dreams,
    Encodes,
    GenerativeModel,
    HasChains,
    HasDiscriminator,
    HasFreeEnergy,
    HasHiddenUnits,
    InfersLatents,
    LikelihoodModel,
    LitGenModule,
)

log = logging.getLogger(__name__)

DRAWS = 2
"""Of the latents of each image, where their means have no closed form: two tell how much of a variance is noise."""
LARGEST_WEIGHT = 20.0
"""Of a Boltzmann machine in health: weights of 5 are strong, and with one of 20 a single pixel decides about a unit."""
FEWEST_IMAGES = 100
"""From which a unit that is off for all of them counts as dead: a sparse one is on for one image in thirty."""


def fp16_scaler(trainer: pl.Trainer) -> torch.amp.GradScaler | None:
    """The scaler of the loss, which fp16 training alone has."""
    precision = trainer.precision_plugin
    return precision.scaler if isinstance(precision, MixedPrecision) else None


class Doctor(pl.Callback):
    """Stops on NaN before the weights are spoilt, and names collapse, explosions and mismatched data with advice.

    - A loss that is NaN or infinite stops the run before the optimizer steps (on an accelerator it is looked at on
      logging steps only), and no checkpoint is overwritten by weights that are not finite.
    - A loss far above its running median is reported.
    - ``val/active_units`` counts the latent units that carry anything; few or none is posterior collapse.
    - Samples much more alike than the images are mode collapse. Of an adversarial model more is compared: how much
      samples vary (``val/sample_spread``, 1 as images do), how many have a duplicate among the others
      (``val/duplicates``), how many different images there seem to be (the birthday test) and how few of the data's are
      near any. Its losses say nothing and are not judged; a discriminator that has won, or sleeps, or a critic whose
      loss has no end are told.
    - Grey pixels under a likelihood of binary ones, or under a density, make the loss no log-likelihood.
    - Of a Boltzmann machine: hidden units that are off, or on, for every image (``val/active_hidden_units`` counts the
      others), exploding weights, persistent chains that do not mix, and a free-energy gap that grows.

    Each finding is told once; what an untrained model shows too, and all of a Boltzmann machine, only after it lasted.

    Args:
        num_images: validation images from which active units are counted (on each process).
        num_samples: samples that are compared with each other.
        num_compared: the same of an adversarial model, and validation images that these are held against.
        patience: validations in a row after which what must last is reported.
        every_n_epochs: look at latents and samples in every n-th epoch, and in the last.
        seed: of the samples.
    """

    def __init__(
        self,
        num_images: int = 1000,
        num_samples: int = 16,
        patience: int = 3,
        every_n_epochs: int = 1,
        seed: int = 0,
        num_compared: int = 256,
    ) -> None:
        self.num_images = positive("num_images", num_images)
        for name, value in (("num_samples", num_samples), ("num_compared", num_compared)):
            if value < 2:
                raise ValueError(f"{name} must be at least 2, to compare them with each other; got {value}")
        self.num_samples = num_samples
        self.patience = positive("patience", patience)
        self.every_n_epochs = positive("every_n_epochs", every_n_epochs)
        self.seed = seed
        self._losses: deque[float] = deque(maxlen=100)
        self._posteriors = Posteriors()
        self._lasting: Counter[str] = Counter()
        self._told: set[str] = set()
        self._pixels_checked = False
        self._hidden = HiddenUnits()
        self._chains: Tensor | None = None
        self._free_energies: list[Tensor] = []
        self._gaps: deque[float] = deque(maxlen=self.patience)
        self._game = Game(num_compared, seed)

    def _tell(self, finding: str, advice: str) -> None:
        if finding not in self._told:
            self._told.add(finding)
            log.warning(textwrap.fill(f"Doctor: {advice}", 110))

    def _tell_if_lasting(self, finding: str, present: bool, advice: str) -> None:
        self._lasting[finding] = self._lasting[finding] + 1 if present else 0
        if self._lasting[finding] >= self.patience:
            self._tell(finding, advice)

    # ---- the loss

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        if not isinstance(pl_module, LitGenModule) or (loss.device.type != "cpu" and not pl_module.should_log):
            return
        value = loss.item()
        if not math.isfinite(value):
            self._stop(trainer, pl_module, value)
            return
        if isinstance(pl_module, HasDiscriminator):
            return  # the losses of players who move against each other rise and fall in health too
        scaler = fp16_scaler(trainer)
        if scaler is not None:
            value /= scaler.get_scale()  # Lightning hands over the loss times the scale
        if jumped(value, self._losses):
            self._tell(
                "jump",
                f"the loss jumped to {value:.4g} in epoch {trainer.current_epoch}, from a median of"
                f" {statistics.median(self._losses):.4g} before. Training is diverging:"
                f" {either(['lower the learning rate', *clipping(pl_module)])}.",
            )
        self._losses.append(value)

    def _stop(self, trainer: pl.Trainer, pl_module: LitGenModule, value: float) -> None:
        broken = {name: term for name, term in pl_module.last_values.items() if not bool(term.isfinite().all())}
        if not broken and fp16_scaler(trainer) is not None:
            return  # the scale of fp16 overflowed, which its scaler mends by itself
        terms = {name: term.float().mean().item() for name, term in broken.items() if name != "loss"} or {"loss": value}
        culprits = ", ".join(f"{name} is {mean}" for name, mean in terms.items())
        hints = ["lower the learning rate", *clipping(pl_module)]
        if not isinstance(pl_module, HasDiscriminator):
            hints.append("give a learned variance a floor")
        advice = either([*hints, "train in full precision (--trainer.precision 32-true)"])
        raise FloatingPointError(
            f"training stopped: {culprits} in epoch {trainer.current_epoch}, batch"
            f" {trainer.fit_loop.epoch_loop.batch_idx}, before the weights were changed by it."
            f" {advice[0].upper()}{advice[1:]}; --trainer.detect_anomaly true names the operation. The last checkpoint"
            " is unharmed"
        )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        for name, parameter in pl_module.named_parameters():
            if not bool(parameter.isfinite().all()):
                raise FloatingPointError(
                    f"training stopped: the weights {name} are no longer finite, so no checkpoint is overwritten with"
                    " them. Go on from the last one with a lower learning rate or with clipped gradients"
                )

    # ---- the data

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self._check_pixels(pl_module, batch)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if isinstance(pl_module, HasDiscriminator) and isinstance(pl_module, LitGenModule) and pl_module.should_log:
            self._game.watch(pl_module.last_values)

    def on_test_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._check_pixels(pl_module, batch)

    def _check_pixels(self, pl_module: pl.LightningModule, batch: Batch) -> None:
        if self._pixels_checked:
            return
        self._pixels_checked = True
        images = batch[0]
        if isinstance(pl_module, LikelihoodModel) and pl_module.is_density and on_grey_levels(images):
            self._tell(
                "density",
                "the images lie on grey levels, where the likelihood is a density of continuous pixels: it grows"
                " without limit as it sharpens there, elbo says little and bits_per_dim bounds nothing. Add noise of"
                " one level (--data.dequantize true), or take a likelihood of grey levels (of a VAE --model.likelihood"
                " DiscretizedLogisticLikelihood, of diffusion --model DDPM).",
            )
        if not isinstance(pl_module, GenerativeModel) or not pl_module.needs_binary:
            return
        if bool(((images > 0) & (images < 1)).any()):
            advice = "Binarize (--data.binarization stochastic, or static)"
            if isinstance(pl_module, LikelihoodModel):
                what = "the likelihood is one of binary pixels. The loss is then a cross-entropy, and elbo bounds no"
                remedy = "a likelihood of grey pixels (--model.likelihood DiscretizedLogisticLikelihood)"
            elif isinstance(pl_module, Decodes):
                self._tell(
                    "grey",
                    "the images have grey levels, and the model draws zeros and ones: by these alone a discriminator"
                    f" tells them apart. {advice}, or take a model of grey pixels (--model GAN).",
                )
                return
            else:
                what = "the visible units are binary. The free energy of an image then gives no"
                remedy = "visible units of grey pixels (--model.visible GaussianVisible)"
            self._tell(
                "grey",
                f"the images have grey levels, {what} log-likelihood: do not compare it with published values."
                f" {advice}, or take {remedy}.",
            )

    # ---- latents and samples

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not isinstance(pl_module, GenerativeModel) or not is_due(trainer, self.every_n_epochs):
            return
        images, condition = pl_module.unpack(batch)
        if isinstance(pl_module, HasDiscriminator):
            if trainer.is_global_zero:
                self._game.keep(pl_module, images)
        elif batch_idx == 0 and trainer.is_global_zero and len(images) > 1:
            with evaluation(pl_module, self.seed):
                # Samples of a Boltzmann machine are means, which are nearly equal where it has learnt little.
                draw = pl_module.dream if isinstance(pl_module, Dreams) else pl_module.sample
                self._compare_samples(draw(self.num_samples), images[:64])
        wanted = min(self.num_images - self._posteriors.count, len(images))
        if isinstance(pl_module, InfersLatents) and isinstance(pl_module, Decodes) and wanted > 0:
            with evaluation(pl_module, self.seed):
                self._look_at_posteriors(pl_module, images[:wanted], first(condition, wanted))
        self._look_at_machine(pl_module, images, batch_idx)

    def _look_at_posteriors(self, pl_module: Any, images: Tensor, condition: Any) -> None:
        if isinstance(pl_module, Encodes) and isinstance(pl_module, Decodes):
            posterior, prior = pl_module.encode(images, condition), pl_module.conditional_prior(condition)
            with suppress(NotImplementedError):  # a posterior may have no mean in closed form
                self._posteriors.add(posterior.mean, kl_per_unit(posterior, prior))
            return
        steps = pl_module.posterior_draws(images, DRAWS, condition)
        mean, error = posterior_moments(torch.cat([draws.flatten(2) for draws in steps], 2))
        self._posteriors.add(mean, None, error)

    def _compare_samples(self, samples: Tensor, images: Tensor) -> None:
        spread = sample_spread(samples, images)
        self._tell_if_lasting(
            "modes",
            spread < 0.2,
            f"the samples differ among themselves {spread:.2g} times as much as images do: the model draws nearly the"
            " same picture from all noise: this is mode collapse. In a variational model the decoder may ignore z: see"
            " val/active_units and the KL term.",
        )

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if isinstance(pl_module, GenerativeModel):
            for finding in self._game.findings(pl_module):
                self._tell_if_lasting(*finding)
        self._judge_posteriors(pl_module)
        self._judge_hidden_units(pl_module)

    def _judge_posteriors(self, pl_module: pl.LightningModule) -> None:
        posteriors, self._posteriors = self._posteriors, Posteriors()
        if posteriors.count < 2:
            return
        variances, kl = posteriors.variances(), posteriors.kl()
        active, units = int((variances > ACTIVE_VARIANCE).sum()), len(variances)
        pl_module.log("val/active_units", float(active), sync_dist=True)
        largest = "" if kl is None else f" The largest KL of a unit is {kl.max().item():.2g} nats."
        remedy = (
            " Let the weight of the KL rise slowly (--model.kl_warmup_steps) or lower it (--model.kl_weight), make the"
            " decoder weaker or the encoder stronger, or take fewer latent units if the reconstructions are good."
        )
        few = 0.1 * units
        if not isinstance(pl_module, Encodes):
            # Of many steps most may rest while others do the work.
            few = 0
            remedy = " Lower the learning rate, or clip gradients harder (--trainer.gradient_clip_val)."
        self._tell_if_lasting(
            "collapse",
            active <= few,
            f"{active} of {units} latent units are active, so the decoder hardly uses z: posterior collapse.{largest}"
            + remedy,
        )

    # ---- Boltzmann machines

    def _look_at_machine(self, pl_module: GenerativeModel, images: Tensor, batch_idx: int) -> None:
        wanted = self.num_images - self._hidden.count
        if isinstance(pl_module, HasHiddenUnits) and wanted > 0:
            with evaluation(pl_module, self.seed):
                self._hidden.add(pl_module.hidden_probabilities(images[:wanted]))
                if isinstance(pl_module, HasFreeEnergy):
                    self._free_energies.append(pl_module.free_energy(images[:wanted]).cpu())
        if batch_idx == 0 and isinstance(pl_module, HasChains):
            chains = pl_module.chain_images()
            if chains is not None and len(chains) > 1 and len(images) > 1:
                self._judge_chains(chains.detach().clone(), images)

    def _judge_chains(self, chains: Tensor, images: Tensor) -> None:
        before, self._chains = self._chains, chains
        spread = sample_spread(chains, images)
        same = before is not None and before.shape == chains.shape
        moved = distance_moved(before, chains) if before is not None and same else 1.0
        self._tell_if_lasting(
            "chains",
            spread < 0.2 or moved < 0.2,
            f"the persistent chains do not mix: they differ among themselves {spread:.2g} times as much as images do,"
            f" and came {moved:.2g} times as far since the last validation as two of them are apart. The gradient then"
            " pushes against a few of the model's beliefs, over and over. Lower the learning rate, or let the chains"
            " run further in each step (--model.negative_phase.steps).",
        )

    def _judge_hidden_units(self, pl_module: pl.LightningModule) -> None:
        hidden, self._hidden = self._hidden, HiddenUnits()
        if not hidden.count:
            return
        dead, saturated = int(hidden.dead().sum()), int(hidden.saturated().sum())
        units = len(hidden.dead())
        pl_module.log("val/active_hidden_units", float(units - dead - saturated), sync_dist=True)
        self._tell_if_lasting(
            "hidden",
            dead + saturated >= 0.5 * units and hidden.count >= FEWEST_IMAGES,
            f"of {units} hidden units {dead} are off and {saturated} on for every image, so that they tell nothing of"
            " it. Early steps may have been too large: lower the learning rate or the momentum, start from smaller"
            " weights, or take fewer hidden units if the samples are good.",
        )
        largest = max(float(weight.detach().abs().max()) for weight in pl_module.parameters() if weight.ndim > 1)
        self._tell_if_lasting(
            "weights",
            largest > LARGEST_WEIGHT,
            f"the largest weight is {largest:.3g}: weights explode, as they do under contrastive divergence when the"
            " negative phase does not reach the states that the model believes in. Take more Gibbs steps or persistent"
            " chains, lower the learning rate, or decay the weights (weight_decay of the optimizer).",
        )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        free_energies, self._free_energies = self._free_energies, []
        gap = trainer.callback_metrics.get("val/free_energy_gap")
        if gap is None or sum(map(len, free_energies)) < 2:
            return
        spread = torch.cat(free_energies).double().std().item()
        grows = bool(self._gaps) and gap.item() > min(self._gaps) + 0.1 * spread
        self._gaps.append(gap.item())
        self._tell_if_lasting(
            "gap",
            grows and gap.item() > 0.5 * spread,
            f"the free energy of validation images is {gap.item():.3g} nats above that of training images, and the"
            f" gap grows; among themselves images differ by {spread:.3g}. The model learns its training images by"
            " heart: decay the weights (weight_decay of the optimizer), take fewer hidden units, or stop earlier.",
        )
