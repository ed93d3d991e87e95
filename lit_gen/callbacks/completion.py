"""How well a model completes shapes that have been seen from one side."""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from lit_gen.callbacks.evaluation import EvaluationCallback, Stage, evaluation, is_due, positive
from lit_gen.callbacks.logging import image_grid, log_image
from lit_gen.callbacks.metrics import check_stages
from lit_gen.models.base import Batch, CompletesShapes
from lit_gen.models.capabilities import View
from lit_gen.rendering import render_voxels


class Completion(EvaluationCallback):
    """Logs the intersection over union of completed and true shapes, seen by a depth camera from one side.

    ``test/completion_iou`` counts the whole grid, ``test/completion_iou_unseen`` the voxels that the camera has not
    seen. Beside each stands ``..._nearest_neighbour``, for which the unseen voxels are those of the training shape
    that differs least in the seen ones; it needs the training data of the run's data module. ``test/completion`` is a
    picture with one shape in each column: seen, completed, true and completed by the nearest neighbour.

    Args:
        view: side of the grid on which the camera stands.
        num_particles: guesses of the model for each shape.
        steps: updates of each guess.
        threshold: probability above which a completed voxel counts as solid.
        every_nth: complete only every n-th shape.
        num_shown: shapes in the picture.
        stages: any of ``val`` and ``test``.
        every_n_epochs: of validation: measure in every n-th epoch of a fit, and in the last.
        seed: of the guesses.
    """

    def __init__(
        self,
        view: View = "-y",
        num_particles: int = 9,
        steps: int = 30,
        threshold: float = 0.3,
        every_nth: int = 1,
        num_shown: int = 10,
        stages: Sequence[Stage] = ("test",),
        every_n_epochs: int = 1,
        seed: int = 0,
    ) -> None:
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold must be in [0, 1), a probability that solid voxels exceed; got {threshold}")
        self.view = view
        self.num_particles = positive("num_particles", num_particles)
        self.steps = positive("steps", steps)
        self.threshold = threshold
        self.every_nth = positive("every_nth", every_nth)
        self.num_shown = positive("num_shown", num_shown)
        self.stages = check_stages(stages)
        self.every_n_epochs = positive("every_n_epochs", every_n_epochs)
        self.seed = seed
        self._shown: list[Tensor] = []
        self._seen_before = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not isinstance(pl_module, CompletesShapes):
            raise TypeError(f"Completion needs a model of voxels, and {type(pl_module).__name__} is none: leave it out")

    def on_evaluation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, stage: Stage, batch: Batch, batch_idx: int, dataloader_idx: int
    ) -> None:
        if stage not in self.stages or not is_due(trainer, self.every_n_epochs):
            return
        if batch_idx == 0:
            self._shown, self._seen_before = [], 0
        shapes, _ = pl_module.unpack(batch)
        chosen = shapes[-self._seen_before % self.every_nth :: self.every_nth]
        self._seen_before += len(shapes)
        if not len(chosen):
            return
        observed = pl_module.observe(chosen, self.view)
        with evaluation(pl_module, self.seed + batch_idx):
            completed = pl_module.complete(chosen, observed, self.num_particles, self.steps)
        completions = {"": completed}
        neighbours = nearest_completion(trainer, chosen, observed)
        if neighbours is not None:
            completions["_nearest_neighbour"] = neighbours
        values = {}
        for name, guess in completions.items():
            solid = guess > self.threshold
            values[f"completion_iou{name}"] = intersection_over_union(solid, chosen > 0.5)
            values[f"completion_iou_unseen{name}"] = intersection_over_union(
                solid & ~observed, (chosen > 0.5) & ~observed
            )
        pl_module.log_evaluation(stage, values, len(chosen))
        rows = torch.stack([chosen * observed, completed, chosen, *([] if neighbours is None else [neighbours])], 1)
        self._shown.append(rows[: self.num_shown].cpu())

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._show(trainer, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._show(trainer, "test")

    def _show(self, trainer: pl.Trainer, stage: Stage) -> None:
        if not self._shown or not trainer.is_global_zero:
            return
        every = torch.cat(self._shown)
        places = torch.linspace(0, len(every) - 1, min(self.num_shown, len(every))).round().long()
        rows = every[places].transpose(0, 1)  # (seen, completed, ...; shapes)
        pictures = render_voxels(rows.flatten(0, 1), threshold=self.threshold)
        log_image(trainer, f"{stage}/completion", image_grid(pictures, len(places)))
        self._shown = []


def intersection_over_union(some: Tensor, others: Tensor) -> Tensor:
    """Of solid voxels ``(B, ...)`` of bool: ``(B,)`` in [0, 1]; 1 where neither has any."""
    both, either = (part.flatten(1).sum(1) for part in (some & others, some | others))
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def nearest_completion(trainer: pl.Trainer, shapes: Tensor, observed: Tensor) -> Tensor | None:
    """Shapes whose unseen voxels are those of the training shape with the fewest differences in the seen ones.

    Args:
        trainer: gives the training shapes by its data module.
        shapes: ``(B, 1, D, H, W)`` of zeros and ones.
        observed: of the same shape, bool.

    Returns:
        ``(B, 1, D, H, W)``, or None for a run without a data module.
    """
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    if datamodule is None:
        rank_zero_info("Completion has no nearest neighbours: it takes the training shapes from a data module")
        return None
    # sum over seen voxels of |t - x| = sum of t (1 - 2 x) + a constant, for zeros and ones.
    signs = (observed * (1 - 2 * shapes)).flatten(1)
    nearest = torch.zeros_like(shapes)
    least = shapes.new_full((len(shapes),), torch.inf)
    for batch in datamodule.train_dataloader():
        others = batch[0].to(shapes)
        distance, place = (signs @ others.flatten(1).T).min(1)
        closer = distance < least
        least = torch.where(closer, distance, least)
        nearest[closer] = others[place[closer]]
    return torch.where(observed, shapes, nearest)
