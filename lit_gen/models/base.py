"""The contract of every model: ``LitGenModule -> GenerativeModel -> one kind -> one paper``."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lit_gen.models.capabilities import (
    BoundsFreeEnergy,
    CaptionConditional,
    ClassConditional,
    ComparesImages,
    CompletesShapes,
    Conditional,
    Decodes,
    Dreams,
    Encodes,
    EstimatesLevels,
    EstimatesLogLikelihood,
    EstimatesPartition,
    Frame,
    GeneratesViews,
    HasChains,
    HasDiscriminator,
    HasFeatureMaps,
    HasFilters,
    HasFreeEnergy,
    HasHiddenUnits,
    HasLogProb,
    HasLowerBound,
    HasReconstructionTrajectory,
    HasTrajectory,
    InfersLatents,
    Inpaints,
    Reconstructs,
    RenderedViews,
)
from lit_gen.models.checkpoint import check_storable, plain, stored_hyperparameters
from lit_gen.models.optimizers import FusedAdam
from lit_gen.networks import Likelihood, Network, Recorded, Shape
from lit_gen.objectives import LikelihoodTerms, bits_per_dim

__all__ = [
    "BoundsFreeEnergy",
    "CaptionConditional",
    "ClassConditional",
    "ComparesImages",
    "CompletesShapes",
    "Conditional",
    "Decodes",
    "Dreams",
    "Encodes",
    "EstimatesLevels",
    "EstimatesLogLikelihood",
    "EstimatesPartition",
    "Frame",
    "GeneratesViews",
    "GenerativeModel",
    "HasChains",
    "HasDiscriminator",
    "HasFeatureMaps",
    "HasFilters",
    "HasFreeEnergy",
    "HasHiddenUnits",
    "HasLogProb",
    "HasLowerBound",
    "HasReconstructionTrajectory",
    "HasTrajectory",
    "InfersLatents",
    "Inpaints",
    "LikelihoodModel",
    "LitGenModule",
    "Reconstructs",
    "RenderedViews",
    "repeat_condition",
]

Batch = tuple[Tensor, Any]

LOGGED_ENTRIES = 100
"""Of a list that is longer, loggers are told the length alone; the checkpoint has all of it."""


def repeat_condition(condition: Any, samples: int) -> Any:
    """A condition of B images, repeated as ``x.expand(samples, *x.shape).flatten(0, 1)`` repeats the images."""
    return apply_to_collection(condition, Tensor, lambda part: part.expand(samples, *part.shape).flatten(0, 1))


class LitGenModule(Recorded, pl.LightningModule, ABC):
    """What all modules share: checkpoints of plain values, gated logging, one step for one batch.

    A subclass calls ``super().__init__()`` and otherwise stores its arguments as it likes: what the checkpoint needs to
    rebuild the module is recorded here. A network that came in as a factory is kept under the name of its argument. A
    subclass that overrides ``on_save_checkpoint`` calls ``super()``.
    """

    monitor: str | None = "val/loss"
    """Logged value by which the best checkpoint is chosen; None: the newest is the best."""
    monitor_mode: Literal["min", "max"] = "min"
    """Whether the best is the smallest or the largest."""
    monitor_is_score = False
    """Whether a callback must measure :attr:`monitor`; in a run without it the newest checkpoint is the best."""

    def __init__(self) -> None:
        super().__init__()
        check_storable(self)
        arguments = self.specification()["init_args"]
        # Built by the command line, this takes what was parsed, optimizers included.
        self.save_hyperparameters()
        parsed = dict(self.hparams)
        if str(parsed.get("_class_path")).rpartition(".")[2] == type(self).__name__:
            # It names whatever the data can give, also what this model does not take.
            arguments = {name: value for name, value in parsed.items() if name in arguments or name.startswith("_")}
        self.hparams.clear()
        self.hparams.update(plain(arguments, strict=False))
        self._hparams_initial = copy.deepcopy(self._hparams)  # what loggers are given
        for name, value in self._hparams_initial.items():
            if isinstance(value, list) and len(value) > LOGGED_ENTRIES:  # a vocabulary
                self._hparams_initial[name] = f"{len(value):,} entries"
        self.last_values: dict[str, Tensor] = {}
        """Detached terms of the last training batch by name: what a callback inspects when something went wrong."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the name of every hook it calls, 46 times a step: past the checks for parameters and modules.
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the hyper-parameters plain, so that ``torch.load(weights_only=True)`` reads the file back."""
        checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY] = stored_hyperparameters(self)

    @property
    def should_log(self) -> bool:
        """Whether this training batch is one whose values go to the loggers (every ``log_every_n_steps``)."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and (self.trainer.fit_loop.epoch_loop._batches_that_stepped + 1) % every == 0

    def log_training(self, values: dict[str, Tensor], progress_bar: str = "loss") -> None:
        """Log values of a training batch as ``train/<name>``, on logging steps only (each call costs 0.3 ms).

        Args:
            values: scalars, or ``(B,)`` tensors that are averaged.
            progress_bar: the one that the progress bar shows.
        """
        self.last_values = {name: value.detach() for name, value in values.items()}
        if self.should_log:
            for name, value in self.last_values.items():
                self.log(f"train/{name}", value.float().mean(), prog_bar=name == progress_bar)

    def log_evaluation(self, stage: str, values: dict[str, Tensor], batch_size: int) -> None:
        """Log ``{val,test}/<name>``, averaged over all images of all processes.

        Args:
            stage: ``val`` or ``test``.
            values: scalars, or ``(B,)`` tensors.
            batch_size: number of images in this batch.
        """
        means = {f"{stage}/{name}": value.float().mean() for name, value in values.items()}
        self.log_dict(means, on_step=False, on_epoch=True, batch_size=batch_size, sync_dist=True)

    @contextmanager
    def one_step(self) -> Iterator[list[LightningOptimizer]]:
        """Optimizers of a manual ``training_step``, counted together as one step of the trainer.

        Lightning counts every ``optimizer.step()``: two optimizers would halve ``max_steps``, shift checkpoints and the
        logger's axis. Within this block the first step counts and the others do not; a block without any counts too.
        """
        loop = self.trainer.fit_loop.epoch_loop.manual_optimization
        profiler = self.trainer.profiler  # type: ignore[attr-defined]
        counted = False

        def before() -> None:
            if counted:
                profiler.start("optimizer_step")
            else:
                loop._on_before_step()

        def after() -> None:
            nonlocal counted
            if counted:
                profiler.stop("optimizer_step")
            else:
                loop._on_after_step()
                counted = True

        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        for optimizer in optimizers:
            assert isinstance(optimizer, LightningOptimizer)
            optimizer._on_before_step, optimizer._on_after_step = before, after
        yield optimizers
        if not counted:
            before()
            after()

    def with_scheduler(self, optimizer: Optimizer, make_scheduler: LRSchedulerCallable | None) -> Any:
        """What ``configure_optimizers`` returns for one optimizer: its schedule steps once an epoch.

        A ``ReduceLROnPlateau`` watches the value it names (Lightning's own class has ``monitor``), or :attr:`monitor`,
        and steps in epochs with validation.

        Raises:
            ValueError: a ``ReduceLROnPlateau`` names no value, and :attr:`monitor` is None.
        """
        if make_scheduler is None:
            return optimizer
        scheduler = make_scheduler(optimizer)
        if not isinstance(scheduler, ReduceLROnPlateau):
            return [optimizer], [scheduler]
        watched = getattr(scheduler, "monitor", self.monitor)
        if watched is None:
            raise ValueError(
                f"{type(self).__name__} has no value of its own that a ReduceLROnPlateau could watch; name one"
                " (lightning.pytorch.cli.ReduceLROnPlateau with monitor), or take a schedule that needs none"
            )
        every = self.trainer.check_val_every_n_epoch or 1
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": watched, "frequency": every},
        }

    def compiled_parts(self) -> list[nn.Module]:
        """Parts that ``torch.compile`` may take, each compiled on its own; override where a part must stay eager."""
        return [part for part in self.children() if isinstance(part, Network)]

    def compile_parts(self, **options: Any) -> None:
        """Compile what training runs, before it begins.

        Args:
            options: of ``torch.compile``.
        """
        for part in self.compiled_parts():
            part.compile(**options)


