"""Samples as files."""

import re
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from lit_gen.callbacks.alignment import captioned_grid
from lit_gen.callbacks.evaluation import positive
from lit_gen.callbacks.files import cannot_write
from lit_gen.callbacks.logging import image_grid, pictures, run_folder, to_pil
from lit_gen.models.base import GenerativeModel

GRID_IMAGES = 64


def write_images(
    images: Tensor,
    folder: str | Path,
    npz: bool = False,
    start: int = 0,
    columns: int = 8,
) -> Path:
    """Write a PNG for every image, a grid of the first 64, and the array on request: all of them or, on failure, none.

    Files of the same names are replaced. A folder with more than that of an earlier call is refused rather than tidied:
    old and new samples would lie side by side, and numbered PNGs may be anybody's.

    Args:
        images: ``(N, C, H, W)`` in [0, 1], or voxels, which PNGs show in the round.
        folder: where ``000000.png``, ..., ``grid.png`` and ``samples.npz`` go.
        npz: also write ``samples.npz`` with ``samples``, float32 as given.
        start: number of the first image; those before it, of earlier calls, may stay.
        columns: images in a row of the grid.

    Returns:
        Path of the grid.

    Raises:
        FileExistsError: other samples of an earlier call would stay in the folder.
        OSError: the files cannot be written, for want of space say.
    """
    folder = Path(folder)
    refuse_leftovers(folder, len(images), npz, start)
    arrays = {"samples.npz": images.detach().float().cpu().numpy()} if npz else {}
    named = [f"{start + number:06d}.png" for number in range(len(images))]
    write_together(folder, images, named, {"grid.png": image_grid(images[:GRID_IMAGES], columns)}, arrays)
    return folder / "grid.png"


def prompted_names(prompts: Sequence[str], each: int) -> list[str]:
    """File names of so many images of each prompt: ``000000_a-red-bird.png``, ...

    Args:
        prompts: what was asked for.
        each: images of every one.
    """
    words = ["-".join(re.findall(r"[a-z0-9]+", prompt.lower()))[:60].rstrip("-") for prompt in prompts]
    return [f"{number:06d}_{words[number // each]}.png" for number in range(each * len(prompts))]


def write_prompted(
    images: Tensor, prompts: Sequence[str], folder: str | Path, npz: bool = False, storyboard: Tensor | None = None
) -> Path:
    """Write a PNG for every image, named after its prompt, a grid with a row for each, and the array on request.

    Args:
        images: ``(prompts, n, C, H, W)`` in [0, 1].
        prompts: what was asked for.
        folder: where they go, with ``grid.png``, ``storyboard.png`` and ``samples.npz``.
        npz: also write ``samples.npz`` with ``samples``, float32 as given.
        storyboard: ``(3, H, W)``, how such images come to be.

    Returns:
        Path of the grid.

    Raises:
        FileExistsError: other samples of an earlier call would stay in the folder.
        OSError: the files cannot be written, for want of space say.
    """
    folder, names = Path(folder), prompted_names(prompts, images.shape[1])
    refuse_leftovers(folder, len(names), npz, names=names, storyboard=storyboard is not None)
    arrays = {"samples.npz": images.detach().float().cpu().numpy()} if npz else {}
    grids = {"grid.png": captioned_grid(images, prompts)}
    grids |= {"storyboard.png": storyboard} if storyboard is not None else {}
    write_together(folder, images.flatten(0, 1), names, grids, arrays)
    return folder / "grid.png"


