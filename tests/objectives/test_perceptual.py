"""Distances of images, and what a shift does to them."""

import pytest
import torch

from lit_gen.objectives import half_squares, shift, shift_tolerant_error, unexplained


def test_half_squares_are_those_of_caffe() -> None:
    values, targets = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert half_squares(values, targets).tolist() == [2.0, 12.5]


def test_unexplained_is_one_for_the_mean_and_two_for_another_image() -> None:
    data = torch.randn(2000, 3, 4) * torch.tensor([1.0, 5.0, 0.1, 2.0])
    spread = data.var(0, correction=0).sum()[None]
    mean = data.mean(0, keepdim=True).expand_as(data)
    assert unexplained([data], [data], spread).abs().max() == 0
    assert unexplained([mean], [data], spread).mean().item() == pytest.approx(1, abs=1e-4)
    assert unexplained([data.roll(1, 0)], [data], spread).mean().item() == pytest.approx(2, rel=0.05)


def test_layers_count_alike_whatever_their_scale() -> None:
    small, large = torch.rand(5, 3), 1000 * torch.rand(5, 7)
    spreads = torch.stack([small.var(0, correction=0).sum(), large.var(0, correction=0).sum()])
    both = unexplained([small, large], [small.roll(1, 0), large.roll(1, 0)], spreads)
    apart = [unexplained([one], [one.roll(1, 0)], spread[None]) for one, spread in zip((small, large), spreads)]
    torch.testing.assert_close(both, (apart[0] + apart[1]) / 2)


def test_shift_moves_down_and_right_and_repeats_the_edge() -> None:
    image = torch.arange(9.0).view(1, 1, 3, 3)
    assert shift(image, 1, 0).view(3, 3).tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5]]
    assert shift(image, 0, -1).view(3, 3).tolist() == [[1, 2, 2], [4, 5, 5], [7, 8, 8]]


def test_a_tolerated_shift_costs_nothing_and_a_longer_one_does() -> None:
    image = torch.rand(4, 2, 9, 11)
    for down, right in ((0, 0), (1, 0), (-1, 1), (1, -1)):
        assert shift_tolerant_error(shift(image, down, right), image).max() == 0
    assert shift_tolerant_error(shift(image, 2, 0), image).min() > 1e-3
    assert shift_tolerant_error(shift(image, 2, 0), image, reach=2).max() == 0
    inner = (image[:, :, 1:-1, 1:-1] - 0.5).square().flatten(1).mean(1)
    grey = torch.full_like(image, 0.5)
    torch.testing.assert_close(shift_tolerant_error(grey, image, reach=0, margin=1), inner)
    assert (shift_tolerant_error(grey, image) <= inner).all()


def test_a_reach_beyond_the_image_is_refused() -> None:
    for options in ({"reach": 2}, {"reach": 1, "margin": 0}):
        with pytest.raises(ValueError, match=r"margin at least as much, and pixels of \(4, 4\) be left"):
            shift_tolerant_error(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), **options)
