"""Annealing of decoders against the linear-Gaussian model, whose log p(x) and posterior are known."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from lit_gen.inference import DecoderPath, ais, decoder_log_likelihood, reverse_ais_log_weights, sigmoid_temperatures
from lit_gen.models import VAE
from lit_gen.networks import MLP
from tests.linear_gaussian import LOG_P, OFFSET, POSTERIOR_MEAN, PRECISION, VARIANCE, WEIGHTS, LinearGaussianVAE, X
from tests.toy_rbm import mean_and_error

MODEL = LinearGaussianVAE()
MARGINAL = MultivariateNormal(OFFSET, WEIGHTS @ WEIGHTS.T + VARIANCE * torch.eye(4).double())
POSTERIOR = MultivariateNormal(POSTERIOR_MEAN, torch.linalg.inv(PRECISION))


def log_likelihood(z: Tensor, images: Tensor) -> Tensor:
    return MODEL.decode(z).log_prob(images)


def linear(steps: int) -> list[float]:
    return [step / steps for step in range(steps)] + [1.0]


def simulated(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Exact draws (z, x) and log p(x)."""
    z = MODEL.prior.sample(torch.Size([count]))
    images = MODEL.decode(z).sample()
    return z, images, MARGINAL.log_prob(images.flatten(1))


def test_golden_numbers() -> None:
    """One step of HMC (size .15, 10 leapfrogs) at each of 49 temperatures."""
    path = DecoderPath(log_likelihood, MODEL.prior, X, step_size=0.15, jitter=0)
    below = ais(path, linear(50), 4000)
    above = reverse_ais_log_weights(path, linear(50), path.state(POSTERIOR.sample(torch.Size([4000]))))
    for log_weights, expected in ((below.log_weights, -4.591), (above, -4.356)):
        mean, error = mean_and_error(log_weights)
        assert mean == pytest.approx(expected, abs=4 * error + 0.002)
    assert below.log_partition == pytest.approx(LOG_P, abs=4 * below.standard_error)
    assert path.acceptance.item() > 0.95


def test_two_directions_bracket_the_truth_of_each_image() -> None:
    z, images, exact = simulated(300)
    arguments = {"num_chains": 1, "betas": sigmoid_temperatures(20), "pilot_chains": 1, "num_leapfrogs": 5}
    below = decoder_log_likelihood(log_likelihood, MODEL.prior, images, **arguments)
    above = decoder_log_likelihood(log_likelihood, MODEL.prior, images, latents=z, **arguments)
    low, low_error = mean_and_error(below.log_likelihood - exact)
    high, high_error = mean_and_error(above.log_likelihood - exact)
    assert low + 4 * low_error < 0 < high - 4 * high_error
    assert -1 < low < high < 1
    assert below.standard_error.isnan().all(), "one chain does not tell"


@pytest.mark.parametrize("max_rows", [1000, 300])
def test_each_image_has_its_own_estimate(max_rows: int) -> None:
    z, images, exact = simulated(5)
    arguments = {"num_chains": 100, "betas": linear(40), "max_rows": max_rows, "num_leapfrogs": 4}
    for latents in (None, z):
        found = decoder_log_likelihood(log_likelihood, MODEL.prior, images, latents=latents, **arguments)
        assert found.log_weights.shape == (100, 5)
        # Backward all chains of an image share their latent, and with it an error that they do not tell.
        tolerance = 4.5 * found.standard_error + (0.0 if latents is None else 0.3)
        assert ((found.log_likelihood - exact).abs() < tolerance).all()
        assert (found.standard_error < 0.2).all()
        assert ((found.acceptance > 0.4) & (found.acceptance < 1)).all()


def test_error_bar_is_the_spread_of_repeated_runs() -> None:
    images = X.expand(200, 1, 2, 2)
    found = decoder_log_likelihood(log_likelihood, MODEL.prior, images, 50, linear(10), pilot_chains=0, step_size=0.3)
    assert found.standard_error.mean().item() == pytest.approx(found.log_likelihood.std().item(), rel=0.2)
    assert found.log_likelihood.mean().item() == pytest.approx(LOG_P, abs=0.03)
    weights = found.log_weights[:, 0].exp()
    assert found.effective_sample_size[0].item() == pytest.approx((weights.sum() ** 2 / weights.square().sum()).item())


def test_the_encoder_is_a_better_start() -> None:
    images = X.expand(300, 1, 2, 2)
    arguments = {"num_chains": 1, "betas": linear(5), "pilot_chains": 0, "step_size": 0.2}
    far = decoder_log_likelihood(log_likelihood, MODEL.prior, images, **arguments).log_likelihood
    near = decoder_log_likelihood(log_likelihood, MODEL.prior, images, encoder=MODEL.encode, **arguments).log_likelihood
    exact = POSTERIOR.sample(torch.Size([300]))
    back = decoder_log_likelihood(
        log_likelihood, MODEL.prior, images, latents=exact, encoder=MODEL.encode, **arguments
    ).log_likelihood
    mean, error = mean_and_error(near)
    # Between the evidence lower bound of that encoder, where annealing begins, and the truth.
    assert far.mean().item() + 0.1 < mean
    assert -4.493772617 - 4 * error < mean < LOG_P + 4 * error
    mean, error = mean_and_error(back)
    assert LOG_P - 4 * error < mean < LOG_P + 0.05