def refuse_leftovers(
    folder: str | Path,
    num_images: int,
    npz: bool = False,
    start: int = 0,
    names: Sequence[str] = (),
    storyboard: bool = False,
) -> None:
    """Raise if :func:`write_images` would leave samples of an earlier call in the folder; asked before they are drawn.

    Args:
        folder: of the samples; it need not exist.
        num_images: how many will be written.
        npz: whether ``samples.npz`` will be written.
        start: number of the first.
        names: of the images, where they are more than numbers.
        storyboard: whether ``storyboard.png`` will be written.

    Raises:
        FileExistsError: numbered PNGs beyond the last of these, or an array or storyboard that is not written anew.
    """
    there = [path.name for path in Path(folder).glob("*") if path.is_file()]
    written = {*(names or (f"{start + number:06d}.png" for number in range(num_images)))}
    numbered = [name for name in there if re.fullmatch(r"\d{6,}(_[a-z0-9-]*)?\.png", name) and name not in written]
    left = [name for name in numbered if int(name[:-4].partition("_")[0]) >= start]
    left += ["samples.npz"] if not npz and "samples.npz" in there else []
    left += ["storyboard.png"] if not storyboard and "storyboard.png" in there else []
    if left:
        raise FileExistsError(
            f"{str(folder)!r} holds {len(left)} more files of an earlier call ({min(left)}, ...) than these"
            f" {num_images} images would replace: remove them, or choose another folder (-o)"
        )


def write_together(
    folder: Path,
    images: Tensor,
    names: Sequence[str],
    grids: dict[str, Tensor] | None = None,
    arrays: dict[str, np.ndarray] | None = None,
) -> None:
    """Write files into a hidden folder within ``folder``, then move all of them into place.

    Args:
        folder: made if it is missing.
        images: ``(N, C, H, W)`` in [0, 1].
        names: of the N files.
        grids: pictures by file name.
        arrays: arrays by file name, stored as ``samples``.

    Raises:
        OSError: the files cannot be written; nothing is left behind.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        shown = pictures(images)
        for name, image in [*zip(names, shown, strict=True), *(grids or {}).items()]:
            to_pil(image).save(partial / name)
        for name, array in (arrays or {}).items():
            np.savez_compressed(partial / name, samples=array)
        for path in partial.iterdir():
            path.replace(folder / path.name)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class ImageWriter(BasePredictionWriter):
    """Writes the samples of ``predict``: one PNG each, a grid of the first ones, and the array on request.

    Files lie in ``<run>/samples``. Every process numbers its own samples in steps of the number of processes, so that
    names are unique; with a plain torch DataLoader the number is that of the data the sample belongs to.

    Args:
        output_dir: another folder; None: ``samples`` in the run folder.
        npz: also write ``samples.npz`` with ``samples``, float32 ``(N, C, H, W)``; with several processes one for each,
            ``samples_<rank>.npz``.
        columns: images in a row of the grid.
    """

    def __init__(self, output_dir: str | None = None, npz: bool = False, columns: int = 8) -> None:
        super().__init__("batch")
        self.output_dir = output_dir
        self.npz = npz
        self.columns = positive("columns", columns)
        self._folder = Path()
        self._written = 0
        self._kept: list[Tensor] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "predict":
            # Loaders without indices are numbered here; Lightning warns of them all the same.
            warnings.filterwarnings("ignore", "Couldn't infer the batch indices")
            folder = run_folder(trainer) / "samples" if self.output_dir is None else Path(self.output_dir)
            self._folder = Path(trainer.strategy.broadcast(str(folder)))
            self._written, self._kept = 0, []

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        if not isinstance(pl_module, GenerativeModel):
            return
        images = prediction.detach().float().cpu()
        own = range(self._written, self._written + len(images))
        numbers = batch_indices or [number * trainer.world_size + trainer.global_rank for number in own]
        write_together(self._folder, images, [f"{number:06d}.png" for number in numbers])
        self._written += len(images)
        if self.npz or sum(map(len, self._kept)) < GRID_IMAGES:
            self._kept.append(images)

    def on_predict_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._kept:
            return
        images = torch.cat(self._kept)
        self._kept = []
        name = "samples.npz" if trainer.world_size == 1 else f"samples_{trainer.global_rank}.npz"
        grids = {"grid.png": image_grid(images[:GRID_IMAGES], self.columns)} if trainer.is_global_zero else {}
        write_together(self._folder, images[:0], [], grids, {name: images.numpy()} if self.npz else {})