class GenerativeModel(LitGenModule):
    """A model that images can be drawn from.

    A subclass gives :meth:`draw`, or is one that :class:`Decodes` and inherits drawing z from the prior.

    Args:
        image_shape: ``(C, H, W)`` of one image, or ``(1, D, H, W)`` of voxels; the command line takes it from the data.
    """

    needs_binary = False
    """Whether pixels must be 0 or 1 for what the model says of its likelihood to hold."""

    def __init__(self, image_shape: Shape) -> None:
        super().__init__()
        if len(image_shape) < 3 or min(image_shape) < 1:
            raise ValueError(f"image_shape must be (channels, height, width), got {tuple(image_shape)}")
        self.image_shape = tuple(image_shape)

    @torch.no_grad()
    def sample(self, num_samples: int, condition: Any = None) -> Tensor:
        """Draw images.

        Neither train/eval mode nor the seed is touched: the caller sets both.

        Args:
            num_samples: how many.
            condition: what to generate, for a :class:`Conditional` model; None draws from its prior over conditions.

        Returns:
            ``(num_samples, *image_shape)``, float32 in [0, 1], on the model's device: the mean E[x given z] for a model
            with a pixel likelihood.

        Raises:
            ValueError: no samples asked for, or a condition for a model that takes none.
        """
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        if isinstance(self, Conditional):
            condition = self.sample_condition(num_samples) if condition is None else condition
            condition = move_data_to_device(condition, self.device)
        elif condition is not None:
            raise ValueError(f"{type(self).__name__} takes no condition, got {condition!r}; leave it out")
        return self.draw(num_samples, condition).float()

    def draw(self, num_samples: int, condition: Any = None) -> Tensor:
        """The sampling procedure of the model, called by :meth:`sample`: ``(num_samples, *image_shape)`` in [0, 1]."""
        if not isinstance(self, Decodes):
            raise NotImplementedError(f"{type(self).__name__} must define draw")
        return self.decode_images(self.sample_latents(num_samples, condition), condition)

    def unpack(self, batch: Batch) -> tuple[Tensor, Any]:
        """Images and condition of a batch ``(images, target)``.

        Raises:
            ValueError: images of another shape than the model's.
        """
        images, target = batch
        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"{type(self).__name__} was built for images of shape {self.image_shape}, the data gives"
                f" {tuple(images.shape[1:])}; set data.image_size and data.channels, or build the model with that"
                " shape"
            )
        if not isinstance(self, Conditional):
            return images, None
        if target is None:
            names = ", ".join(self.condition_fields)
            raise ValueError(f"{type(self).__name__} is conditioned on {names}, the data has none; use labelled data")
        return images, self.target_condition(target)

    def refuse_half_precision(self) -> None:
        """Refuse to train in half precision throughout: ``setup`` of every model of densities or energies calls this.

        Raises:
            ValueError: the trainer's precision is ``bf16-true`` or ``16-true``.
        """
        if self.trainer.precision in ("bf16-true", "16-true"):
            half = self.trainer.precision
            raise ValueError(
                f"likelihoods and energies are wrong in precision {half}, which rounds the grey levels of the images"
                f" themselves; use {half.replace('true', 'mixed')}"
            )

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """As many samples as the batch has images, given the batch's conditions if the model takes any."""
        images, condition = self.unpack(batch)
        return self.sample(len(images), condition)


