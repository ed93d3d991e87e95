"""Sums over all binary states."""

import pytest
import torch
from torch.nn.functional import softplus

from lit_gen.inference import binary_states, chain, enumerated_log_partition, run_chain


@pytest.mark.parametrize("chunk", [1, 7, 64, 10_000])
def test_independent_units_factorise(chunk: int) -> None:
    bias = torch.linspace(-40, 3, 9, dtype=torch.float64)
    total = enumerated_log_partition(lambda states: states @ bias, 9, chunk)
    assert total.item() == pytest.approx(softplus(bias).sum().item(), abs=1e-12)


def test_every_state_comes_once() -> None:
    states = binary_states(6)
    assert states.unique(dim=0).shape == (64, 6)
    assert torch.equal(torch.cat([binary_states(6, 0, 10), binary_states(6, 10)]), states)


def test_too_many_states_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2\^26 states are too many to add up"):
        enumerated_log_partition(lambda states: states.sum(1), 26)


def test_chains_without_gradient() -> None:
    weight = torch.tensor(2.0, requires_grad=True)
    end = run_chain(lambda x: x * weight, torch.tensor(1.0), 3)
    assert end == 8
    assert not end.requires_grad
    states = chain(lambda x: x * weight, torch.tensor(1.0), 3)
    assert next(states) == 2
    assert torch.is_grad_enabled(), "between its values the caller's mode holds"
    assert [value.item() for value in states] == [4, 8]
    with pytest.raises(ValueError, match="steps must not be negative, got -1"):
        run_chain(lambda x: x, torch.tensor(1.0), -1)
