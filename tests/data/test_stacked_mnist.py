"""Three digits in three colours."""

from typing import Any

import pytest
import torch

from lit_gen.data import Digits, StackedMNIST
from lit_gen.data.stacked_mnist import stack_digits
from tests.data.common import everything


def small(**options: Any) -> StackedMNIST:
    sizes = {"num_train": 400, "num_val": 50, "num_test": 50}
    return StackedMNIST("digits", batch_size=20, **{**sizes, **options})


def test_digits_are_planes_and_their_labels_a_number() -> None:
    digits = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 1, 2, 3)
    images, classes = stack_digits(digits, torch.tensor([7, 0, 9, 3, 1]), torch.tensor([[0, 1, 4], [3, 3, 2]]))
    assert images.shape == (2, 3, 2, 3)
    assert images[:, :, 1, 2].tolist() == [[0, 1, 4], [3, 3, 2]]
    assert classes.tolist() == [701, 339]


def test_every_plane_is_a_digit_of_the_split_and_of_the_class() -> None:
    data, source = small(), Digits()
    for ours, theirs in (
        (data.train_dataloader(), source.train_dataloader()),
        (data.test_dataloader(), source.test_dataloader()),
    ):
        (images, classes), (digits, labels) = everything(ours), everything(theirs)
        known = {image.numpy().tobytes(): int(label) for image, label in zip(digits[:, 0], labels, strict=True)}
        for image, number in zip(images, classes, strict=True):
            assert [known[plane.contiguous().numpy().tobytes()] for plane in image] == [
                int(one) for one in f"{number:03}"
            ]
        assert len(classes.unique()) > 0.7 * len(classes) if len(classes) < 100 else len(classes.unique()) > 300


def test_images_are_the_same_every_time_and_differ_between_splits() -> None:
    first, again = everything(small().val_dataloader())[0], everything(small(seed=7).val_dataloader())[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, everything(small().test_dataloader())[0])
    static = everything(small(binarization="static").test_dataloader())[0]
    assert set(static.unique().tolist()) == {0, 1}
    assert "of Digits" in small().protocol


def test_mnist_is_known_before_any_download() -> None:
    data = StackedMNIST(root="nowhere")
    assert (data.image_shape, data.num_classes, data.num_train) == ((3, 28, 28), 1000, 128_000)
    assert StackedMNIST(root="nowhere", image_size=32).image_shape == (3, 32, 32)
    with pytest.raises(FileNotFoundError, match=r"--data\.root"):
        data.setup("fit")


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="source must be one of mnist, digits; got 'svhn'"):
        StackedMNIST("svhn")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_train must be at least 1"):
        StackedMNIST("digits", num_train=0)
    with pytest.raises(ValueError, match=r"channels must be 3 \(colour\), or left out for what is stored; got 1"):
        small(channels=1)
