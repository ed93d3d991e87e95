"""Readers and writers against pinned values, identities and finite differences."""

import math

import pytest
import torch
from torch import Tensor

from lit_gen.networks import (
    AttentiveReader,
    AttentiveWriter,
    ConvReader,
    ConvWriter,
    FilterBank,
    FullReader,
    FullWriter,
    Window,
)


def window(size: int, centre: tuple[float, float], stride: float, variance: float, intensity: float = 1.0) -> Window:
    one = torch.ones(1, dtype=torch.float64)
    return Window(torch.tensor([centre]).double(), stride * one, math.sqrt(variance) * one, intensity * one, size)


def random_numbers(count: int = 4) -> Tensor:
    return 0.5 * torch.randn(count, 5, dtype=torch.float64)


def test_zeros_span_the_image_from_its_first_pixel_to_its_last() -> None:
    bank = FilterBank((28, 28), 5).double()
    zero = bank.window(torch.zeros(1, 5).double())
    assert zero.centre.tolist() == [[13.5, 13.5]]
    assert (zero.stride.item(), zero.std.item(), zero.intensity.item()) == (6.75, 1, 1)
    assert zero.boxes.tolist() == [[0, 0, 28, 28]]
    filter_y, filter_x = (filters[0] for filters in bank.filters(zero))
    torch.testing.assert_close(filter_y, filter_x)
    means = (filter_x[1:-1] * torch.arange(28)).sum(1)  # those whose tails are not cut off
    # A Gaussian sampled at whole numbers has its mean but for 4 pi exp(-2 pi^2) = 3.4e-8.
    torch.testing.assert_close(means, torch.tensor([6.75, 13.5, 20.25]).double(), atol=4e-8, rtol=0)
    # Computed from the formulas of the paper, counted from 1.
    pinned = {(2, 13): 0.35206533, (2, 14): 0.35206533, (0, 0): 0.57034845, (4, 27): 0.57034845}
    for place, value in (pinned | {(0, 1): 0.34593382, (1, 8): 0.18264909}).items():
        assert filter_x[place].item() == pytest.approx(value, abs=1e-8)


def test_filters_equal_the_formulas_counted_from_one() -> None:
    height, width, size = 6, 9, 4
    numbers = random_numbers(1)
    gx, gy, log_variance, log_stride, _ = numbers[0].tolist()
    filters = (
        FilterBank((height, width), size).double().filters(FilterBank((height, width), size).double().window(numbers))
    )
    stride = (max(height, width) - 1) / (size - 1) * math.exp(log_stride)
    for found, length, g in ((filters[0], height, gy), (filters[1], width, gx)):
        for i in range(1, size + 1):
            mean = (length + 1) / 2 * (g + 1) + (i - size / 2 - 0.5) * stride
            row = [math.exp(-((a - mean) ** 2) / (2 * math.exp(log_variance))) for a in range(1, length + 1)]
            assert found[0, i - 1].tolist() == pytest.approx([value / sum(row) for value in row])


@pytest.mark.parametrize("size", [(7, 12), (12, 7), (8, 8)])
def test_rows_sum_to_one_wherever_the_window_lies(size: tuple[int, int]) -> None:
    bank = FilterBank(size, 3)
    for numbers in (torch.zeros(1, 5), torch.tensor([[40.0, -30.0, -8.0, 1.0, 0.0]]), random_numbers().float()):
        filter_y, filter_x = bank.filters(bank.window(numbers))
        assert filter_y.shape[1:] == (3, size[0])
        assert filter_x.shape[1:] == (3, size[1])
        for filters in (filter_y, filter_x):
            torch.testing.assert_close(filters.sum(2), torch.ones(len(numbers), 3))


def test_grid_is_symmetric_under_a_flip_of_the_image() -> None:
    bank = FilterBank((7, 10), 4).double()
    images, numbers = torch.rand(4, 2, 7, 10).double(), random_numbers()
    mirrored = numbers.clone()
    mirrored[:, 0] *= -1  # g_X is 0 in the middle
    flipped = bank.read(images.flip(-1), bank.window(mirrored))
    torch.testing.assert_close(flipped.flip(-1), bank.read(images, bank.window(numbers)))


