"""The mathematics of diffusion against published constants, enumeration, closed forms and quadrature."""

import itertools
import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from lit_gen.objectives import (
    GaussianChain,
    bernoulli_kl,
    binomial_posterior,
    cosine_rates,
    discretized_gaussian_log_prob,
    epsilon_weights,
    erasing_rates,
    gaussian_chain,
    kept_signal,
    linear_rates,
    reverse_variances,
    stratified_steps,
)

DDPM = gaussian_chain(linear_rates(1000))


def test_constants_of_the_linear_schedule() -> None:
    kept = kept_signal(linear_rates(1000))
    expected = {
        1: 0.9999,
        10: 0.998105,
        100: 0.897018,
        250: 0.524085,
        500: 0.0785872,
        750: 0.00335055,
        1000: 4.03583e-5,
    }
    for step, value in expected.items():
        assert kept[step].item() == pytest.approx(value, rel=2e-6)
    assert int((kept < 0.5).nonzero()[0]) == 260
    assert DDPM.noise[1000].item() == pytest.approx(0.99997982, abs=1e-8)
    log_snr = torch.log(kept / (1 - kept))
    assert log_snr[[1, 1000]].tolist() == pytest.approx([9.2102, -10.1177], abs=1e-4)
    ratio = DDPM.posterior_variance / DDPM.beta
    assert ratio[[2, 500]].tolist() == pytest.approx([0.45474, 0.999135], abs=1e-5)
    assert [DDPM.from_data[500].item(), DDPM.from_noisy[500].item()] == pytest.approx(
        [0.00307007, 0.99410667], rel=3e-6
    )
    # KL of the prior in bits per dimension, for data of this second moment.
    for moment, bits in ((0.25, 7.3e-6), (1.0, 2.9e-5)):
        kl = 0.5 * (kept[1000] * moment - kept[1000] - torch.log1p(-kept[1000]))
        assert kl.item() / math.log(2) == pytest.approx(bits, rel=0.02)
    weights = epsilon_weights(DDPM, DDPM.beta)
    expected = {1: 0.50005, 2: 0.272692, 10: 0.073717, 100: 0.0100813, 500: 0.00550343, 1000: 0.0102045}
    for step, value in expected.items():
        assert weights[step - 1].item() == pytest.approx(value, rel=1e-5)


def test_other_schedules() -> None:
    assert erasing_rates(40)[0].item() == pytest.approx(0.025)
    torch.testing.assert_close(kept_signal(erasing_rates(1000)), torch.arange(1000, -1, -1).double() / 1000)
    kept = kept_signal(cosine_rates(100))
    quarter = [math.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2 for share in (0.0, 0.25, 0.5)]
    assert kept[[25, 50]].tolist() == pytest.approx([value / quarter[0] for value in quarter[1:]])
    assert cosine_rates(100)[-1] == 0.999


def test_float32_keeps_the_digits_of_the_first_steps() -> None:
    single = gaussian_chain(linear_rates(1000).float())
    for ours, exact in zip(single, DDPM, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-9)


def test_gaussian_posterior_is_bayes_rule() -> None:
    chain = gaussian_chain(erasing_rates(7) * 0.9)
    data, x = 0.7, -0.4
    for t in range(2, 8):
        # q(x_t given x_t-1) q(x_t-1 given x_0) as a function of x_t-1: precisions add up.
        alpha = 1 - chain.beta[t]
        precision = alpha / chain.beta[t] + 1 / chain.noise[t - 1] ** 2
        mean = (alpha.sqrt() * x / chain.beta[t] + chain.signal[t - 1] * data / chain.noise[t - 1] ** 2) / precision
        torch.testing.assert_close(chain.posterior_variance[t], 1 / precision)
        torch.testing.assert_close(chain.from_data[t] * data + chain.from_noisy[t] * x, mean)


def oracle_bound(chain: GaussianChain, variance: Tensor, first_variance: Tensor, moment: float) -> float:
    """Mean bound, nats, of 1-D data N(0, moment) under the best linear guess of x_0, the last step a density."""
    kept, erased = chain.signal[1:].square(), chain.noise[1:].square()
    error = moment * erased / (kept * moment + erased)  # of the guess of x_0
    posterior = chain.posterior_variance[2:]
    kl = 0.5 * (
        torch.log(variance[2:] / posterior) + (posterior + chain.from_data[2:].square() * error[1:]) / variance[2:] - 1
    )
    prior = 0.5 * (kept[-1] * moment + erased[-1] - 1 - torch.log(erased[-1]))
    reconstruction = 0.5 * torch.log(2 * math.pi * first_variance) + error[0] / (2 * first_variance)
    return (kl.sum() + prior + reconstruction).item()


