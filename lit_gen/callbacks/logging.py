"""The one place that turns images into what a logger wants, and into files of the run folder.

The step of a picture counts batches, as the step of every logged value does: ``trainer.global_step`` would count
optimizer steps, which are more with two optimizers.
"""

from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.utils import make_grid

from lit_gen.callbacks.files import write_whole
from lit_gen.rendering import render_voxels

VISIBLE_PIXELS = 64
"""Images smaller than this are enlarged by a whole factor, so that a digit of 8x8 can be seen."""


def run_folder(trainer: pl.Trainer) -> Path:
    """Folder of this run: the one in which ModelCheckpoint puts ``checkpoints``. It need not exist yet.

    Known on every process, except for a W&B run without an id of its own: there the first process alone knows it.
    """
    if not trainer.loggers:
        return Path(trainer.default_root_dir)
    logger = trainer.loggers[0]
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return Path(logger.save_dir or trainer.default_root_dir, str(logger.name), version)


def batch_step(trainer: pl.Trainer) -> int:
    """Number of training batches so far: the axis on which Lightning logs every value."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def writes_files(trainer: pl.Trainer) -> bool:
    """Whether this process keeps what the run gives out: the first one, unless the run is a ``fast_dev_run``."""
    return trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined]


def pictures(images: Tensor) -> Tensor:
    """Images that can be looked at.

    Args:
        images: ``(N, C, H, W)`` in [0, 1] with any number of channels, or voxels ``(N, C, D, H, W)``.

    Returns:
        ``(N, 1 or 3, H, W)``, float32 in [0, 1] on the CPU. Of other numbers of channels the first three are shown (the
        third black if there are but two); voxels are drawn in the round, 96x96.
    """
    if images.ndim == 5:
        return render_voxels(images.amax(1, keepdim=True))
    images = images.detach().float().cpu().clamp(0, 1)
    if images.shape[1] == 2:
        images = torch.cat([images, torch.zeros_like(images[:, :1])], 1)
    return images if images.shape[1] == 1 else images[:, :3]


def enlarge(images: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Images ``(N, C, H, W)`` blown up without smoothing: to ``size``, or by a whole factor if they are tiny."""
    if size is None:
        factor = max(1, VISIBLE_PIXELS // max(images.shape[-2:]))
        size = (factor * images.shape[-2], factor * images.shape[-1])
    return images if tuple(images.shape[-2:]) == size else interpolate(images, size, mode="nearest")


def image_grid(images: Tensor, columns: int, padding: int = 2) -> Tensor:
    """One picture of many.

    Args:
        images: ``(N, C, H, W)`` in [0, 1], or voxels.
        columns: images in a row.
        padding: width of the lines between images, in pixels.

    Returns:
        ``(3, H', W')`` in [0, 1].
    """
    return make_grid(enlarge(pictures(images)), nrow=columns, padding=padding, pad_value=0.5)


def to_uint8(image: Tensor) -> Tensor:
    """Float in [0, 1] to the nearest of 256 levels."""
    return image.detach().float().clamp(0, 1).mul(255).add(0.5).to(torch.uint8).cpu()


def to_pil(image: Tensor) -> Image.Image:
    """A picture ``(1 or 3, H, W)`` in [0, 1] as Pillow's image."""
    pixels = to_uint8(image).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def write_png(image: Tensor, path: Path) -> None:
    """Write a picture ``(1 or 3, H, W)`` in [0, 1] to a PNG file.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    write_whole(path, lambda partial: to_pil(image).save(partial, format="PNG"))


def log_image(trainer: pl.Trainer, key: str, grid: Tensor, step: int | None = None) -> None:
    """Give a picture to every logger of the run and write it to ``<run>/images/<key>/<step>.png``.

    Does nothing on processes other than the first, nor under ``fast_dev_run``.

    Args:
        trainer: the trainer.
        key: name such as ``val/samples``.
        grid: ``(1 or 3, H, W)`` in [0, 1].
        step: batches trained so far; None takes them from the trainer.
    """
    if not writes_files(trainer):
        return
    step = batch_step(trainer) if step is None else step
    # wandb.Image casts floats to uint8 without scaling: a grid in [0, 1] would come out black.
    pixels = to_uint8(grid)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [to_pil(grid)], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, pixels, step)
    write_png(grid, run_folder(trainer) / "images" / key / f"{step:08d}.png")


def log_animation(
    trainer: pl.Trainer, key: str, frames: Sequence[Tensor], step: int | None = None, fps: float = 10.0
) -> None:
    """Write a GIF to ``<run>/images/<key>/<step>.gif`` and give it to Weights & Biases (no other logger takes one).

    Does nothing on processes other than the first, nor under ``fast_dev_run``.

    Args:
        trainer: the trainer.
        key: name such as ``val/trajectory``.
        frames: pictures ``(1 or 3, H, W)`` in [0, 1], all of one size.
        step: batches trained so far; None takes them from the trainer.
        fps: frames per second; the last frame stays for a second more.
    """
    if not writes_files(trainer):
        return
    step = batch_step(trainer) if step is None else step
    start, *rest = [to_pil(frame) for frame in frames]
    durations = [max(20, round(1000 / fps))] * len(frames)
    durations[-1] += 1000
    path = run_folder(trainer) / "images" / key / f"{step:08d}.gif"
    write_whole(
        path,
        lambda partial: start.save(
            partial, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0
        ),
    )
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_video(key, [str(path)], step=step, format=["gif"])
