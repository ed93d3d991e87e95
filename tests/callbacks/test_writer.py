"""Samples as files, whole or not at all."""

import errno
import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from lit_gen.callbacks import ImageWriter, refuse_leftovers, write_images
from tests.callbacks.tiny import data, file_size_limit, trainer, vae


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_one_file(channels: int, tmp_path: Path) -> None:
    images = torch.rand(5, channels, 6, 7)
    grid = write_images(images, tmp_path / "a" / "b", npz=True, start=10)
    assert grid == tmp_path / "a" / "b" / "grid.png"
    files = sorted(path.name for path in grid.parent.iterdir())
    assert files == [*(f"{number:06d}.png" for number in range(10, 15)), "grid.png", "samples.npz"]
    for number, image in enumerate(images):
        picture = read(grid.parent / f"{number + 10:06d}.png").reshape(6, 7, channels)
        assert np.abs(picture / 255 - image.permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6
    assert np.array_equal(np.load(grid.parent / "samples.npz")["samples"], images.numpy())


def test_samples_of_two_calls_are_not_mixed(tmp_path: Path) -> None:
    write_images(torch.zeros(4, 1, 8, 8), tmp_path)
    (tmp_path / "00009.png").touch()  # not our way of numbering
    (tmp_path / "notes.txt").touch()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match=r"holds 1 more files of an earlier call \(000003\.png, \.\.\.\)"):
        write_images(torch.ones(3, 1, 8, 8), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    write_images(torch.ones(4, 1, 8, 8), tmp_path, npz=True)
    assert read(tmp_path / "000003.png").min() == 255
    write_images(torch.ones(2, 1, 8, 8), tmp_path, npz=True, start=4)  # in parts
    with pytest.raises(FileExistsError, match=r"samples\.npz"):
        refuse_leftovers(tmp_path, 6)
    refuse_leftovers(tmp_path, 6, npz=True)
    refuse_leftovers(tmp_path / "missing", 1)


def test_voxels_are_kept_in_the_array(tmp_path: Path) -> None:
    voxels = torch.rand(2, 1, 4, 5, 6)
    write_images(voxels, tmp_path, npz=True)
    assert read(tmp_path / "000000.png").shape == (96, 96, 3)
    assert np.load(tmp_path / "samples.npz")["samples"].shape == (2, 1, 4, 5, 6)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = Image.Image.save

    def full(self: Image.Image, path: Path, *args: Any, **kwargs: Any) -> None:
        if path.name == "000003.png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(self, path, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match=r"cannot write .*out.*No space left on device; free some space") as caught:
        write_images(torch.rand(5, 1, 8, 8), tmp_path / "out")
    assert caught.value.errno == errno.ENOSPC
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*choose another folder"):
        write_images(torch.rand(1, 1, 8, 8), tmp_path / "file" / "out")


def test_predict_writes_its_samples(tmp_path: Path) -> None:
    model, run = vae(), trainer(tmp_path, ImageWriter(npz=True))
    predictions = run.predict(model, data())
    assert predictions is not None
    samples = torch.cat(predictions)  # type: ignore[arg-type]
    folder = tmp_path / "samples"
    assert sorted(path.name for path in folder.glob("0*.png")) == [f"{number:06d}.png" for number in range(20)]
    assert np.abs(read(folder / "000013.png") / 255 - samples[13, 0].numpy()).max() <= 0.5 / 255 + 1e-6
    assert read(folder / "grid.png").shape == (3 * 66 + 2, 8 * 66 + 2, 3)
    assert np.array_equal(np.load(folder / "samples.npz")["samples"], samples.numpy())


def test_names_follow_the_indices_of_a_torch_loader(tmp_path: Path) -> None:
    images = torch.rand(7, 1, 8, 8)
    loader = DataLoader([(image, 0) for image in images], batch_size=3, sampler=[4, 2, 0, 6, 5])
    trainer(tmp_path, ImageWriter(str(tmp_path / "chosen"))).predict(vae(), loader)
    names = sorted(path.name for path in (tmp_path / "chosen").glob("0*.png"))
    assert names == [f"{number:06d}.png" for number in (0, 2, 4, 5, 6)]


def test_processes_number_their_samples_apart(tmp_path: Path) -> None:
    class Rank:
        """What the writer asks of a trainer."""

        world_size = 2
        loggers: tuple[pl.loggers.Logger, ...] = ()
        default_root_dir = tmp_path

        def __init__(self, rank: int) -> None:
            self.global_rank = rank
            self.is_global_zero = rank == 0
            self.strategy = self

        def broadcast(self, value: str) -> str:
            return value

    for rank in (0, 1):
        writer, run = ImageWriter(), Rank(rank)
        writer.setup(run, vae(), "predict")  # type: ignore[arg-type]
        for batch_idx in range(2):
            images = torch.full((3, 1, 8, 8), float(rank))
            writer.write_on_batch_end(run, vae(), images, [], None, batch_idx, 0)  # type: ignore[arg-type]
    levels = [int(read(path)[0, 0]) for path in sorted((tmp_path / "samples").glob("0*.png"))]
    assert levels == [0, 255] * 6


def test_a_limit_on_files_leaves_nothing_behind(tmp_path: Path) -> None:
    with file_size_limit(2000), pytest.raises(OSError, match="cannot write") as caught:
        write_images(torch.rand(3, 3, 64, 64), tmp_path / "out")
    assert caught.value.errno == errno.EFBIG
    assert list((tmp_path / "out").iterdir()) == []
