"""Annealed importance sampling against enumeration and closed forms."""

import math
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from lit_gen.inference import (
    AnnealedPath,
    ais,
    binary_states,
    published_temperatures,
    raise_log_likelihood,
    reverse_ais,
)
from lit_gen.models.annealed_rbm import AnnealedRBM
from tests.linear_gaussian import LOG_P, OFFSET, VARIANCE, WEIGHTS, X
from tests.toy_rbm import GAUSSIAN_LOG_Z, LOG_Z, exact_samples, gaussian_toy, images, mean_and_error, toy


def uniform(steps: int) -> list[float]:
    return [step / steps for step in range(steps)] + [1.0]


@pytest.mark.parametrize(
    ("steps", "expected", "variance"),
    [(1, 7.052844839, 0.589413), (2, 7.168655798, 0.289775), (10, 7.271195699, 0.055795), (100, 7.295636442, 0.005519)],
)
def test_weights_have_their_exact_expectations(steps: int, expected: float, variance: float) -> None:
    """E[w] is Z / Z_0 for every schedule; E[log w] and the variance of w are what the transition matrices say."""
    estimate = ais(AnnealedRBM(toy().machine), uniform(steps), 40_000)
    mean, error = mean_and_error(estimate.log_weights)
    assert mean == pytest.approx(expected, abs=4 * error)
    weights = torch.exp(estimate.log_weights - LOG_Z)
    assert weights.var().item() == pytest.approx(variance, rel=0.06)
    assert estimate.log_partition == pytest.approx(LOG_Z, abs=4 * estimate.standard_error)
    assert estimate.effective_sample_size == pytest.approx(40_000 / (1 + variance), rel=0.02)


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_two_directions_bracket_the_truth(steps: int) -> None:
    model = toy()
    path = AnnealedRBM(model.machine)
    below = ais(path, uniform(steps), 20_000)
    above = reverse_ais(path, uniform(steps), path.state(exact_samples(model, 20_000)))
    (low, low_error), (high, high_error) = mean_and_error(below.log_weights), mean_and_error(above.log_weights)
    assert low + 4 * low_error < LOG_Z < high - 4 * high_error
    for estimate in (below, above):
        assert estimate.log_partition == pytest.approx(LOG_Z, abs=4 * estimate.standard_error)


def test_base_of_the_data_changes_the_way_not_the_end() -> None:
    model = toy()
    model.machine.data_mean.copy_(torch.tensor([0.9, 0.5, 0.0, 1.0, 0.3, 0.4]))
    estimate = model.log_partition_ais(20_000, 30)
    assert estimate.log_partition == pytest.approx(LOG_Z, abs=4 * estimate.standard_error)
    assert estimate.standard_error < 0.01
    start = images(torch.zeros(20_000, 6, dtype=torch.float64), model)
    reverse = model.log_partition_reverse_ais(start, 30, burn_in=30)
    assert reverse.log_partition == pytest.approx(LOG_Z, abs=4 * reverse.standard_error)


def test_base_is_normalised() -> None:
    model = toy()
    model.machine.data_mean.copy_(torch.rand(6))
    path = AnnealedRBM(model.machine)
    state = path.state(binary_states(6))
    # log f_0 = log f_1 - log_ratio, and log f_1 is minus the free energy.
    base = -model.visible_free_energy(state[0]) - path.log_ratio(state, 0.0, 1.0)
    assert torch.logsumexp(base, 0).item() == pytest.approx(path.log_partition_base.item(), abs=1e-12)


def test_gaussian_machine() -> None:
    model = gaussian_toy()
    estimate = model.log_partition_ais(20_000, 50)
    assert estimate.log_partition == pytest.approx(GAUSSIAN_LOG_Z, abs=4 * estimate.standard_error)
    assert estimate.standard_error < 0.01
    reverse = model.log_partition_reverse_ais(torch.zeros(20_000, 1, 1, 3, dtype=torch.float64), 50, burn_in=30)
    assert reverse.log_partition == pytest.approx(GAUSSIAN_LOG_Z, abs=4 * reverse.standard_error)


