"""Copies of training images are found, and shown beside them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_gen.callbacks import Memorization
from lit_gen.data import Digits
from lit_gen.models import VAE, Classifier
from lit_gen.models.base import GenerativeModel
from lit_gen.networks import ConvEncoder, Shape
from tests.callbacks.test_images import read, tiles
from tests.callbacks.tiny import SHAPE, small, trainer, vae


def split(part: str) -> Tensor:
    data: Any = Digits(batch_size=50)
    loader = {"train": data.train_dataloader, "test": data.test_dataloader}[part]()
    return torch.cat([images for images, _ in loader])


class Drawing(VAE):
    """Its samples are what a test makes of images."""

    make: Callable[[int], Tensor]

    def draw(self, num_samples: int, condition: Any = None) -> Tensor:
        return self.make(num_samples)


def measured(make: Callable[[int], Tensor], folder: Path, **arguments: Any) -> dict[str, float]:
    model = Drawing(SHAPE, 2, small, small)
    model.make = make
    callback = Memorization(**{"num_samples": 300, **arguments})
    (result,) = trainer(folder, callback).test(model, Digits(batch_size=50), verbose=False)
    return dict(result)


def test_a_model_that_replays_training_images_is_found_out(tmp_path: Path) -> None:
    train = split("train")
    result = measured(lambda count: train[torch.randint(len(train), (count,))], tmp_path, num_shown=3, num_neighbors=2)
    assert result["test/copies"] == 1
    assert result["test/memorization"] == pytest.approx(1, abs=0.05)
    (path,) = (tmp_path / "images" / "test" / "neighbours").iterdir()
    grid = tiles(read(path), 3, 3)
    assert np.array_equal(grid[:, 0], grid[:, 1]), "the nearest is the sample itself"
    assert not np.array_equal(grid[:, 0], grid[:, 2])
    receipts = json.loads((tmp_path / "receipts" / "test-memorization.json").read_text())["scores"]
    assert [receipt["metric"] for receipt in receipts] == ["copies", "memorization"]
    assert receipts[0]["settings"]["training_images"] == len(train) == 1297
    assert receipts[1]["num_real"] == 300


def test_a_model_of_noise_is_not(tmp_path: Path) -> None:
    result = measured(lambda count: torch.rand(count, *SHAPE), tmp_path)
    assert result["test/copies"] == 0
    assert abs(result["test/memorization"]) < 0.6  # four standard errors


def test_nor_is_one_that_draws_as_the_data_does(tmp_path: Path) -> None:
    data: Any = Digits(batch_size=50)
    fresh = torch.cat([images for images, _ in data.val_dataloader()])
    result = measured(
        lambda count: fresh[torch.randperm(len(fresh))[:count]], tmp_path, num_samples=200, batch_size=200
    )
    assert result["test/copies"] < 0.05
    assert abs(result["test/memorization"]) < 0.6


def test_the_nearest_of_all_training_images_are_shown(tmp_path: Path) -> None:
    train, noise = split("train"), torch.rand(4, *SHAPE)
    measured(lambda count: noise[:count], tmp_path, num_samples=4, num_shown=4, num_neighbors=3)
    (path,) = (tmp_path / "images" / "test" / "neighbours").iterdir()
    grid = tiles(read(path), 4, 4)
    nearest = torch.cdist(noise.flatten(1), train.flatten(1)).topk(3, largest=False).indices
    for row, numbers in enumerate(nearest):
        for column, number in enumerate(numbers, start=1):
            expected = np.asarray((255 * train[number, 0]).round().byte()).repeat(8, 0).repeat(8, 1)
            assert np.abs(grid[row, column].astype(int) - expected).max() <= 1


def test_features_of_a_classifier(tmp_path: Path) -> None:
    def network(input_shape: Shape, output_shape: Shape) -> ConvEncoder:
        return ConvEncoder(input_shape, output_shape, channels=(4,))

    run = trainer(tmp_path)
    run.fit(Classifier(SHAPE, 10, num_features=6, network=network), Digits(batch_size=200))
    run.save_checkpoint(tmp_path / "classifier.ckpt")
    train = split("train")
    result = measured(lambda count: train[:count], tmp_path / "run", features=str(tmp_path / "classifier.ckpt"))
    assert result["test/copies"] == 1


def test_in_a_fit_with_conditions_and_noise_left_alone(tmp_path: Path) -> None:
    """Measuring in validation changes nothing of the training."""
    weights = []
    for callbacks in ([], [Memorization(num_samples=20, stages=("val",))]):
        torch.manual_seed(0)
        model = vae()
        run = trainer(tmp_path, *callbacks, max_epochs=2)
        run.fit(model, Digits(batch_size=200, binarization="stochastic", subset=200))
        weights.append([parameter.clone() for parameter in model.parameters()])
    assert {"val/copies", "val/memorization"} <= run.callback_metrics.keys()
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


def test_without_training_images_it_is_idle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loader: Any = Digits(batch_size=50)
    run = trainer(tmp_path, Memorization())
    (result,) = run.test(vae(), loader.test_dataloader(), verbose=False)
    assert "test/copies" not in result
    assert "Memorization is idle" in caplog.text


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_reference must be at least 100, to know one in a hundred; got 50"):
        Memorization(num_reference=50)
    with pytest.raises(TypeError, match="Classifier draws none: leave it out"):
        trainer(tmp_path, Memorization()).test(Classifier(SHAPE, 3), Digits(batch_size=50))
    assert not issubclass(Classifier, GenerativeModel)
