"""Modes of stacked digits, counted by a classifier that knows them."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from lit_gen.callbacks import ModeCoverage
from lit_gen.data import Digits, StackedMNIST
from lit_gen.models import Classifier, FusedAdam, GenerativeModel
from lit_gen.networks import MLP
from tests.callbacks.tiny import trainer


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that knows nine in ten of the embedded digits."""
    torch.manual_seed(0)
    network = Classifier(
        (1, 8, 8),
        10,
        num_features=64,
        network=lambda i, o: MLP(i, o, hidden_dims=[64]),
        dropout=0.0,
        optimizer=lambda parameters: FusedAdam(parameters, lr=5e-3),
    )
    folder = tmp_path_factory.mktemp("classifier")
    run = trainer(folder, max_epochs=10, limit_val_batches=0)
    run.fit(network, Digits(batch_size=50))
    run.save_checkpoint(folder / "digits.ckpt")
    return folder / "digits.ckpt"


class Repeats(GenerativeModel):
    """Draws some of the images that it was given."""

    def __init__(self, images: Tensor) -> None:
        super().__init__((3, 8, 8))
        self.images = images

    def draw(self, num_samples: int, condition: Any = None) -> Tensor:
        return self.images[torch.randint(len(self.images), (num_samples,))]

    def training_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def test_step(self, batch: Any, batch_idx: int) -> None:
        pass


def stacks(count: int) -> StackedMNIST:
    return StackedMNIST("digits", num_train=10, num_val=10, num_test=count, batch_size=500)


def measured(model: pl.LightningModule, data: StackedMNIST, callback: ModeCoverage, folder: Path) -> dict[str, float]:
    return dict(trainer(folder, callback).test(model, data, verbose=False)[0])


def test_modes_of_a_model_are_those_of_its_images(classifier: Path, tmp_path: Path) -> None:
    data = stacks(26_000)
    images = torch.cat([images for images, _ in data.test_dataloader()])
    found = measured(Repeats(images), data, ModeCoverage(str(classifier)), tmp_path)
    assert found["test/modes_real"] >= 999
    assert found["test/modes"] >= 999
    # Not all digits are equally frequent among the embedded ones, nor all seen as what they are.
    assert 0.0185 < found["test/modes_kl_real"] < 0.1
    # Draws from a sample have its noise and as much again: 999 / (2 * 26,000).
    assert found["test/modes_kl"] == pytest.approx(found["test/modes_kl_real"] + 0.0192, abs=0.006)


def test_a_collapsed_model(classifier: Path, tmp_path: Path) -> None:
    data = stacks(500)
    images, classes = next(iter(data.test_dataloader()))
    few = torch.stack([images[classes == number][0] for number in classes.unique()[:4]])
    found = measured(Repeats(few), data, ModeCoverage(str(classifier), num_samples=2000, batch_size=300), tmp_path)
    assert found["test/modes"] <= 4
    assert found["test/modes_kl"] >= 5.5, "log(1000 / 4) is 5.52"
    assert found["test/modes_real"] > 300


def test_mistakes(classifier: Path, tmp_path: Path) -> None:
    large = Repeats(torch.zeros(1, 3, 9, 9))
    large.image_shape = (3, 9, 9)
    with pytest.raises(
        ValueError, match=r"is a classifier of images of \(1, 8, 8\), and the planes .* \(1, 9, 9\): take"
    ):
        measured(large, stacks(10), ModeCoverage(str(classifier)), tmp_path)
    none = Classifier((1, 8, 8), 10, 4, lambda i, o: MLP(i, o, hidden_dims=[4]))
    with pytest.raises(TypeError, match="ModeCoverage counts samples, and Classifier draws none: leave it out"):
        measured(none, stacks(10), ModeCoverage(str(classifier)), tmp_path)
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        ModeCoverage("x", num_samples=0)
