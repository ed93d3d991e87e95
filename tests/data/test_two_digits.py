"""Two digits on one image."""

import pytest
import torch

from lit_gen.data import Digits, TwoDigits
from lit_gen.data.two_digits import scatter_digits


def small(**options: object) -> TwoDigits:
    sizes = {"num_train": 40, "num_val": 10, "num_test": 10}
    return TwoDigits("digits", batch_size=10, **{**sizes, **options})  # type: ignore[arg-type]


def test_digits_lie_where_they_were_put_and_add_up_to_white() -> None:
    digits = torch.tensor([[[[200, 10], [20, 30]]], [[[100, 1], [2, 3]]]], dtype=torch.uint8)
    places = torch.tensor([[[0, 0], [2, 3]], [[1, 1], [1, 1]]])
    images = scatter_digits(digits, torch.tensor([[0, 1], [0, 1]]), places, 5)[:, 0]
    apart = torch.zeros(5, 5, dtype=torch.uint8)
    apart[:2, :2], apart[2:4, 3:] = digits[0, 0], digits[1, 0]
    assert torch.equal(images[0], apart)
    assert images[1, 1:3, 1:3].tolist() == [[255, 11], [22, 33]]
    assert images[1].sum() == 255 + 11 + 22 + 33


def test_splits_show_digits_of_their_own_split() -> None:
    data = small()
    assert data.image_shape == (1, 17, 17)
    source = Digits()
    alone = source.val_dataloader().images.images.flatten(1).long()  # type: ignore[union-attr]
    sums = alone.sum(1)
    images = torch.cat([images for images, _ in data.val_dataloader()]) * 255
    # Where nothing was clipped, the ink of an image is that of two digits of the split.
    for image in images.round().long():
        if image.max() < 255:
            assert (sums[:, None] + sums == image.sum()).any()
    assert images.amax((1, 2, 3)).min() > 0
    assert "of Digits" in data.protocol


def test_images_are_the_same_every_time_and_reach_every_rim() -> None:
    first, second = (torch.cat([x for x, _ in small(num_train=300).train_dataloader()]) for _ in range(2))
    assert torch.equal(first, second)
    ink = first.sum((0, 1)) > 0
    assert all(rim.any() for rim in (ink[0], ink[-1], ink[:, 0], ink[:, -1]))
    static = torch.cat([x for x, _ in small(binarization="static").train_dataloader()])
    assert set(static.unique().tolist()) == {0, 1}


def test_mnist_is_sixty_pixels_wide_before_any_download() -> None:
    data = TwoDigits(root="nowhere")
    assert data.image_shape == (1, 60, 60)
    assert data.num_train == 60_000
    with pytest.raises(FileNotFoundError, match=r"--data\.root"):
        data.setup("fit")


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="source must be one of mnist, digits; got 'svhn'"):
        TwoDigits("svhn")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="canvas_size must hold a digit of 8x8, got 7"):
        TwoDigits("digits", canvas_size=7)
    with pytest.raises(ValueError, match="num_train must be at least 1"):
        TwoDigits("digits", num_train=0)
