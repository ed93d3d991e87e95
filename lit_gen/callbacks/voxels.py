"""Voxels in the round."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_gen.callbacks.evaluation import FirstBatchCallback, first, positive
from lit_gen.callbacks.images import interleave
from lit_gen.callbacks.logging import image_grid, log_animation, log_image
from lit_gen.models.base import GenerativeModel, Reconstructs
from lit_gen.rendering import AZIMUTH, ELEVATION, render_voxels


class VoxelGrid(FirstBatchCallback):
    """Logs shaded pictures of sampled voxels as ``val/voxels``, and as a GIF on a turntable as ``val/turntable``.

    A model that reconstructs also gets ``val/voxel_reconstructions``, data above reconstructions. The same for
    ``test/``. Idle for models of flat images. Sixteen shapes take 0.7 seconds of one core, their turntable four.

    Args:
        num_samples: shapes in each picture.
        columns: shapes in a row.
        size: height and width of each shape, in pixels.
        threshold: voxels whose probability is above this are shown as solid.
        azimuth: degrees by which the camera is turned about the vertical.
        elevation: degrees by which it looks down.
        frames: pictures of a whole turn; 0 for no turntable.
        fps: of them per second.
        every_n_epochs: act in every n-th epoch of a fit, and in the last.
        seed: of the noise.
    """

    def __init__(
        self,
        num_samples: int = 16,
        columns: int = 8,
        size: int = 128,
        threshold: float = 0.5,
        azimuth: float = AZIMUTH,
        elevation: float = ELEVATION,
        frames: int = 24,
        fps: float = 12.0,
        every_n_epochs: int = 5,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs, seed)
        self.num_samples = positive("num_samples", num_samples)
        self.columns = positive("columns", columns)
        self.size = positive("size", size)
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold must be in [0, 1), a probability that solid voxels exceed; got {threshold}")
        if frames < 0 or fps <= 0:
            raise ValueError(f"frames must not be negative and fps must be positive, got {frames} and {fps}")
        self.threshold = threshold
        self.azimuth = azimuth
        self.elevation = elevation
        self.frames = frames
        self.fps = fps

    def applies(self, pl_module: pl.LightningModule) -> bool:
        return isinstance(pl_module, GenerativeModel) and len(pl_module.image_shape) == 4

    def show(self, trainer: pl.Trainer, model: Any, stage: str, images: Tensor, condition: Any) -> None:
        samples = model.sample(self.num_samples)
        log_image(trainer, f"{stage}/voxels", self._picture(samples))
        if isinstance(model, Reconstructs):
            shapes = images[: self.num_samples]
            reconstructions = model.reconstruct(shapes, first(condition, len(shapes)))
            both = interleave(shapes, reconstructions, self.columns)
            log_image(trainer, f"{stage}/voxel_reconstructions", self._picture(both))
        if self.frames:
            turns = torch.arange(self.frames) * (360 / self.frames)
            animation = [self._picture(samples, float(turn), self.size // 2) for turn in turns]
            log_animation(trainer, f"{stage}/turntable", animation, fps=self.fps)

    def _picture(self, voxels: Tensor, turn: float = 0.0, size: int | None = None) -> Tensor:
        shown = render_voxels(voxels, self.azimuth + turn, self.elevation, size or self.size, self.threshold)
        return image_grid(shown, self.columns)