class LikelihoodModel(GenerativeModel):
    """A model trained by (a bound on) its likelihood with one optimizer.

    A subclass gives :meth:`objective`; a variant overrides that, or the parts it is made of.

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        optimizer: takes the parameters.
        lr_scheduler: takes the optimizer; stepped after each epoch.
    """

    is_density = False
    """Whether ``elbo`` is a density over continuous pixels: decides the conversion to bits per dimension."""
    minimises_added_loss = False
    """Whether :meth:`objective` minimises what a ``PerceptualLikelihood`` adds; one that it ignores is refused."""

    def __init__(
        self,
        image_shape: Shape,
        optimizer: OptimizerCallable = FusedAdam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(image_shape)
        self.make_optimizer = optimizer
        self.make_lr_scheduler = lr_scheduler

    @abstractmethod
    def objective(self, images: Tensor, condition: Any = None) -> LikelihoodTerms:
        """The terms of each image, ``(B,)`` each, in nats.

        Args:
            images: ``(B, *image_shape)`` in [0, 1].
            condition: for a :class:`Conditional` model.
        """

    def setup(self, stage: str) -> None:
        self.refuse_half_precision()
        for part in self.children():
            if isinstance(part, Likelihood) and part.adds_loss and not self.minimises_added_loss:
                raise ValueError(
                    f"the objective of {type(self).__name__} would ignore the distance of its {type(part).__name__};"
                    " take VAE, ConvVAE or ConditionalVAE, or a plain likelihood"
                )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, condition = self.unpack(batch)
        loss, values = self.measure("train", images, condition)
        self.log_training(values)
        return loss.mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("test", batch)

    def _evaluate(self, stage: str, batch: Batch) -> None:
        images, condition = self.unpack(batch)
        with torch.no_grad():
            _, values = self.measure(stage, images, condition)
        if "elbo" in values:
            values["bits_per_dim"] = bits_per_dim(values["elbo"], math.prod(self.image_shape), self.is_density)
        self.log_evaluation(stage, values, len(images))

    def measure(self, stage: str, images: Tensor, condition: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of each image, and what is logged by name; a model that tells more, or other things, overrides it.

        Args:
            stage: ``train``, ``val`` or ``test``.
            images: ``(B, *image_shape)`` in [0, 1].
            condition: for a :class:`Conditional` model.

        Returns:
            ``(B,)``, and ``(B,)`` each.
        """
        terms = self.objective(images, condition)
        return terms.loss, self.named(terms)

    @staticmethod
    def named(terms: LikelihoodTerms) -> dict[str, Tensor]:
        """The terms that there are, by name."""
        return {name: value for name, value in terms._asdict().items() if value is not None}

    def configure_optimizers(self) -> Any:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return self.with_scheduler(self.make_optimizer(trained), self.make_lr_scheduler)
