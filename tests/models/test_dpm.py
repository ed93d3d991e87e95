"""DPM2015 against enumeration of all states of a tiny binomial chain, and against an exact Gaussian reverse process."""

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from lit_gen.models import DPM2015, BinomialKernel, GaussianKernel
from lit_gen.networks import BumpMLP, Shape, TimedNetwork
from lit_gen.objectives import kept_signal

PIXELS: Shape = (1, 1, 3)
STEPS = 4


def binary_images() -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64).view(-1, *PIXELS)


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def binomial() -> DPM2015:
    torch.manual_seed(0)
    model = DPM2015(PIXELS, lambda shape: BinomialKernel(shape, STEPS), lambda i, o, c: BumpMLP(i, o, c, [6]))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model.eval()


def transitions(model: DPM2015) -> list[Tensor]:
    """log p(x_t-1 given x_t) of all pairs of states for t = 1 .. T, rows x_t."""
    states = binary_images()
    matrices = [torch.stack([model.data_log_prob(states, x.expand_as(states)) for x in states])]
    for step in range(2, STEPS + 1):
        t = torch.full((len(states),), step)
        matrices.append(torch.stack([model.reverse(x.expand_as(states), t).log_prob(states) for x in states]))
    return [matrix.detach() for matrix in matrices]


def exact_log_prob(model: DPM2015) -> Tensor:
    log_p = torch.full((8,), -3 * math.log(2))
    for matrix in reversed(transitions(model)):
        log_p = torch.logsumexp(log_p[:, None] + matrix, 0)
    return log_p


def exact_bound(model: DPM2015) -> Tensor:
    """The mean over q of log p(x_0 .. x_T) - log q(x_1 .. x_T given x_0), by its chain of transition matrices."""
    states, rates = binary_images().flatten(1), model.kernel.rate
    flips = (states[:, None] != states[None]).sum(2)
    forward = [(1 - rate / 2) ** (3 - flips) * (rate / 2) ** flips for rate in rates[1:]]
    reached, bound = torch.eye(8), torch.zeros(8)
    for step, backward in zip(forward, transitions(model), strict=True):
        pairs = reached[:, :, None] * step[None]  # (x_0, x_t-1, x_t)
        bound = bound + (pairs * (backward.T - step.log())[None]).sum((1, 2))
        reached = reached @ step
    return bound - 3 * math.log(2)


@pytest.mark.usefixtures("double")
def test_bound_by_enumeration() -> None:
    model, images = binomial(), binary_images()
    log_p, bound = exact_log_prob(model), exact_bound(model)
    assert log_p.logsumexp(0).item() == pytest.approx(0, abs=1e-12)
    assert (bound < log_p).all()
    assert (log_p - bound).max() > 0.1, "a bound as tight as this would prove nothing"
    rows = images.repeat(1000, 1, 1, 1)
    torch.manual_seed(1)
    with torch.no_grad():
        fewer = model.estimated_bound(rows), model.estimated_bound(rows, None, 2), model.objective(rows)
        for estimate in (model.summed_bound(rows), *fewer):
            assert estimate.elbo is not None
            assert estimate.reconstruction is not None
            assert estimate.kl is not None
            draws = estimate.elbo.view(1000, 8)
            assert ((draws.mean(0) - bound).abs() < 4.5 * draws.std(0) / 1000**0.5).all()
            torch.testing.assert_close(estimate.reconstruction - estimate.kl, estimate.elbo)
            torch.testing.assert_close(estimate.loss, -estimate.elbo)
    single = torch.stack([model.lower_bound(images) for _ in range(200)]).mean(0)
    torch.testing.assert_close(single, bound, rtol=0, atol=0.1)
    # Weights of whole trajectories are right on average, and their bound lies in between.
    ratios = torch.exp(model._trajectory_log_weights(images.repeat(30_000, 1, 1, 1), None).view(-1, 8) - log_p).detach()
    error = ratios.std(0) / 30_000**0.5
    assert ((ratios.mean(0) - 1).abs() < 4.5 * error).all()
    assert error.max() < 0.05
    several = torch.stack([model.lower_bound(images, 10) for _ in range(100)]).double()
    assert (several.mean(0) > bound).all()
    assert (several.mean(0) < log_p + 4.5 * several.std(0) / 10).all()


@pytest.mark.usefixtures("double")
def test_samples_have_the_probabilities_of_the_chain() -> None:
    model = binomial()
    torch.manual_seed(0)
    samples = model.sample(20_000).double().flatten(1)
    expected = (exact_log_prob(model).exp()[:, None] * binary_images().flatten(1)).sum(0)
    torch.testing.assert_close(samples.mean(0), expected, rtol=0, atol=0.015)
    frames = list(model.trajectory(3))
    assert len(frames) == STEPS + 1
    assert all(set(frame.images.unique().tolist()) <= {0.0, 1.0} for frame in frames[:-1])


class Pair(TimedNetwork):
    """Exact log-odds of each of two pixels that are always alike, given both after some steps of the chain."""

    def __init__(self, input_shape: Shape, output_shape: Shape, num_classes: int = 0, steps: int = 10) -> None:
        super().__init__(input_shape, output_shape, num_classes)
        self.steps = steps

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:  # type: ignore[override]
        kept = (1 - time).clamp(min=1e-9).view(-1, 1, 1, 1)
        evidence = torch.log((1 + kept) / (1 - kept))
        return ((2 * x - 1) * evidence).sum((1, 2, 3), keepdim=True).expand_as(x)


