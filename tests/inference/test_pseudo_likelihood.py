"""Pseudo-likelihoods against numbers worked out elsewhere, and against conditionals from enumeration."""

import pytest
import torch

from lit_gen.inference import binary_states, pseudo_log_likelihood, stochastic_pseudo_log_likelihood
from tests.toy_rbm import IMAGES, log_probabilities, mean_and_error, toy

EXPECTED = [-5.199725859825, -4.392030834841, -4.716902980509]


@pytest.mark.parametrize("max_rows", [1, 9, 10_000])
def test_golden_numbers_whatever_the_chunks(max_rows: int) -> None:
    found = pseudo_log_likelihood(toy().visible_free_energy, IMAGES, max_rows)
    assert found.tolist() == pytest.approx(EXPECTED, abs=1e-11)
    assert not found.requires_grad


def test_all_states_against_conditionals_by_enumeration() -> None:
    model, states = toy(), binary_states(6)
    joint = log_probabilities(model).detach().exp().view(*[2] * 6)  # one axis for each unit
    exact = sum((joint / joint.sum(unit, keepdim=True)).log() for unit in range(6))
    assert isinstance(exact, torch.Tensor)
    found = pseudo_log_likelihood(model.visible_free_energy, states)
    torch.testing.assert_close(found, exact.flatten(), rtol=0, atol=1e-12)


def test_memory_is_bounded() -> None:
    rows: list[int] = []

    def free_energy(states: torch.Tensor) -> torch.Tensor:
        rows.append(len(states))
        return states.sum(1)

    pseudo_log_likelihood(free_energy, torch.zeros(10, 50), max_rows=100)
    assert max(rows) <= 100
    assert sum(rows) == 10 + 50 * 10


def test_one_random_unit_is_unbiased() -> None:
    states = IMAGES.repeat_interleave(20_000, 0)
    found = stochastic_pseudo_log_likelihood(toy().visible_free_energy, states).view(3, -1)
    for values, expected in zip(found, EXPECTED, strict=True):
        mean, error = mean_and_error(values)
        assert mean == pytest.approx(expected, abs=4.5 * error)
        assert len(values.unique()) == 6, "every unit has its turn"
