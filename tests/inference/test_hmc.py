"""Leapfrog and Hamiltonian Monte Carlo against the harmonic oscillator and normal densities."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Uniform

from lit_gen.inference import DualAveraging, MultiplicativeAdaptation, evaluate, hmc, hmc_step, leapfrog
from lit_gen.inference.hmc import Point


def normal(position: Tensor) -> Tensor:
    return -0.5 * position.square().flatten(1).sum(1)


at: Callable[[Tensor], Point] = partial(evaluate, normal)


@pytest.mark.parametrize(
    ("steps", "position", "momentum"),
    [(1, 1.105, 0.18425), (5, 0.56971764, -0.95405703), (20, 0.83603978, 0.73774260)],
)
def test_oscillator(steps: int, position: float, momentum: float) -> None:
    end, p = leapfrog(at(torch.ones(1, 1).double()), torch.full((1, 1), 0.5).double(), 0.3, steps, at)
    assert end.position.item() == pytest.approx(position, abs=1e-8)
    assert p.item() == pytest.approx(momentum, abs=1e-8)
    # The leapfrog conserves an energy close by, exactly.
    assert p.item() ** 2 + (1 - 0.3**2 / 4) * end.position.item() ** 2 == pytest.approx(1.2275, abs=1e-12)
    back, q = leapfrog(end, -p, 0.3, steps, at)
    assert back.position.item() == pytest.approx(1, abs=1e-12)
    assert q.item() == pytest.approx(-0.5, abs=1e-12)


def test_volume_stays_and_dynamics_are_differentiable() -> None:
    """For a density that is no normal, with masses and a step size for each chain."""

    def density(q: Tensor) -> Tensor:
        return -(q[:, 0] ** 2 * q[:, 1] ** 2 + q.square().sum(1)) / 2

    mass = torch.tensor([0.5, 2.0]).double()

    def flow(start: Tensor, step: Tensor) -> Tensor:
        live = partial(evaluate, density, create_graph=True)
        end, p = leapfrog(live(start[None, :2]), start[None, 2:], step, 7, live, mass)
        return torch.cat([end.position[0], p[0]])

    start, step = torch.tensor([0.3, -1.1, 0.7, 0.4]).double().requires_grad_(), torch.tensor([0.2]).double()
    jacobian = torch.autograd.functional.jacobian(lambda s: flow(s, step), start)
    assert torch.linalg.det(jacobian).item() == pytest.approx(1, abs=1e-12)
    slope = torch.autograd.functional.jacobian(lambda e: flow(start, e), step)[:, 0]
    difference = (flow(start, step + 1e-6) - flow(start, step - 1e-6)) / 2e-6
    torch.testing.assert_close(slope, difference.detach(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("dimension", "size", "steps", "expected"),
    [(1, 1.5, 1, 0.7466), (1, 0.5, 5, 0.9881), (10, 0.5, 5, 0.9543), (100, 0.25, 10, 0.9629)],
)
def test_acceptance(dimension: int, size: float, steps: int, expected: float) -> None:
    start = torch.randn(20_000, dimension)
    assert hmc_step(at(start), size, steps, at).acceptance.mean().item() == pytest.approx(expected, abs=0.006)


def test_energy_error_averages_to_one() -> None:
    """E[exp(-Delta H)] = 1 at equilibrium, whatever the step size: volumes and the density are conserved."""
    start = torch.randn(100_000, 2).double()
    momentum = torch.randn_like(start)
    end, p = leapfrog(at(start), momentum, 1.2, 3, at)
    weights = torch.exp(normal(end.position) + normal(p) - normal(start) - normal(momentum))
    assert weights.std() > 0.3
    assert weights.mean().item() == pytest.approx(1, abs=4 * weights.std().item() / math.sqrt(len(weights)))


def test_density_stays_as_it_is() -> None:
    """Exact draws stay exact draws, with long steps that are often refused, unequal masses and jitter."""
    covariance = torch.tensor([[1.0, 0.8], [0.8, 2.0]]).double()
    target = MultivariateNormal(torch.tensor([1.0, -2.0]).double(), covariance)
    here = partial(evaluate, target.log_prob)
    point = here(target.sample(torch.Size([20_000])))
    start = point.position
    refused = 0.0
    for _ in range(5):
        moved = hmc_step(point, 1.1, 2, here, torch.tensor([1.5, 0.7]).double(), jitter=0.3)
        point = moved.point
        refused += (~moved.accepted).double().mean().item() / 5
        assert moved.acceptance.mean().item() == pytest.approx(moved.accepted.double().mean().item(), abs=0.01)
    assert 0.1 < refused < 0.6
    torch.testing.assert_close(here(point.position), point)
    torch.testing.assert_close(point.position.mean(0), target.mean, rtol=0, atol=0.04)
    torch.testing.assert_close(torch.cov(point.position.T), covariance, rtol=0, atol=0.08)
    # They have moved, though: with refusals alone all would be well.
    assert torch.corrcoef(torch.stack([start[:, 0], point.position[:, 0]]))[0, 1].abs() < 0.5


def test_events_of_any_shape_and_a_step_size_for_each_chain() -> None:
    start = torch.randn(3, 2, 4, 5)
    moved = hmc_step(at(start), torch.tensor([0.1, 0.0, 5.0]), 4, at)
    assert moved.point.position.shape == start.shape
    assert torch.equal(moved.point.position[1:], start[1:]), "no step, and one so long that it diverges"
    assert moved.acceptance[1] == 1
    assert moved.acceptance[2] < 1e-3
    assert not torch.equal(moved.point.position[0], start[0])


def test_a_proposal_that_is_no_number_is_refused() -> None:
    def edge(q: Tensor) -> Tensor:
        return torch.log(q[:, 0]) - q[:, 0]

    here = partial(evaluate, edge)
    moved = hmc_step(here(torch.full((200, 1), 1e-3)), 1e3, 1, here)
    assert moved.point.position.isfinite().all()
    assert (moved.point.position > 0).all()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("rule", [MultiplicativeAdaptation, DualAveraging])
def test_adaptation_reaches_its_target(rule: type, shared: bool) -> None:
    """Of chains whose densities differ in width by ten, each finds a size of its own, and all together one."""
    widths = torch.tensor([0.04, 0.4]).repeat_interleave(50)

    def density(q: Tensor) -> Tensor:
        return -0.5 * (q / widths[:, None]).square().sum(1)

    adaptation = rule(torch.tensor(0.02) if shared else torch.full((100,), 0.02), target=0.7)
    here = partial(evaluate, density)
    point, rates = here(torch.randn(100, 20) * widths[:, None]), []
    for step in range(300):
        final = step >= 200
        moved = hmc_step(point, adaptation.final if final else adaptation.step_size, 5, here, jitter=0.2)
        point = moved.point
        if final:
            rates.append(moved.acceptance)
        else:
            adaptation.update(moved.acceptance.mean() if shared else moved.acceptance)
    rate = torch.stack(rates).mean(0)
    assert rate.mean().item() == pytest.approx(0.7, abs=0.2 if shared else 0.1)
    if not shared and rule is DualAveraging:
        assert rate[:50].mean().item() == pytest.approx(rate[50:].mean().item(), abs=0.1)
        ratio = adaptation.final[50:].log().mean() - adaptation.final[:50].log().mean()
        assert ratio.item() == pytest.approx(math.log(10), abs=0.3)


def test_multiplicative_rule_is_the_published_one() -> None:
    adaptation = MultiplicativeAdaptation(torch.tensor([0.01, 0.01, 0.5, 1e-4]))
    adaptation.update(torch.tensor([0.9, 0.1, 1.0, 0.0]))
    torch.testing.assert_close(adaptation.step_size, torch.tensor([0.0102, 0.0098, 0.5, 1e-4]))
    torch.testing.assert_close(adaptation.average, torch.tensor([0.675, 0.595, 0.685, 0.585]))
    # The average decides, not the last acceptance.
    adaptation.update(torch.tensor([0.6, 0.7, 1.0, 0.0]))
    torch.testing.assert_close(adaptation.step_size[:2], torch.tensor([0.0102 * 1.02, 0.0098 * 0.98]))


def test_a_run_finds_the_density_from_afar() -> None:
    scale = torch.tensor([0.05, 3.0]).double()
    seen: list[int] = []

    def watch(steps: range) -> range:
        seen.extend(steps)
        return steps

    density = partial(lambda q: -0.5 * ((q - 5) / scale).square().sum(1))
    run = hmc(density, torch.zeros(200, 2).double(), 30, 100, mass=1 / scale**2, progress=watch)
    assert run.samples.shape == (30, 200, 2)
    assert seen == list(range(130))
    samples = (run.samples.flatten(0, 1) - 5) / scale
    torch.testing.assert_close(samples.mean(0), torch.zeros(2).double(), rtol=0, atol=0.08)
    torch.testing.assert_close(samples.std(0), torch.ones(2).double(), rtol=0, atol=0.08)
    assert 0.7 < run.acceptance.mean() < 0.95
    fixed = hmc(density, torch.zeros(3, 2).double(), 1, 0, step_size=0.25)
    assert torch.equal(fixed.step_size, torch.full((3,), 0.25).double())


@pytest.mark.parametrize("arguments", [{"num_samples": 0}, {"num_leapfrogs": 0}, {"num_warmup": -1}, {"step_size": 0}])
def test_mistakes_are_told(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        hmc(normal, torch.zeros(1, 1), **({"num_samples": 1} | arguments))


def test_a_flat_density_has_no_gradient() -> None:
    prior = Uniform(torch.zeros(1), torch.ones(1), validate_args=False)
    inside = evaluate(lambda z: prior.log_prob(z).sum(1), torch.rand(5, 1))
    assert inside.log_density.eq(0).all()
    assert inside.gradient.shape == (5, 1)
    assert inside.gradient.eq(0).all()