def pair(steps: int) -> DPM2015:
    return DPM2015((1, 1, 2), lambda shape: BinomialKernel(shape, steps), lambda i, o, c: Pair(i, o, c, steps)).eval()


@pytest.mark.usefixtures("double")
def test_exact_network_approaches_the_entropy_and_inpaints() -> None:
    images = torch.tensor([[[[0.0, 0.0]]], [[[1.0, 1.0]]]]).repeat(400, 1, 1, 1)
    torch.manual_seed(0)
    gaps = [-model.lower_bound(images).mean().item() - math.log(2) for model in (pair(5), pair(20), pair(100))]
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert gaps[2] < 0.03
    known = torch.tensor([True, False])
    agreements = []
    for steps in (5, 20, 100):
        completed = pair(steps).inpaint(images, known)
        assert torch.equal(completed[..., 0], images[..., 0])
        agreements.append(((completed[..., 1] > 0.5) == (images[..., 0] > 0.5)).double().mean().item())
    # What is known pulls at every step; pixels that knew nothing of each other would agree half of the time.
    assert 0.6 < agreements[0] < agreements[1] < agreements[2]
    assert agreements[1:] == pytest.approx([0.88, 0.94], abs=0.03)


def test_inpainting_wants_a_mask() -> None:
    with pytest.raises(ValueError, match=r"a mask of dtype bool, got \(2, 1, 1, 2\) and torch.float32"):
        pair(5).inpaint(torch.zeros(2, 1, 1, 2), torch.ones(2))
    with pytest.raises(ValueError, match=r"images \(B, 1, 1, 2\) and a mask"):
        pair(5).inpaint(torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2) > 0)


# ---- the Gaussian kernel


class Identity(TimedNetwork):
    """What turns the noise round exactly for data N(0, 1): the variance of the step, and a mean shrunk by its root."""

    def __init__(self, input_shape: Shape, output_shape: Shape, num_classes: int = 0, steps: int = 10) -> None:
        super().__init__(input_shape, output_shape, num_classes)
        self.steps = steps
        self.rates = GaussianKernel(input_shape, steps).rates().detach()

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:  # type: ignore[override]
        rate = self.rates[(time * self.steps).round().long() - 1].view(-1, 1, 1, 1)
        return torch.cat([x * ((1 - rate).sqrt() - (1 - rate)) / rate, torch.zeros_like(x)], 1)


@pytest.mark.usefixtures("double")
def test_every_trajectory_of_an_exact_reverse_process_has_the_weight_of_its_image() -> None:
    shape, steps, std = (1, 1, 2), 10, 0.2
    model = DPM2015(
        shape,
        lambda shape: GaussianKernel(shape, steps, mean=0.4, std=std),
        lambda i, o, c: Identity(i, o, c, steps),
    ).eval()
    images = torch.tensor([[[[0.1, 0.9]]], [[[0.5, 0.45]]]])
    density = torch.distributions.Normal(0.4, std).log_prob(images).flatten(1).sum(1)
    # log p(x_0 .. x_T) - log q(x_1 .. x_T given x_0) = log p(x_0), but for what the last step does not erase.
    torch.testing.assert_close(model.lower_bound(images, 2).double(), density, rtol=0, atol=2e-3)
    draws = torch.stack([model.lower_bound(images) for _ in range(100)])
    assert ((draws.mean(0) - density).abs() < 4.5 * draws.std(0) / 10 + 2e-3).all()
    samples = list(model.states(4000))[-1]
    assert samples.mean().item() == pytest.approx(0, abs=0.05)
    assert samples.std().item() == pytest.approx(1, abs=0.04)


@pytest.mark.usefixtures("double")
def test_gradient_of_learned_rates_is_that_of_the_bound() -> None:
    torch.manual_seed(0)
    model = DPM2015((1, 1, 2), lambda shape: GaussianKernel(shape, 5), lambda i, o, c: BumpMLP(i, o, c, [4])).eval()
    images = torch.rand(3, 1, 1, 2)

    def bound() -> Tensor:
        torch.manual_seed(7)
        elbo = model.summed_bound(images).elbo
        assert elbo is not None
        return elbo.mean()

    shift = model.kernel.shift
    bound().backward()
    assert shift.grad is not None
    for number in range(len(shift)):
        values = []
        for change in (1e-5, -1e-5):
            with torch.no_grad():
                shift[number] += change
                values.append(bound().item())
                shift[number] -= change
        assert shift.grad[number].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5)
    fixed = GaussianKernel((1, 1, 2), 5, learn_rates=False)
    assert not fixed.shift.requires_grad
    assert kept_signal(fixed.rates())[-1].item() < 2e-3
    assert model.is_density


def test_bad_kernels() -> None:
    with pytest.raises(ValueError, match="at least 2 steps, got 1"):
        BinomialKernel(PIXELS, 1)
    with pytest.raises(ValueError, match=r"first_rate must lie in 0\.\.1 and std be positive, got 2 and 0.5"):
        GaussianKernel(PIXELS, 5, first_rate=2)
