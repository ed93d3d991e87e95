"""Codes are computed once for each image, and are those of the encoder."""

import pytest
import torch
from torch import Tensor

from lit_gen.models.code_cache import CodeCache


class Encoder:
    """Twice the sum over channels; counts the images that it has seen."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return 2 * images.sum(1)


def images(count: int) -> Tensor:
    torch.manual_seed(0)
    return (torch.rand(count, 3, 4, 4) < 0.5).float()


def test_each_image_is_encoded_once_and_found_in_any_order() -> None:
    cache, encoder, every = CodeCache(2**20), Encoder(), images(10)
    for chosen in ([0, 1, 2, 3], [3, 5, 0, 4], [9, 8, 7, 6], [2, 2, 9]):
        assert torch.equal(cache(every[chosen], encoder), 2 * every[chosen].sum(1))
    assert encoder.seen == len(cache) == 10


def test_codes_do_not_follow_what_a_caller_does_to_them() -> None:
    cache, encoder, every = CodeCache(2**20), Encoder(), images(3)
    cache(every, encoder).zero_()
    assert torch.equal(cache(every, encoder), 2 * every.sum(1))


@pytest.mark.parametrize(("limit", "kept"), [(0, 0), (4 * 16 * 4, 4)])
def test_the_limit_is_kept(limit: int, kept: int) -> None:
    cache, encoder, every = CodeCache(limit), Encoder(), images(10)
    for _ in range(2):
        assert torch.equal(cache(every, encoder), 2 * every.sum(1))
    assert len(cache) == kept
    assert encoder.seen == 20 - kept


def test_cleared_it_encodes_anew() -> None:
    cache, encoder, every = CodeCache(2**20), Encoder(), images(3)
    cache(every, encoder)
    cache.clear()
    cache(every, lambda some: some.sum(1))
    assert torch.equal(cache(every, encoder), every.sum(1))


def test_a_negative_limit_is_told() -> None:
    with pytest.raises(ValueError, match="number of bytes, 0 to keep none; got -1"):
        CodeCache(-1)
