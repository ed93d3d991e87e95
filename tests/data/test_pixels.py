"""Conversions of whole image tensors, against Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image

from lit_gen.data.loader import CHUNK
from lit_gen.data.pixels import binarize_once, luminance, to_shape


def random_images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def test_luminance_is_pillows() -> None:
    images = random_images(2, 3, 64, 50)
    for image, grey in zip(images, luminance(images), strict=True):
        pillow = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L"))
        assert np.array_equal(grey[0].numpy(), pillow)


@pytest.mark.parametrize("size", [(7, 9), (28, 20), (64, 80)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_is_pillows_antialiased_bilinear(channels: int, size: tuple[int, int]) -> None:
    images = random_images(2, channels, 40, 31)
    resized = to_shape(images, (channels, *size))
    for image, got in zip(images, resized, strict=True):
        planes = [Image.fromarray(plane.numpy()).resize(size[::-1], Image.Resampling.BILINEAR) for plane in image]
        wanted = np.stack([np.asarray(plane) for plane in planes]).astype(int)
        assert np.abs(got.numpy() - wanted).max() <= 1  # rounding


def test_channels() -> None:
    grey = random_images(3, 1, 5, 6)
    assert torch.equal(to_shape(grey, (3, 5, 6)), grey.repeat(1, 3, 1, 1))
    colour = random_images(3, 3, 5, 6)
    assert torch.equal(to_shape(colour, (1, 5, 6)), luminance(colour))
    assert to_shape(colour, (3, 5, 6)) is colour
    assert to_shape(colour, (1, 4, 3)).shape == (3, 1, 4, 3)


def test_chunks_are_put_together_in_order() -> None:
    images = random_images(CHUNK + 3, 3, 4, 4)
    converted = to_shape(images, (1, 4, 4))
    assert torch.equal(converted[-2:], luminance(images[-2:]))
    binary = binarize_once(converted, seed=1)
    assert len(binary) == CHUNK + 3
    assert set(binary.unique().tolist()) == {0, 255}
    assert torch.equal(binarize_once(binary, seed=2), binary), "what is binary already stays as it is"
    assert torch.equal(binarize_once(converted[:10], seed=1), binary[:10]), "a subset is binarized as the whole"