def test_a_window_of_unit_stride_over_the_whole_image_reproduces_it() -> None:
    bank, images = FilterBank((9, 9), 9).double(), torch.rand(1, 3, 9, 9).double()
    sharp = window(9, (4, 4), 1.0, 0.01, intensity=2.5)
    filter_y, _ = bank.filters(sharp)
    assert (filter_y[0] - torch.eye(9)).abs().max() < 2e-22
    patches = bank.read(images, sharp)
    torch.testing.assert_close(patches, 2.5 * images)
    torch.testing.assert_close(bank.write(patches, sharp), images)
    blurred = bank.filters(window(9, (4, 4), 1.0, 0.25))[0][0]
    assert blurred[4, 3:6].tolist() == pytest.approx([0.10645077, 0.78657071, 0.10645077], abs=1e-8)


def test_reading_and_writing_are_adjoint() -> None:
    bank = FilterBank((7, 10), 4).double()
    chosen = bank.window(random_numbers())
    images, patches = torch.randn(4, 2, 7, 10).double(), torch.randn(4, 2, 4, 4).double()
    left = (bank.read(images, chosen) * patches).sum((1, 2, 3))
    right = chosen.intensity.square() * (images * bank.write(patches, chosen)).sum((1, 2, 3))
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_constants_are_scaled_by_the_intensity_alone() -> None:
    bank = FilterBank((7, 10), 4).double()
    chosen = bank.window(random_numbers())
    factor = chosen.intensity[:, None, None, None]
    read = bank.read(torch.full((4, 2, 7, 10), 0.3).double(), chosen)
    torch.testing.assert_close(read, (0.3 * factor).expand_as(read))
    patches = torch.randn(4, 2, 4, 4).double()
    torch.testing.assert_close(bank.write(patches, chosen).sum((2, 3)), (patches / factor).sum((2, 3)))


def test_every_channel_is_filtered_alike() -> None:
    bank = FilterBank((6, 5), 3).double()
    chosen, images, patches = bank.window(random_numbers()), torch.rand(4, 3, 6, 5).double(), torch.rand(4, 3, 3, 3)
    for channel in range(3):
        alone = slice(channel, channel + 1)
        torch.testing.assert_close(bank.read(images, chosen)[:, alone], bank.read(images[:, alone], chosen))
        written = bank.write(patches.double(), chosen)[:, alone]
        torch.testing.assert_close(written, bank.write(patches[:, alone].double(), chosen))


def test_gradients_of_the_five_numbers_by_finite_differences() -> None:
    bank, images = FilterBank((5, 7), 3).double(), torch.rand(2, 1, 5, 7).double()
    numbers, patches = random_numbers(2).requires_grad_(), torch.rand(2, 1, 3, 3).double()
    assert torch.autograd.gradcheck(lambda n: bank.read(images, bank.window(n)), numbers)
    assert torch.autograd.gradcheck(lambda n: bank.write(patches, bank.window(n)), numbers)


def test_windows_stay_in_float32_under_autocast() -> None:
    reader, writer = AttentiveReader((1, 8, 8), 6), AttentiveWriter((6,), (1, 8, 8))
    images, hidden = torch.rand(3, 1, 8, 8), torch.randn(3, 6)
    with torch.autocast("cpu", torch.bfloat16):
        glimpse, stroke = reader(images, images, hidden), writer(hidden)
    for chosen, bank in ((glimpse.window, reader.filter_bank), (stroke.window, writer.filter_bank)):
        assert chosen is not None
        assert chosen.centre.dtype is torch.float32
        assert bank.filters(chosen)[0].dtype is torch.float32
    assert glimpse.features.dtype is stroke.increment.dtype is torch.float32


