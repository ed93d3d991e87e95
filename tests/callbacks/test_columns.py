"""Columns of several models in one picture, and the shift experiment."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from lit_gen.callbacks import ReconstructionColumns, ShiftExperiment
from lit_gen.callbacks import columns as module
from lit_gen.models import VAE, DeePSiM, FeatureDistance
from lit_gen.networks import RandomComparator, Shape
from lit_gen.objectives import shift
from tests.callbacks.tiny import SHAPE, data, small, trainer, vae


def features(shape: Shape) -> FeatureDistance:
    return FeatureDistance(shape, lambda s: RandomComparator(s, [4, 8]), [-1])


def deepsim() -> DeePSiM:
    return DeePSiM(SHAPE, 4, small, small, adversarial_weight=0, feature_distance=features)


def saved(model: DeePSiM | VAE, path: Path) -> str:
    run = trainer(path)
    run.fit(model, data())
    run.save_checkpoint(path / "model.ckpt")
    return str(path / "model.ckpt")


def test_each_model_has_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, own = vae(), deepsim(), deepsim()
    paths = [saved(model, tmp_path / str(number)) for number, model in enumerate((first, second))]
    drawn = []
    monkeypatch.setattr(module, "image_grid", lambda images, columns: drawn.append((images, columns)) or images[0])
    trainer(tmp_path, ReconstructionColumns(paths, num_images=3)).fit(own, data())
    grid, columns = drawn[-1]
    assert columns == 4
    table = grid.unflatten(0, (3, 4))
    images = table[:, 0]
    for column, model in enumerate((first, second, own), start=1):
        torch.testing.assert_close(table[:, column], model.eval().reconstruct(images))
    assert all(not torch.equal(table[:, a], table[:, b]) for a in range(4) for b in range(a))


def test_the_picture_lies_in_the_run_folder(tmp_path: Path) -> None:
    path = saved(vae(), tmp_path / "other")
    trainer(tmp_path, ReconstructionColumns([path], num_images=2)).fit(deepsim(), data())
    (file,) = (tmp_path / "images" / "val" / "columns").glob("*.png")
    with Image.open(file) as picture:
        assert picture.width > picture.height


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    path = saved(vae(), tmp_path)
    with pytest.raises(ValueError, match=r"is of images of shape \(1, 8, 8\), the run of \(1, 9, 8\)"):
        ReconstructionColumns([path]).setup(trainer(tmp_path), VAE((1, 9, 8), 2, small, small), "fit")
    with pytest.raises(ValueError, match="others must be a list"):
        ReconstructionColumns(path)


def test_a_shift_is_noticed_as_the_distances_say(tmp_path: Path) -> None:
    model, run = deepsim(), trainer(tmp_path, ShiftExperiment(reach=2))
    run.fit(model, data(binarization="none"))
    source = data(binarization="none")
    source.setup("fit")
    images = next(iter(source.val_dataloader()))[0]
    values = run.callback_metrics
    for pixels in (1, 2):
        moved = shift(images, 0, pixels)
        expected = (moved - images).square().mean() / (images - images.roll(1, 0)).square().mean()
        assert float(values[f"val/shift{pixels}_pixel"]) == pytest.approx(float(expected), rel=1e-4)
        assert f"val/shift{pixels}_feature" in values