def test_neural_decoder_against_quadrature() -> None:
    model = VAE((1, 3, 3), latent_dim=2, decoder=lambda i, o: MLP(i, o, hidden_dims=[8])).double().eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(4)
    images = (torch.rand(2, 1, 3, 3) > 0.5).double()
    axis = torch.linspace(-7, 7, 301).double()
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        joint = model.decode(z).log_prob(images[:, None]) + model.prior.log_prob(z)
    exact = torch.logsumexp(joint, 1) + 2 * torch.log(axis[1] - axis[0])
    found = decoder_log_likelihood(
        lambda z, x: model.decode(z).log_prob(x), model.prior, images, 150, sigmoid_temperatures(40), num_leapfrogs=4
    )
    assert ((found.log_likelihood - exact).abs() < 4.5 * found.standard_error).all()
    assert (found.standard_error < 0.2).all()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_pilot_run_sets_a_step_size_for_each_temperature() -> None:
    """A likelihood a hundred times as sharp for one image as for the other asks for shorter steps at the end."""
    scales = torch.tensor([1.0, 1e-4]).view(2, 1, 1, 1)

    def density(z: Tensor, images: Tensor) -> Tensor:
        return -0.5 * (z.square().sum(1) / images.flatten())

    path = DecoderPath(density, VAE((1, 1, 1), 10).prior, scales, num_leapfrogs=3)
    betas = sigmoid_temperatures(250)
    path.tune(betas, num_chains=4)
    assert set(path.step_sizes) == set(betas[1:-1])
    first, last = path.step_sizes[betas[1]], path.step_sizes[betas[-2]]
    assert last[1] < 0.2 * last[0]
    assert last[1] < 0.2 * first[1]
    assert path.acceptance.eq(0).all(), "the pilot chains do not count"


def test_progress_sees_every_step() -> None:
    _, images, _ = simulated(3)
    seen: list[int] = []

    def watch(steps: range) -> Iterator[int]:
        for step in steps:
            seen.append(step)
            yield step
        seen.append(-1)

    for betas, pilot, parts, steps in (
        (linear(5), 0, 1, 4),
        (linear(5), 2, 1, 108),
        (linear(5), 2, 3, 324),
        (linear(1), 2, 1, 0),
    ):
        decoder_log_likelihood(
            log_likelihood,
            MODEL.prior,
            images,
            4,
            betas,
            pilot_chains=pilot,
            num_leapfrogs=1,
            max_rows=4 if parts == 3 else 100,
            progress=watch,
        )
        assert seen == [*range(steps), -1]
        seen.clear()


def test_sigmoid_temperatures() -> None:
    betas = sigmoid_temperatures(10_000)
    assert len(betas) == 10_001
    found = [betas[step] for step in (0, 1, 1000, 5000, 9000, 10_000)]
    assert found == pytest.approx([0, 1.466e-5, 0.0219698, 0.5, 0.97803, 1], rel=3e-4)
    assert (betas[0], betas[-1]) == (0, 1)
    assert math.isclose(sigmoid_temperatures(10, width=1e-3)[3], 0.3, rel_tol=1e-5)


def test_mistakes_are_told() -> None:
    z, images, _ = simulated(3)
    for arguments, message in (
        ({"latents": z[:2]}, "got 2 latents for 3 images"),
        ({"num_chains": 0}, "num_chains must be at least 1, got 0"),
        ({"betas": [1.0]}, "must rise from 0 to 1"),
        ({"pilot_chains": -1}, "pilot_chains"),
        ({"num_leapfrogs": 0}, "num_leapfrogs"),
        ({"step_size": 0.0}, "step_size"),
    ):
        with pytest.raises(ValueError, match=message):
            decoder_log_likelihood(log_likelihood, MODEL.prior, images, **arguments)
    with pytest.raises(ValueError, match="num_temperatures must be at least 1, got 0"):
        sigmoid_temperatures(0)


def test_a_prior_of_its_own_for_each_image() -> None:
    """z ~ N(m, 1) and x given z ~ N(z, 1), so that x ~ N(m, 2)."""
    mean = torch.tensor([[-3.0], [0.0], [4.0]])
    images = torch.tensor([-2.5, 1.0, 2.0]).view(3, 1, 1, 1)
    exact = Normal(mean[:, 0], 2**0.5).log_prob(images.flatten())
    found = decoder_log_likelihood(
        lambda z, x: Normal(z, 1.0).log_prob(x.flatten(1)).sum(1),
        Independent(Normal(mean, 1.0), 1),
        images,
        50,
        sigmoid_temperatures(30),
        num_leapfrogs=3,
        max_rows=1,
    )
    assert ((found.log_likelihood - exact).abs() < 4.5 * found.standard_error + 1e-3).all()
