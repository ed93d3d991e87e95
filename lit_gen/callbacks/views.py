"""Objects from all around: turntables, grids of views, morphs between objects."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lit_gen.callbacks.evaluation import FirstBatchCallback, positive
from lit_gen.callbacks.logging import image_grid, log_animation, log_image
from lit_gen.models.base import GeneratesViews
from lit_gen.views import Views

PUBLISHED_MORPH = (1.0, 0.65, 0.57, 0.5, 0.43, 0.35, 0.0)
"""Weights of the first object along a morph, in the authors' code."""


def usual_elevation(model: GeneratesViews) -> float:
    """In radians: the middle one of those in training, or 25 degrees where these are not known."""
    seen = model.seen_views[:, 1]
    return float(seen.median()) if len(seen) else math.radians(25)


def show_views(model: Any, classes: Tensor, azimuth: Tensor, elevation: Tensor) -> Tensor:
    """Images on the CPU.

    Args:
        model: a :class:`GeneratesViews`.
        classes: ``(B,)`` numbers, or ``(B, num_classes)`` weights.
        azimuth: ``(B,)`` radians.
        elevation: ``(B,)`` radians.
    """
    return model.render_views(Views(*(part.to(model.device) for part in (classes, azimuth, elevation)))).images.cpu()


class Turntable(FirstBatchCallback):
    """Logs objects on a turntable as GIFs ``val/turntable`` and ``test/turntable``.

    Args:
        num_objects: objects, the first ones.
        columns: objects in a row.
        frames: pictures of a whole turn; more than there are azimuths in training show what lies between.
        fps: of them per second.
        every_n_epochs: act in every n-th epoch of a fit, and in the last.
    """

    capability = GeneratesViews

    def __init__(
        self, num_objects: int = 12, columns: int = 6, frames: int = 48, fps: float = 12.0, every_n_epochs: int = 5
    ) -> None:
        super().__init__(every_n_epochs)
        self.num_objects = positive("num_objects", num_objects)
        self.columns = positive("columns", columns)
        self.frames = positive("frames", frames)
        if fps <= 0:
            raise ValueError(f"fps must be positive, got {fps}")
        self.fps = fps

    def show(self, trainer: Any, model: Any, stage: str, images: Tensor, condition: Any) -> None:
        classes = torch.arange(min(self.num_objects, model.num_classes))
        elevation = torch.full((len(classes),), usual_elevation(model))
        animation = [
            image_grid(
                show_views(model, classes, torch.full_like(elevation, 2 * math.pi * n / self.frames), elevation),
                self.columns,
            )
            for n in range(self.frames)
        ]
        log_animation(trainer, f"{stage}/turntable", animation, fps=self.fps)


class ViewGrid(FirstBatchCallback):
    """Logs objects along the azimuth as ``val/azimuths``, and along the elevation as ``val/elevations``, one in a row.

    The same for ``test/``. Azimuths between, and elevations between and beyond those in training, are interpolated and
    extrapolated.

    Args:
        num_objects: objects, the first ones.
        azimuths: pictures of a whole turn.
        elevations: degrees.
        azimuth: degrees, from which the elevations are shown.
        every_n_epochs: act in every n-th epoch of a fit, and in the last.
    """

    capability = GeneratesViews

    def __init__(
        self,
        num_objects: int = 6,
        azimuths: int = 16,
        elevations: Sequence[float] = (-10, 0, 10, 15, 20, 25, 30, 35, 40, 50, 60),
        azimuth: float = -50.0,
        every_n_epochs: int = 5,
    ) -> None:
        super().__init__(every_n_epochs)
        self.num_objects = positive("num_objects", num_objects)
        self.azimuths = positive("azimuths", azimuths)
        if not elevations or not all(-90 <= one <= 90 for one in elevations):
            raise ValueError(f"elevations must be degrees from -90 to 90, got {list(elevations)}")
        self.elevations = tuple(elevations)
        self.azimuth = azimuth

    def show(self, trainer: Any, model: Any, stage: str, images: Tensor, condition: Any) -> None:
        around = torch.arange(self.azimuths) * (2 * math.pi / self.azimuths)
        level = torch.full_like(around, usual_elevation(model))
        log_image(trainer, f"{stage}/azimuths", self._rows(model, around, level))
        elevations = torch.deg2rad(torch.tensor(self.elevations, dtype=torch.float32))
        side = torch.full_like(elevations, math.radians(self.azimuth))
        log_image(trainer, f"{stage}/elevations", self._rows(model, side, elevations))

    def _rows(self, model: Any, azimuth: Tensor, elevation: Tensor) -> Tensor:
        rows = min(self.num_objects, model.num_classes)
        classes = torch.arange(rows).repeat_interleave(len(azimuth))
        return image_grid(show_views(model, classes, azimuth.repeat(rows), elevation.repeat(rows)), len(azimuth))


class ClassMorph(FirstBatchCallback):
    """Logs mixtures of two objects, a pair in a row, as ``val/morphs`` and ``test/morphs``, a grid and a GIF.

    Args:
        num_pairs: pairs; the first object with the third, the second with the fourth, and so on.
        weights: of the first object of a pair, from left to right.
        frames: pictures of the GIF, from the first object to the second.
        azimuth: degrees.
        every_n_epochs: act in every n-th epoch of a fit, and in the last.
    """

    capability = GeneratesViews

    def __init__(
        self,
        num_pairs: int = 6,
        weights: Sequence[float] = PUBLISHED_MORPH,
        frames: int = 24,
        azimuth: float = -50.0,
        every_n_epochs: int = 5,
    ) -> None:
        super().__init__(every_n_epochs)
        self.num_pairs = positive("num_pairs", num_pairs)
        self.frames = positive("frames", frames)
        if not weights:
            raise ValueError("weights must be at least one, got none")
        self.weights = tuple(weights)
        self.azimuth = azimuth

    def show(self, trainer: Any, model: Any, stage: str, images: Tensor, condition: Any) -> None:
        first = torch.arange(min(self.num_pairs, model.num_classes))
        ends = one_hot(
            torch.stack([first, (first + min(2, model.num_classes - 1)) % model.num_classes]), model.num_classes
        ).float()

        def mixed(weights: Tensor) -> Tensor:
            classes = (weights[:, None] * ends[0][:, None] + (1 - weights)[:, None] * ends[1][:, None]).flatten(0, 1)
            azimuth = torch.full((len(classes),), math.radians(self.azimuth))
            return show_views(model, classes, azimuth, torch.full_like(azimuth, usual_elevation(model)))

        log_image(trainer, f"{stage}/morphs", image_grid(mixed(torch.tensor(self.weights)), len(self.weights)))
        steps = torch.linspace(1, 0, self.frames)
        animation = [image_grid(mixed(weight[None]), 6) for weight in steps]
        log_animation(trainer, f"{stage}/morphs", animation, fps=12.0)
