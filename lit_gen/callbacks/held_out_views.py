"""How well views that training never saw are generated, beside what the views that it saw would give."""

import math
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from lit_gen.callbacks.evaluation import EvaluationCallback, Stage, evaluation, positive
from lit_gen.callbacks.logging import image_grid, log_image
from lit_gen.models.base import Batch, GeneratesViews, GenerativeModel, RenderedViews
from lit_gen.views import Views, ViewTarget

TURN = 2 * math.pi
ROUNDING = 1e-4  # radians
ROWS = ("", "nearest_", "interpolated_")
"""What the errors of the model, of the nearest view, and of interpolated pixels are named by."""
LEVEL = math.radians(0.5)
"""Elevations closer than this are one; so far half precision rounds them."""


def view_errors(shown: RenderedViews, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Errors of each view, ``(B,)``.

    Args:
        shown: what is to be judged.
        images: ``(B, C, H, W)``, the true ones.
        masks: ``(B, 1, H, W)``, the true ones.

    Returns:
        ``mse`` of the pixels in the true mask (weighted by it), ``psnr`` of that in decibels, and ``iou`` of the masks,
        both at 1/2.
    """
    weight = masks.expand_as(images)
    total = weight.flatten(1).sum(1).clamp(min=1e-12)
    mse = (weight * (shown.images - images).square()).flatten(1).sum(1) / total
    found, true = shown.masks > 0.5, masks > 0.5
    common, either = ((found & true).flatten(1).sum(1), (found | true).flatten(1).sum(1))
    iou = torch.where(either > 0, common / either.clamp(min=1), 1.0)
    return {"mse": mse, "psnr": -10 * mse.clamp(min=1e-10).log10(), "iou": iou}


class SeenViews:
    """The views in training, which stand in for those that are not there.

    Args:
        batches: of training, ``(images, ViewTarget)``; uint8 holds them.
    """

    def __init__(self, batches: Any) -> None:
        images, targets = zip(*((_bytes(images), target) for images, target in batches))
        self.images = torch.cat(images)
        self.masks = torch.cat([_bytes(target.mask) for target in targets])
        self.views = Views(*(torch.cat([part.cpu() for part in parts]) for parts in zip(*(t.views for t in targets))))

        _, counts = self.views.classes.unique(return_counts=True)
        self._most = int(counts.max())

    def few(self, number: Tensor) -> Tensor:
        """Which of these classes ``(B,)`` have fewer views than others: bool ``(B,)``."""
        return (self.views.classes == number[:, None]).sum(1) < self._most

    def beyond(self, elevation: Tensor) -> Tensor:
        """Which of these elevations ``(B,)``, in radians, no view in training has: bool ``(B,)``."""
        return ((self.views.elevation - elevation[:, None]).abs() > LEVEL).all(1)

    def nearest(self, wanted: Views) -> RenderedViews:
        """Of the same class, the view from the direction with the smallest angle to that wanted."""
        closeness = directions(wanted) @ directions(self.views).T  # (B, seen)
        return self._shown(closeness.where(self._same(wanted), -2).argmax(1))

    def interpolated(self, wanted: Views) -> RenderedViews:
        """Pixels between the two neighbours in azimuth, of the same class, at the elevation wanted.

        Where no view has that elevation: between what this gives at the elevations below and above, or at the one next
        to it. The views of an object that has few take turns at the elevations: its neighbours are sought at all of
        them, else they would lie on opposite sides of it. Weights are by the angles to the two.
        """
        same = self._same(wanted)
        rise = self.views.elevation - wanted.elevation[:, None]
        (low, down), (high, up) = (self._level(away, same, wanted) for away in (-rise, rise))
        share = torch.where(down + up > LEVEL, down / (down + up), 0.0)[:, None, None, None]
        pairs = zip(self._around(wanted, low, rise.abs()), self._around(wanted, high, rise.abs()))
        return RenderedViews(*(torch.lerp(below, above, share) for below, above in pairs))

    def _level(self, away: Tensor, same: Tensor, wanted: Views) -> tuple[Tensor, Tensor]:
        """Which views are at the next elevation in a direction, else at that in the other, and how far away it is.

        Args:
            away: ``(B, seen)``, how far each view lies in that direction.
            same: ``(B, seen)``, which views are of the class wanted.
            wanted: the views wanted.
        """
        there = same & (away > -LEVEL)
        off = away.abs().where(there | (same & ~there.any(1, keepdim=True)), math.inf)
        least = off.amin(1, keepdim=True)
        return same & self.few(wanted.classes)[:, None] | (off <= least + LEVEL), least[:, 0]

    def _around(self, wanted: Views, level: Tensor, off: Tensor) -> RenderedViews:
        """Pixels between the two neighbours in azimuth among views ``(B, seen)``; the least off of several."""
        ahead = (self.views.azimuth - wanted.azimuth[:, None]) % TURN
        ahead = ahead.where(ahead < TURN - ROUNDING, 0)
        behind = (TURN - ahead) % TURN
        upper, lower = (_closest(gap.where(level, math.inf), off.where(level, math.inf)) for gap in (ahead, behind))
        after, before = (self._angle(wanted, numbers) for numbers in (upper, lower))
        share = torch.where(after + before > 0, before / (after + before).clamp(min=ROUNDING), 0.0)[:, None, None, None]
        return RenderedViews(*(torch.lerp(a, b, share) for a, b in zip(self._shown(lower), self._shown(upper))))

    def _angle(self, wanted: Views, numbers: Tensor) -> Tensor:
        """Between the directions wanted and those of views by their numbers ``(B,)``, in radians."""
        seen = Views(*(part[numbers] for part in self.views))
        chord = (directions(wanted) - directions(seen)).norm(dim=1)
        return 2 * (chord / 2).clamp(max=1).asin()

    def _same(self, wanted: Views) -> Tensor:
        return self.views.classes == wanted.classes[:, None]

    def _shown(self, numbers: Tensor) -> RenderedViews:
        return RenderedViews(self.images[numbers] / 255, self.masks[numbers] / 255)


def directions(views: Views) -> Tensor:
    """Unit vectors towards the camera, ``(B, 3)``."""
    level = views.elevation.cos()
    return torch.stack([level * views.azimuth.cos(), level * views.azimuth.sin(), views.elevation.sin()], 1)


def _closest(gap: Tensor, off: Tensor) -> Tensor:
    """Numbers ``(B,)`` of the views ``(B, seen)`` with the smallest gap, and of such the one that is least off."""
    return off.where(gap <= gap.amin(1, keepdim=True) + ROUNDING, math.inf).argmin(1)


def _bytes(images: Tensor) -> Tensor:
    return images.cpu().mul(255).round().to(torch.uint8)


class HeldOutViews(EvaluationCallback):
    """Logs the errors of views that training never saw as ``test/view_mse``, ``test/view_psnr`` and ``test/view_iou``.

    Beside them those of the nearest view in training (``test/nearest_view_mse``, ...) and of pixels interpolated
    between its neighbours (``test/interpolated_view_mse``, ...); see :func:`view_errors`. Objects of which training had
    fewer views than of others are measured apart, as ``test/transfer_view_mse`` and so on: what is known of their other
    views was learned from other objects. So are elevations from which training saw nothing (``held_out_elevations`` of
    the data), as ``test/elevation_view_mse``, and both together, as ``test/transfer_elevation_view_mse``.
    ``test/held_out_views`` shows, row by row, true views, those of the model, the nearest, and the interpolated.

    It runs in one process, on a data module whose targets are :class:`~lit_gen.views.ViewTarget`.

    Args:
        num_images: views in the picture, evenly spread over the test.
        columns: views in a row.
    """

    def __init__(self, num_images: int = 24, columns: int = 12) -> None:
        self.num_images = positive("num_images", num_images)
        self.columns = positive("columns", columns)
        self._seen: SeenViews | None = None
        self._rows: list[Tensor] = []

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._seen, self._rows = None, []
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(pl_module, GeneratesViews) or data is None or trainer.world_size > 1:
            rank_zero_info("HeldOutViews is idle: it takes a model of views and its data module, and one process")
            return
        self._seen = SeenViews(data.train_dataloader())

    def on_evaluation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, stage: Stage, batch: Batch, batch_idx: int, dataloader_idx: int
    ) -> None:
        seen, (images, target) = self._seen, batch
        if stage != "test" or seen is None or not isinstance(target, ViewTarget):
            return
        assert isinstance(pl_module, GenerativeModel)
        assert isinstance(pl_module, GeneratesViews)
        with evaluation(pl_module, 0):
            own = pl_module.render_views(target.views)
        wanted = Views(target.classes.cpu(), target.azimuth.float().cpu(), target.elevation.float().cpu())
        shown = [RenderedViews(*(part.cpu() for part in own)), seen.nearest(wanted), seen.interpolated(wanted)]
        true, masks = images.float().cpu(), target.mask.float().cpu()
        few, beyond = seen.few(wanted.classes), seen.beyond(wanted.elevation)
        groups = {
            "": ~few & ~beyond,
            "transfer_": few & ~beyond,
            "elevation_": ~few & beyond,
            "transfer_elevation_": few & beyond,
        }
        for name, one in zip(ROWS, shown, strict=True):
            errors = view_errors(one, true, masks)
            for group, members in groups.items():
                if members.any():
                    means = {f"test/{name}{group}view_{key}": value[members].mean() for key, value in errors.items()}
                    pl_module.log_dict(means, on_step=False, on_epoch=True, batch_size=int(members.sum()))
        number = math.ceil(self.num_images / sum(map(int, trainer.num_test_batches)))
        picked = torch.linspace(0, len(true) - 1, min(number, len(true))).round().long()
        self._rows.append(torch.stack([part[picked] for part in (true, *(one.images for one in shown))]))

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._rows:
            return
        rows = torch.cat(self._rows, 1)  # (4, views, C, H, W)
        kept = torch.linspace(0, rows.shape[1] - 1, min(self.num_images, rows.shape[1])).round().long()
        blocks = [part.flatten(0, 1) for part in rows[:, kept].split(self.columns, 1) if part.shape[1] == self.columns]
        if not blocks:
            blocks = [rows[:, kept].flatten(0, 1)]
        columns = min(self.columns, len(kept))
        log_image(trainer, "test/held_out_views", image_grid(torch.cat(blocks), columns))
        self._rows = []