@pytest.mark.parametrize(("shape", "grid_size"), [((1, 28, 28), 5), ((3, 60, 60), 8), ((1, 33, 33), 4)])
def test_a_writer_starts_by_covering_the_canvas(shape: tuple[int, int, int], grid_size: int) -> None:
    writer = AttentiveWriter((6,), shape, grid_size)
    with torch.no_grad():
        writer.linear.weight.zero_()
        writer.linear.bias[5:] = 1
    stroke = writer(torch.zeros(1, 6))
    assert stroke.window is not None
    # Between the second filter and the last but one: those at the edge are cut off, and sum to one within the image.
    inner = slice(round(writer.filter_bank.unit_stride), -round(writer.filter_bank.unit_stride))
    covered = stroke.increment[0, 0, inner, inner]
    torch.testing.assert_close(covered, torch.ones_like(covered), rtol=0, atol=0.35)
    assert stroke.window.std.item() == pytest.approx(stroke.window.stride.item() / 2)


def test_shapes_and_sizes_of_all_parts() -> None:
    shape, images, hidden = (3, 9, 14), torch.rand(2, 3, 9, 14), torch.randn(2, 6)
    for reader in (AttentiveReader(shape, 6, 4), FullReader(shape, 6), ConvReader(shape, 6, channels=[5, 4])):
        assert reader(images, images, hidden).features.shape == (2, *reader.output_shape)
    assert torch.equal(FullReader(shape, 6)(images, -images, hidden).features[0, 378:], -images[0].flatten())
    for writer in (AttentiveWriter((6,), shape, 4), FullWriter((6,), shape)):
        assert writer(hidden).increment.shape == images.shape
    maps = torch.randn(2, 6, 3, 4)
    assert ConvWriter((6, 3, 4), shape, channels=[5])(maps).increment.shape == images.shape
    assert sum(part.numel() for part in AttentiveWriter((256,), (1, 28, 28)).parameters()) == 257 * (5 + 25)


def test_bad_sizes() -> None:
    with pytest.raises(ValueError, match="grid_size must be at least 2 filters along each side, got 1"):
        AttentiveReader((1, 8, 8), 4, grid_size=1)
    with pytest.raises(ValueError, match=r"image_shape must be \(channels, height, width\), got \(1, 8, 8, 8\)"):
        FullReader((1, 8, 8, 8), 4)
    with pytest.raises(ValueError, match=r"from maps of size \(4, 4\), the hidden state has shape \(6, 2, 2\)"):
        ConvWriter((6, 2, 2), (1, 8, 8), channels=[])
    with pytest.raises(ValueError, match="at least one layer"):
        ConvReader((1, 8, 8), 4, channels=[])


def test_no_weight_is_so_small_that_processors_crawl() -> None:
    # Sharp filters, near the image and far outside it, whose tails underflow.
    torch.manual_seed(0)
    bank = FilterBank((28, 20), 5)
    numbers = torch.randn(200, 5) * torch.tensor([2.0, 2.0, 1.0, 1.0, 1.0]) - torch.tensor([0.0, 0.0, 2.0, 0.0, 0.0])
    sharp = bank.window(numbers.requires_grad_())
    images = torch.rand(200, 2, 28, 20, requires_grad=True)
    read = bank.read(images, sharp)
    written = bank.write(torch.randn_like(read), sharp)
    (read.sum() + written.square().sum()).backward()
    assert images.grad is not None
    smallest = torch.finfo(torch.float32).tiny
    for values in (*bank.filters(sharp), read, written, images.grad):
        assert not ((values != 0) & (values.abs() < smallest)).any()
    exact = FilterBank((28, 20), 5).double()
    for ours, wanted in zip(bank.filters(sharp), exact.filters(exact.window(numbers.double())), strict=True):
        torch.testing.assert_close(ours.double(), wanted, atol=1e-5, rtol=1e-5)
        assert (wanted[ours == 0] < 1e-12).all()


@pytest.mark.parametrize("number", [-95.0, 95.0])
def test_windows_of_a_diverging_run_stay_finite(number: float) -> None:
    bank = FilterBank((8, 8), 3)
    numbers = torch.full((1, 5), number, requires_grad=True)
    read = bank.read(torch.rand(1, 1, 8, 8), bank.window(numbers))
    read.sum().backward()
    assert read.isfinite().all()
    assert numbers.grad is not None
    assert numbers.grad.isfinite().all()
    assert AttentiveWriter((3,), (1, 1, 1), 2)(torch.zeros(1, 3)).increment.shape == (1, 1, 1, 1)
