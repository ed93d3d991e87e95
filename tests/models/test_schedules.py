"""Schedules of the learning rate and of the momentum, epoch by epoch."""

import io
from collections.abc import Callable

import pytest
import torch

from lit_gen.models import LengtheningStages, MomentumSchedule


def course(epochs: int, make: Callable[[torch.optim.Optimizer], MomentumSchedule]) -> list[tuple[float, float]]:
    """Learning rate and momentum of each epoch."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [parameter]}], lr=0.6, momentum=0.5)
    schedule, values = make(optimizer), []
    for _ in range(epochs):
        group = optimizer.param_groups[0]
        values.append((group["lr"], group["momentum"]))
        optimizer.step()
        schedule.step()
    return values


def test_recipe_of_salakhutdinov_and_murray() -> None:
    values = course(8, lambda optimizer: MomentumSchedule(optimizer, 0.9, 5, divide_every=2, max_divisor=3))
    assert [momentum for _, momentum in values] == [0.5] * 5 + [0.9] * 3
    assert [rate for rate, _ in values] == pytest.approx([0.6, 0.6, 0.3, 0.3, 0.2, 0.2, 0.2, 0.2])


def test_straight_line_to_zero() -> None:
    values = course(6, lambda optimizer: MomentumSchedule(optimizer, momentum_epochs=0, total_epochs=4))
    assert values == [(pytest.approx(rate), 0.9) for rate in (0.6, 0.45, 0.3, 0.15, 0, 0)]


def test_resumed_schedule_goes_on() -> None:
    def build() -> tuple[torch.optim.Optimizer, MomentumSchedule]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.6, momentum=0.5)
        return optimizer, MomentumSchedule(optimizer, 0.9, 3, divide_every=2, total_epochs=9)

    (whole, schedule), (stopped, before) = build(), build()
    for _ in range(4):
        for optimizer, moved in ((whole, schedule), (stopped, before)):
            optimizer.step()
            moved.step()
    resumed, after = build()
    resumed.load_state_dict(stopped.state_dict())
    after.load_state_dict(torch.load(_stored(before.state_dict()), weights_only=True))
    for optimizer, moved in ((whole, schedule), (resumed, after)):
        optimizer.step()
        moved.step()
    assert resumed.param_groups[0]["lr"] == whole.param_groups[0]["lr"] > 0
    assert resumed.param_groups[0]["momentum"] == whole.param_groups[0]["momentum"] == 0.9


def _stored(state: dict) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


def test_an_optimizer_without_momentum_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Adam has no momentum to change; use torch\.optim\.SGD"):
        MomentumSchedule(torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))]))


def test_schedule_of_burda_et_al() -> None:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule, rates = LengtheningStages(optimizer), []
    for _ in range(3280 + 10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    lengths = [3**i for i in range(8)]
    lengths[-1] += 10  # the last rate stays
    expected = [1e-3 * 10 ** (-i / 7) for i, length in enumerate(lengths) for _ in range(length)]
    assert rates == pytest.approx(expected, rel=1e-12)
    # What the authors' code rounds to.
    assert sorted({round(rate, 5) for rate in rates}) == [1e-4, 1.4e-4, 1.9e-4, 2.7e-4, 3.7e-4, 5.2e-4, 7.2e-4, 1e-3]


@pytest.mark.parametrize(("stages", "growth"), [(1, 3.0), (8, 0.5)])
def test_impossible_stages_are_refused(stages: int, growth: float) -> None:
    with pytest.raises(ValueError, match="stages must be at least 2 and growth at least 1"):
        LengtheningStages(torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))]), stages, growth)


@pytest.mark.parametrize("arguments", [{"final_momentum": 1.0}, {"final_momentum": -0.1}, {"total_epochs": 0}])
def test_impossible_numbers_are_refused(arguments: dict[str, float]) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], momentum=0.5)
    with pytest.raises(ValueError, match=r"in \[0, 1\) and total_epochs at least 1"):
        MomentumSchedule(optimizer, **arguments)  # type: ignore[arg-type]