def test_bound_of_an_exact_predictor_is_the_entropy() -> None:
    large = oracle_bound(DDPM, DDPM.beta, DDPM.beta[1], 1.0)
    assert large == pytest.approx(0.5 * math.log(2 * math.pi * math.e), abs=1e-11)
    assert large == pytest.approx(1.418938533205, abs=1e-11)
    quarter = oracle_bound(DDPM, DDPM.beta, DDPM.beta[1], 0.25)
    assert quarter == pytest.approx(0.726883608, abs=1e-8)
    small = reverse_variances(DDPM, large=False)
    excess = [
        (oracle_bound(DDPM, small, small[1], moment) - 0.5 * math.log(2 * math.pi * math.e * moment)) / math.log(2)
        for moment in (1.0, 0.25)
    ]
    assert excess == pytest.approx([0.83474, 0.82223], abs=1e-5)


def test_reverse_variances() -> None:
    large, small = reverse_variances(DDPM, large=True), reverse_variances(DDPM, large=False)
    torch.testing.assert_close(large[2:], DDPM.beta[2:])
    torch.testing.assert_close(small[2:], DDPM.posterior_variance[2:])
    assert large[1] == small[1] == DDPM.posterior_variance[2]


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.3), (-0.97, 0.007), (0.5, 0.01), (1.0, 2.0)])
def test_discretized_gaussian(levels: int, mean: float, std: float) -> None:
    x = torch.linspace(-1, 1, levels, dtype=torch.float64)
    location, scale = torch.tensor([mean, std], dtype=torch.float64)
    log_prob = discretized_gaussian_log_prob(x, location, scale, levels)
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-12)
    edges = (x[1:] + x[:-1]).numpy() / 2
    cumulative = [0.0, *stats.norm.cdf(edges, mean, std), 1.0]
    expected = torch.tensor([upper - lower for lower, upper in itertools.pairwise(cumulative)])
    torch.testing.assert_close(log_prob.exp(), expected.double(), rtol=1e-9, atol=1e-13)
    # In single precision it is finite, with a gradient, wherever the pixel is.
    where = torch.full((levels,), mean, requires_grad=True)
    single = discretized_gaussian_log_prob(x.float(), where, torch.tensor(std), levels)
    single.sum().backward()
    assert single.isfinite().all()
    assert where.grad is not None
    assert where.grad.isfinite().all()
    near = log_prob > -30
    torch.testing.assert_close(single[near].double(), log_prob[near], rtol=2e-3, atol=1e-4)


def test_binomial_chain_by_enumeration() -> None:
    rates = erasing_rates(6)
    kept = kept_signal(rates)
    bits = torch.tensor([0.0, 1.0], dtype=torch.float64)
    # Transition matrices of a bit: rows are what it was.
    steps = [(1 - rate) * torch.eye(2).double() + rate / 2 for rate in rates]
    until = torch.eye(2).double()
    for t, step in enumerate(steps, 1):
        before, until = until, until @ step
        torch.testing.assert_close(until[1, 1], (1 + kept[t]) / 2)
        joint = before[:, :, None] * step[None]  # (x_0, x_t-1, x_t)
        expected = joint / joint.sum(1, keepdim=True)
        for data in (0, 1):
            one, zero = binomial_posterior(bits, bits[data], kept[t - 1], rates[t - 1])
            torch.testing.assert_close(one, expected[data, 1])
            torch.testing.assert_close(zero, expected[data, 0])
    assert (1 + kept[3]) / 2 == pytest.approx(0.75)


def test_bernoulli_kl() -> None:
    p, q = torch.tensor([0.1, 0.5, 0.9]).double(), torch.tensor([0.3, 0.99, 0.2]).double()
    expected = p * torch.log(p / q) + (1 - p) * torch.log((1 - p) / (1 - q))
    torch.testing.assert_close(bernoulli_kl(torch.logit(p), torch.logit(q)), expected)
    assert bernoulli_kl(torch.tensor(0.0), torch.tensor(60.0)).item() == pytest.approx(30 - math.log(2))


def test_stratified_steps_are_uniform_and_spread() -> None:
    torch.manual_seed(0)
    draws = torch.stack([stratified_steps(5, 2, 9) for _ in range(3000)])
    for column in draws.T:
        observed = torch.bincount(column - 2, minlength=8)
        assert stats.chisquare(observed.numpy()).pvalue > 1e-3
    ordered = draws.sort(1).values
    # Five images share eight steps: their places lie 8 / 5 apart.
    assert (ordered[:, 1:] - ordered[:, :-1]).min() >= 1
    assert (ordered[:, 1:] - ordered[:, :-1]).max() <= 2
    assert draws.min() == 2
    assert draws.max() == 9
