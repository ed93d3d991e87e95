"""Reverse annealing from single points against the enumerated annealing model."""

import pytest
import torch
from torch import Tensor

from lit_gen.inference import binary_states, published_temperatures, raise_log_likelihood
from lit_gen.models import RBM
from lit_gen.models.annealed_rbm import AnnealedRBM
from tests.toy_rbm import GAUSSIAN_LOG_Z, gaussian_toy, log_probabilities, toy

STATES = binary_states(6)
BASE = torch.tensor([0.9, 0.5, 0.0, 1.0, 0.3, 0.4], dtype=torch.float64)


def skewed() -> RBM:
    """The toy with a base far from it."""
    model = toy()
    model.machine.data_mean.copy_(BASE)
    return model


def bernoulli(probabilities: Tensor, states: Tensor) -> Tensor:
    """p of each state ``(S, n)`` under each row of ``(N, n)``: ``(N, S)``."""
    return torch.stack([(probabilities * s + (1 - probabilities) * (1 - s)).prod(1) for s in states], 1)


def annealing_model(model: RBM, betas: list[float]) -> Tensor:
    """Probabilities of all states after a draw from the base and a sweep at each temperature."""
    weight, bias = model.weight.detach(), model.visible.get_parameter("bias").detach()
    base_bias, hidden = torch.logit((model.machine.data_mean + 0.05) / 1.1), binary_states(4)
    probabilities = bernoulli(torch.sigmoid(base_bias)[None], STATES)
    for beta in betas[1:]:
        up = bernoulli(torch.sigmoid(beta * (STATES @ weight + model.hidden_bias.detach())), hidden)
        field = (1 - beta) * base_bias + beta * (bias + hidden @ weight.T)
        probabilities = probabilities @ up @ bernoulli(torch.sigmoid(field), STATES)
    return probabilities[0]


def estimate(model: RBM, betas: list[float], states: Tensor, num_chains: int) -> Tensor:
    """One estimate for each state."""
    rows = states.repeat_interleave(num_chains, 0)
    path = AnnealedRBM(model.machine)
    return raise_log_likelihood(path, betas, path.state(rows), -model.visible_free_energy(rows).detach(), num_chains)


@pytest.mark.parametrize("betas", [[0.0, 1.0], [0.0, 0.3, 1.0], [0.0, 0.2, 0.5, 1.0]])
def test_unbiased_for_the_annealing_model(betas: list[float]) -> None:
    model, chains = skewed(), 4000
    expected = annealing_model(model, betas)
    assert expected.sum().item() == pytest.approx(1, abs=1e-12)
    weights = estimate(model, betas, STATES.repeat_interleave(chains, 0), 1).exp().view(64, chains)
    errors = weights.std(1) / chains**0.5
    # 64 deviations in units of their errors: as large as those of a normal, their square 1 on average.
    deviations = (weights.mean(1) - expected) / errors
    assert deviations.abs().max() < 5
    assert deviations.square().mean().item() == pytest.approx(1, abs=0.9)
    together = estimate(model, betas, STATES, chains)
    assert together.shape == (64,)
    assert together.dtype == torch.float64
    assert ((together.exp() - expected) / errors).abs().max() < 5


@pytest.mark.parametrize(("steps", "gap"), [(1, 0.3), (30, 0.02)])
def test_a_lower_bound_on_average(steps: int, gap: float) -> None:
    """Below the exact log p on average over the machine's own states, the closer the more temperatures."""
    model, exact = skewed(), log_probabilities(skewed()).detach()
    betas = [step / steps for step in range(steps)] + [1.0]
    single = torch.stack([estimate(model, betas, STATES, 1) for _ in range(200)]).mean(0)
    several = torch.stack([estimate(model, betas, STATES, 20) for _ in range(50)]).mean(0)
    single_gap, several_gap = ((exact.exp() * (exact - means)).sum().item() for means in (single, several))
    assert 0 < several_gap < single_gap
    assert single_gap > gap / 3
    assert several_gap < gap


def test_close_to_the_truth_at_many_temperatures() -> None:
    model = skewed()
    found = estimate(model, [step / 300 for step in range(301)], STATES, 200)
    assert (found - log_probabilities(model).detach()).abs().max() < 0.03


def test_gaussian_machine() -> None:
    model = gaussian_toy()
    visible = torch.tensor([[0.0, 0.0, 0.0], [1.0, -1.0, 2.0], [0.5, -0.3, 0.1]], dtype=torch.float64)
    exact = -model.visible_free_energy(visible).detach() - GAUSSIAN_LOG_Z
    assert (estimate(model, published_temperatures(300), visible, 200) - exact).abs().max() < 0.05


def test_mistakes_are_told() -> None:
    path = AnnealedRBM(toy().machine)
    with pytest.raises(ValueError, match="got 64 states, wanted 3"):
        raise_log_likelihood(path, [0.0, 1.0], path.state(STATES), torch.zeros(64), 3)
    with pytest.raises(ValueError, match="must rise from 0 to 1"):
        raise_log_likelihood(path, [0.0, 0.9], path.state(STATES), torch.zeros(64))
