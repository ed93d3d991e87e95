"""Modes against closed forms, and what sampling noise alone makes of them."""

import math

import pytest
import torch

from lit_gen.metrics import mode_statistics, stacked_classes


def test_equal_frequencies_of_some_modes() -> None:
    for present, expected in ((1, 6.9078), (10, 4.6052), (99, 2.3126), (500, 0.6931), (1000, 0.0)):
        counts = torch.zeros(1000, dtype=torch.int64)
        counts[torch.randperm(1000)[:present]] = 26
        found = mode_statistics(counts)
        assert found.modes == present
        assert found.kl == pytest.approx(expected, abs=5e-5)


def test_unequal_frequencies() -> None:
    found = mode_statistics(torch.tensor([1, 3, 0, 0]))
    assert found.kl == pytest.approx(0.25 * math.log(0.25 / 0.25) + 0.75 * math.log(0.75 / 0.25))


@pytest.mark.parametrize(("samples", "modes", "kl"), [(26_000, 1000, 0.0193), (10_000, 999.955, 0.051)])
def test_floors_of_a_perfect_generator(samples: int, modes: float, kl: float) -> None:
    torch.manual_seed(0)
    drawn = [torch.bincount(torch.randint(1000, (samples,)), minlength=1000) for _ in range(20)]
    found = [mode_statistics(counts) for counts in drawn]
    assert sum(one.modes for one in found) / 20 == pytest.approx(modes, abs=0.2)
    assert sum(one.kl for one in found) / 20 == pytest.approx(kl, abs=0.001)
    assert sum(one.kl for one in found) / 20 == pytest.approx(999 / (2 * samples), rel=0.05)


def test_classes_of_planes_read_as_a_number() -> None:
    assert stacked_classes(torch.tensor([[7, 0, 1], [0, 0, 9]]), 10).tolist() == [701, 9]
    assert stacked_classes(torch.tensor([[2, 1]]), 3).tolist() == [7]


def test_no_samples_have_no_modes() -> None:
    with pytest.raises(ValueError, match="modes are counted of samples, and there are none"):
        mode_statistics(torch.zeros(1000))
