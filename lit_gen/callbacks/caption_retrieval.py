"""Whether a model tells the caption of an image from others."""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_gen.callbacks.evaluation import EvaluationCallback, Stage, chosen, evaluation, is_due, positive
from lit_gen.callbacks.metrics import batch_seed, check_stages
from lit_gen.models.base import Batch, CaptionConditional, HasLowerBound


class CaptionRetrieval(EvaluationCallback):
    """Logs the rank of an image's own caption among others, by the bound on log p(image given caption).

    The others are those of other images of the batch, all different, and the noise is the same for all captions of an
    image. ``test/caption_rank`` is the mean rank (1 is best; chance, and a model that ignores captions, is the middle),
    ``test/caption_recall_at_1`` the share of images whose own caption comes first, ``test/bound_matched`` and
    ``test/bound_shuffled`` the mean bounds given the own caption and given another one, in nats.

    Args:
        num_candidates: captions to tell apart, the own one among them; a batch needs as many different ones.
        num_samples: of each bound.
        num_images: of all processes together.
        stages: any of ``val`` and ``test``.
        every_n_epochs: of validation: measure in every n-th epoch of a fit, and in the last.
        seed: of the noise, and of the choice.
    """

    def __init__(
        self,
        num_candidates: int = 10,
        num_samples: int = 1,
        num_images: int = 200,
        stages: Sequence[Stage] = ("test",),
        every_n_epochs: int = 1,
        seed: int = 0,
    ) -> None:
        if num_candidates < 2:
            raise ValueError(f"num_candidates must be at least 2, got {num_candidates}")
        self.num_candidates = num_candidates
        self.num_samples = positive("num_samples", num_samples)
        self.num_images = positive("num_images", num_images)
        self.stages = check_stages(stages)
        self.every_n_epochs = positive("every_n_epochs", every_n_epochs)
        self.seed = seed
        self._left = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not isinstance(pl_module, CaptionConditional) or not isinstance(pl_module, HasLowerBound):
            raise TypeError(
                f"CaptionRetrieval needs a model of captions with a bound, and {type(pl_module).__name__} is none:"
                " leave it out"
            )

    def on_evaluation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, stage: Stage, batch: Batch, batch_idx: int, dataloader_idx: int
    ) -> None:
        if stage not in self.stages or not is_due(trainer, self.every_n_epochs):
            return
        if batch_idx == 0:
            self._left = len(range(trainer.global_rank, self.num_images, trainer.world_size))
        images, captions = pl_module.unpack(batch)
        seed = batch_seed(self.seed, trainer, batch_idx)
        with evaluation(pl_module, seed):
            rows = candidates(captions.tokens, self.num_candidates)
        if rows is None and batch_idx == 0:
            raise ValueError(
                f"CaptionRetrieval tells {self.num_candidates} captions apart, and a batch of {len(images)} images has"
                " fewer different ones; set data.eval_batch_size higher, or num_candidates lower"
            )
        count = min(self._left, len(images))
        if rows is None or not count:  # a smaller last batch, or enough images
            return
        self._left -= count
        bounds = []
        for caption in rows[:count].unbind(1):
            with evaluation(pl_module, seed):  # the same noise every time
                bounds.append(pl_module.lower_bound(images[:count], self.num_samples, chosen(captions, caption)))
        own, *others = torch.stack(bounds).float()
        rank = own_rank(own, torch.stack(others))
        values = {"caption_rank": rank, "caption_recall_at_1": rank == 1}
        pl_module.log_evaluation(stage, {**values, "bound_matched": own, "bound_shuffled": others[0]}, count)


def candidates(tokens: Tensor, number: int) -> Tensor | None:
    """For each of B captions: its own row and those of others, all different, drawn at random.

    Args:
        tokens: ``(B, T)``.
        number: how many, the own one included.

    Returns:
        ``(B, number)`` rows of ``tokens``; None where there are fewer different captions.
    """
    different, kind = torch.unique(tokens, dim=0, return_inverse=True)
    if len(different) < number:
        return None
    rows = torch.arange(len(tokens), device=tokens.device)
    row_of_kind = torch.zeros(len(different), dtype=torch.int64, device=tokens.device).scatter(0, kind, rows)
    lots = torch.rand(len(tokens), len(different), device=tokens.device).scatter(1, kind[:, None], -1.0)
    return torch.cat([rows[:, None], row_of_kind[lots.topk(number - 1, dim=1).indices]], 1)


def own_rank(own: Tensor, others: Tensor) -> Tensor:
    """Rank ``(B,)`` of values ``(B,)`` among ``(K, B)`` others, 1 for the largest; equal ones share the middle rank."""
    return 1 + (others > own).sum(0) + 0.5 * (others == own).sum(0)
