"""Pictures as every logger and the run folder get them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from PIL import Image
from torch import Tensor

from lit_gen.callbacks import BestAndLast, SampleGrid, image_grid, log_animation, log_image, run_folder
from lit_gen.callbacks.logging import enlarge, pictures
from lit_gen.rendering import render_voxels
from tests.callbacks import offline_run
from tests.callbacks.tiny import data, trainer, vae

RAMP = torch.linspace(0, 1, 3 * 16 * 16).view(3, 16, 16)
RAMP_BYTES = np.floor(np.linspace(0, 1, 3 * 16 * 16) * 255 + 0.5).astype(np.uint8).reshape(3, 16, 16).transpose(1, 2, 0)


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize(
    ("shape", "shown"),
    [((4, 1, 5, 6), 1), ((4, 2, 5, 6), 3), ((4, 3, 5, 6), 3), ((4, 5, 5, 6), 3)],
)
def test_images_of_any_kind_become_pictures(shape: tuple[int, ...], shown: int) -> None:
    images = torch.rand(shape).bfloat16()
    result = pictures(images)
    assert result.shape == (4, shown, 5, 6)
    assert result.dtype is torch.float32
    assert torch.equal(result[:, :2], images[:, :shown][:, :2].float())


def test_voxels_become_pictures_in_the_round() -> None:
    voxels = torch.rand(2, 1, 7, 5, 6).bfloat16()
    assert torch.equal(pictures(voxels), render_voxels(voxels))


def test_tiny_images_are_enlarged_without_smoothing() -> None:
    images = torch.rand(2, 1, 8, 8)
    large = enlarge(images)
    assert large.shape == (2, 1, 64, 64)
    assert torch.equal(large[:, :, ::8, ::8], images)
    assert torch.equal(large[:, :, 7::8, 7::8], images)
    assert enlarge(torch.rand(2, 1, 64, 48)).shape == (2, 1, 64, 48)


def test_grid_places_images_in_rows() -> None:
    images = torch.stack([torch.full((1, 64, 64), value / 5) for value in range(6)])
    grid = image_grid(images, columns=3, padding=2)
    assert grid.shape == (3, 2 * 66 + 2, 3 * 66 + 2)
    centres = grid[0, 34::66, 34::66]
    assert torch.allclose(centres, torch.arange(6).view(2, 3) / 5)


def test_run_folder_is_where_checkpoints_go(tmp_path: Path) -> None:
    loggers: list[Any] = [False, CSVLogger(tmp_path, name=""), TensorBoardLogger(tmp_path, name="tensorboard")]
    for logger in loggers:
        keeper = BestAndLast()
        run = trainer(tmp_path, keeper, logger=logger)
        run.fit(vae(), data())
        assert keeper.dirpath is not None
        assert Path(keeper.dirpath) == run_folder(run) / "checkpoints"


def test_pictures_lie_in_the_run_folder(tmp_path: Path) -> None:
    run = trainer(tmp_path, logger=CSVLogger(tmp_path, name="", version="run"))
    log_image(run, "val/ramp", RAMP, step=7)
    log_image(run, "val/grey", RAMP[:1])
    assert np.array_equal(read(tmp_path / "run" / "images" / "val" / "ramp" / "00000007.png"), RAMP_BYTES)
    grey = read(tmp_path / "run" / "images" / "val" / "grey" / "00000000.png")
    assert np.array_equal(grey, RAMP_BYTES[:, :, 0])


def test_animation_keeps_its_frames(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    frames = [torch.full((1, 8, 8), level) for level in (0.0, 0.5, 1.0)]
    log_animation(run, "val/way", frames, step=3, fps=20)
    with Image.open(tmp_path / "images" / "val" / "way" / "00000003.gif") as gif:
        assert gif.n_frames == 3
        levels, durations = [], []
        for number in range(3):
            gif.seek(number)
            levels.append(np.asarray(gif.convert("L")).mean())
            durations.append(gif.info["duration"])
    assert levels == [0, 128, 255]
    assert durations == [50, 50, 1050]


def test_a_trial_run_writes_nothing(tmp_path: Path) -> None:
    run = trainer(tmp_path, SampleGrid(), fast_dev_run=True)
    run.fit(vae(), data())
    log_animation(run, "val/way", [RAMP])
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_the_pixels(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    run = trainer(tmp_path, logger=logger)
    log_image(run, "val/ramp", RAMP, step=5)
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    (event,) = events.Images("val/ramp")
    (tmp_path / "picture.png").write_bytes(event.encoded_image_string)
    assert event.step == 5
    assert np.array_equal(read(tmp_path / "picture.png"), RAMP_BYTES)


class Ramp(SampleGrid):
    """Logs a known picture where samples would be."""

    def show(self, trainer: Any, model: Any, stage: str, images: Tensor | None, condition: Any) -> None:
        log_image(trainer, f"{stage}/samples", RAMP)
        log_animation(trainer, f"{stage}/way", [RAMP, 1 - RAMP])


@pytest.mark.filterwarnings("ignore:The `anonymous` setting has no effect:UserWarning")
def test_weights_and_biases_run_can_be_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(project="project", save_dir=tmp_path, tags=["small"])
    run = trainer(tmp_path, Ramp(), logger=logger, max_epochs=2, log_every_n_steps=2)
    try:
        run.fit(vae(), data())
    finally:
        wandb.finish()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    logged = offline_run.history(folder)
    scalars = [row for row in logged if "train/loss" in row]
    assert [row["trainer/global_step"] for row in scalars] == [1, 3, 5, 7, 9, 11]
    shown = [row for row in logged if any(key.startswith("val/samples") for key in row)]
    # Six batches an epoch, counted from 0: pictures lie on the axis of the losses.
    assert [row["trainer/global_step"] for row in shown] == [5, 11]
    pictures = sorted((folder / "files" / "media" / "images" / "val").glob("samples_*.png"))
    assert len(pictures) == 2
    assert np.array_equal(read(pictures[0]), RAMP_BYTES)
    assert len(list((folder / "files" / "media" / "videos" / "val").glob("way_*.gif"))) == 2
    assert offline_run.config(folder)["latent_dim"] == 2
    # The files of the run folder are there as well.
    assert np.array_equal(read(run_folder(run) / "images" / "val" / "samples" / "00000011.png"), RAMP_BYTES)
