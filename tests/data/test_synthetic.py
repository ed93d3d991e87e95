"""Sets that need no download: synthetic images and the embedded digits."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from lit_gen.data import Digits, Synthetic
from tests.data.common import everything


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 8, 12)])
def test_shapes_and_sizes(shape: tuple[int, int, int]) -> None:
    data = Synthetic(image_shape=shape, num_classes=3, num_train=60, num_val=20, num_test=10)
    assert (data.image_shape, data.num_classes, data.num_train) == (shape, 3, 60)
    for loader, size in ((data.train_dataloader(), 60), (data.val_dataloader(), 20), (data.test_dataloader(), 10)):
        images, targets = everything(loader)
        assert images.shape == (size, *shape)
        assert set(targets.tolist()) == {0, 1, 2}
        assert images.std(0).max() > 0.1
    again = everything(Synthetic(image_shape=shape, num_classes=3, num_train=60).train_dataloader())[0]
    assert torch.equal(again, everything(data.train_dataloader())[0])


def test_classes_can_be_told_apart_and_images_differ() -> None:
    data = Synthetic(num_classes=4)
    images, targets = everything(data.train_dataloader())
    test_images, test_targets = everything(data.test_dataloader())
    assert len(images.flatten(1).unique(dim=0)) > 0.9 * len(images)
    nearest = KNeighborsClassifier(1).fit(images.flatten(1).numpy(), targets.numpy())
    assert nearest.score(test_images.flatten(1).numpy(), test_targets.numpy()) > 0.95


def test_colour_tells_the_class() -> None:
    images, targets = everything(Synthetic(image_shape=(3, 16, 16), num_classes=3).train_dataloader())
    colour = images.amax((2, 3))
    hues = torch.stack([(colour / colour.amax(1, keepdim=True))[targets == k].mean(0) for k in range(3)])
    assert torch.pdist(hues).min() > 0.5


def test_without_labels() -> None:
    data = Synthetic(num_classes=0)
    assert data.num_classes == 0
    assert next(iter(data.train_dataloader()))[1] is None


@pytest.mark.parametrize(
    "options",
    [{"image_shape": (28, 28)}, {"image_shape": (1, 0, 3)}, {"num_train": 0}, {"num_val": -1}, {"num_classes": -1}],
)
def test_wrong_arguments(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be (three positive numbers|at least 1)"):
        Synthetic(**options)


def test_digits_are_scikit_learns() -> None:
    data = Digits()
    data.prepare_data()
    splits = [everything(loader) for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())]
    assert [len(images) for images, _ in splits] == [1297, 200, 300]
    images, targets = (torch.cat(parts).numpy() for parts in zip(*splits, strict=True))
    wanted = load_digits()
    rows = np.rint(images.reshape(1797, 64) * 16).astype(int)
    order, wanted_order = np.lexsort(rows.T), np.lexsort(wanted.data.astype(int).T)
    assert np.array_equal(rows[order], wanted.data.astype(int)[wanted_order])
    assert np.array_equal(targets[order], wanted.target[wanted_order])


def test_voxels() -> None:
    data = Synthetic(image_shape=(1, 6, 7, 8), num_classes=3, num_train=60, batch_size=25, binarization="static")
    assert (data.image_shape, data.num_train) == ((1, 6, 7, 8), 60)
    images, targets = everything(data.train_dataloader())
    assert images.shape == (60, 1, 6, 7, 8)
    assert set(images.unique().tolist()) == {0, 1}
    assert set(targets.tolist()) == {0, 1, 2}
    assert "images of 1x6x7x8; binarization static" in data.protocol
    soft = everything(Synthetic(image_shape=(1, 6, 7, 8)).test_dataloader())[0]
    assert soft.std((1, 2, 3, 4)).min() > 0.01, "none is empty, none is full"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 16}, r"image_size=\(16, 16\) is for pictures; Synthetic gives voxels of 1x6x7x8: leave"),
        ({"channels": 3}, "channels=3 is for pictures"),
        ({"horizontal_flip": True}, "horizontal_flip=True is for pictures"),
        ({"image_shape": (3, 6, 7, 8)}, r"or four \(1, depth, height, width\) for voxels; got \(3, 6, 7, 8\)"),
    ],
)
def test_what_has_no_meaning_for_voxels_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Synthetic(**{"image_shape": (1, 6, 7, 8), **options})