class LinearGaussianPath(AnnealedPath[Tensor]):
    """f_beta(z) = p(z) p(x given z)^beta, with transitions that draw afresh from it: Z_1 is p(x)."""

    log_partition_base = torch.zeros(())

    def sample_base(self, num_chains: int) -> Tensor:
        return torch.randn(num_chains, 2, dtype=torch.float64)

    def log_ratio(self, state: Tensor, beta: float, next_beta: float) -> Tensor:
        error = (X.flatten() - OFFSET - state @ WEIGHTS.T).square().sum(1)
        return (next_beta - beta) * (-0.5 * error / VARIANCE - 2 * math.log(2 * math.pi * VARIANCE))

    def transition(self, state: Tensor, beta: float) -> Tensor:
        precision = torch.eye(2).double() + beta * WEIGHTS.T @ WEIGHTS / VARIANCE
        mean = torch.linalg.solve(precision, beta * WEIGHTS.T @ (X.flatten() - OFFSET) / VARIANCE)
        return mean + torch.randn_like(state) @ torch.linalg.cholesky(torch.linalg.inv(precision)).T


@pytest.mark.parametrize(
    ("steps", "forward", "backward"),
    [(1, -6.943830, -3.660790), (5, -4.841282, -4.184674), (50, -4.491362, -4.425701)],
)
def test_any_density_with_a_path(steps: int, forward: float, backward: float) -> None:
    path = LinearGaussianPath()
    below = ais(path, uniform(steps), 20_000)
    above = reverse_ais(path, uniform(steps), path.transition(torch.zeros(20_000, 2).double(), 1.0))
    for estimate, expected in ((below, forward), (above, backward)):
        mean, error = mean_and_error(estimate.log_weights)
        assert mean == pytest.approx(expected, abs=4 * error)
    # Backwards from one step away 1 / w has no finite variance, and no error bar.
    assert below.log_partition == pytest.approx(LOG_P, abs=0.1 if steps == 1 else 0.02)
    assert steps == 1 or above.log_partition == pytest.approx(LOG_P, abs=0.1)


def test_error_bar_is_the_spread_of_repeated_runs() -> None:
    path, runs = AnnealedRBM(toy().machine), [ais(AnnealedRBM(toy().machine), uniform(5), 100) for _ in range(200)]
    spread = torch.tensor([run.log_partition for run in runs]).std().item()
    told = sum(run.standard_error for run in runs) / len(runs)
    assert told == pytest.approx(spread, rel=0.2)
    # An error bar takes nothing from the global generator.
    torch.manual_seed(3)
    path.sample_base(7)
    after = torch.rand(1)
    torch.manual_seed(3)
    ais(path, [0.0, 1.0], 7)
    assert torch.equal(torch.rand(1), after)


def test_intervals_hold() -> None:
    """Few temperatures and 50 chains; nine machines in ten would do even if the weights were not quite normal."""
    runs = [ais(AnnealedRBM(toy().machine), uniform(2), 50) for _ in range(200)]
    held = [run.low < LOG_Z < run.high for run in runs]
    assert sum(held) >= 190
    assert all(run.high - run.low == pytest.approx(6 * run.standard_error) for run in runs)


def test_progress_sees_every_step_and_changes_nothing() -> None:
    path, betas = AnnealedRBM(toy().machine), uniform(20)
    state = path.state(exact_samples(toy(), 5))
    seen: list[int] = []

    def watch(steps: range) -> Iterator[int]:
        for step in steps:
            seen.append(step)
            yield step

    for run, steps in (
        (lambda **options: ais(path, betas, 5, **options).log_weights, 19),
        (lambda **options: reverse_ais(path, betas, state, **options).log_weights, 19),
        (lambda **options: raise_log_likelihood(path, betas, state, state[0].sum(1), **options), 20),
    ):
        torch.manual_seed(0)
        silent = run()
        torch.manual_seed(0)
        assert torch.equal(run(progress=watch), silent)
        assert len(seen) == steps
        seen.clear()


def test_published_temperatures() -> None:
    betas = torch.tensor(published_temperatures(), dtype=torch.float64)
    steps = betas.diff()
    expected = torch.cat([torch.full((500,), 1e-3), torch.full((4000,), 1e-4), torch.full((10_000,), 1e-5)]).double()
    torch.testing.assert_close(steps, expected, rtol=1e-6, atol=0)
    for number in (3, 10, 999):
        shorter = published_temperatures(number)
        assert len(shorter) == number + 1
        assert all(low < high for low, high in pairwise(shorter))


def test_mistakes_are_told() -> None:
    path = AnnealedRBM(toy().machine)
    for betas in ([0.0], [0.1, 1.0], [0.0, 0.9], [0.0, 0.5, 0.5, 1.0]):
        with pytest.raises(ValueError, match="must rise from 0 to 1"):
            ais(path, betas, 5)
    with pytest.raises(ValueError, match="num_chains must be at least 1, got 0"):
        ais(path, [0.0, 1.0], 0)
    with pytest.raises(ValueError, match="num_temperatures must be at least 3, got 2"):
        published_temperatures(2)
