"""DiscretizedLogistic against enumeration of its grey levels and scipy's logistic distribution; Joint against torch."""

import numpy as np
import pytest
import torch
from scipy.stats import logistic
from torch.distributions import Bernoulli, Independent, MultivariateNormal, Normal

from lit_gen.distributions import DiscretizedLogistic, Joint, LogitBernoulli

LEVELS = torch.arange(256, dtype=torch.float64) / 255


@pytest.mark.parametrize(("loc", "scale"), [(0.3, 0.05), (0.0, 0.2), (1.2, 0.01), (0.5, 3.0), (0.99, 0.001)])
def test_probabilities_sum_to_one(loc: float, scale: float) -> None:
    distribution = DiscretizedLogistic(torch.tensor(loc).double(), torch.tensor(scale).double())
    total = distribution.log_prob(LEVELS).exp().sum()
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)


def test_probability_of_a_level_is_a_difference_of_scipys_cdf() -> None:
    loc, scale = 0.4, 0.07
    edges = (np.arange(1, 256) - 0.5) / 255
    cdf = np.concatenate([[0.0], logistic.cdf(edges, loc, scale), [1.0]])
    ours = DiscretizedLogistic(*torch.tensor([loc, scale], dtype=torch.float64)).log_prob(LEVELS).exp()
    np.testing.assert_allclose(ours.numpy(), np.diff(cdf), atol=1e-12)


def test_far_tails_stay_finite_with_gradients() -> None:
    loc = torch.tensor([0.0, 1.0], requires_grad=True)
    log_prob = DiscretizedLogistic(loc, torch.tensor(1e-3)).log_prob(torch.tensor([1.0, 0.0]))
    log_prob.sum().backward()
    # The nearest edge is half a level short of one unit away: 1 / scale less half a level.
    torch.testing.assert_close(log_prob, torch.full((2,), -(1 - 0.5 / 255) / 1e-3), rtol=1e-4, atol=0)
    torch.testing.assert_close(loc.grad, torch.tensor([1000.0, -1000.0]))


def test_mean_is_the_sum_over_levels() -> None:
    distribution = DiscretizedLogistic(torch.tensor([0.02, 0.7]).double(), torch.tensor([0.1, 0.3]).double())
    probabilities = distribution.log_prob(LEVELS[:, None]).exp()
    torch.testing.assert_close(distribution.mean, (probabilities * LEVELS[:, None]).sum(0))


def test_samples_have_the_probabilities_and_lie_on_levels() -> None:
    torch.manual_seed(0)
    distribution = DiscretizedLogistic(torch.tensor(0.5), torch.tensor(0.5), levels=4)
    samples = distribution.sample(torch.Size([40_000]))
    levels = torch.arange(4) / 3
    frequencies = torch.stack([(samples - level).abs().lt(1e-6).float().mean() for level in levels])
    probabilities = distribution.log_prob(levels).exp()
    standard_error = (probabilities * (1 - probabilities) / 40_000).sqrt()
    assert ((frequencies - probabilities).abs() < 4 * standard_error).all()


def test_expand_keeps_probabilities() -> None:
    narrow = DiscretizedLogistic(torch.tensor([0.3]), torch.tensor([0.1]), levels=16)
    wide = narrow.expand(torch.Size([5, 1]))
    assert wide.batch_shape == (5, 1)
    torch.testing.assert_close(wide.log_prob(torch.zeros(5, 1)), narrow.log_prob(torch.zeros(1)).expand(5, 1))


def test_fewer_than_two_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        DiscretizedLogistic(torch.tensor(0.5), torch.tensor(0.1), levels=1)


def test_vectors_in_a_row_are_independent() -> None:
    covariance = torch.tensor([[1.0, 0.3], [0.3, 0.5]])
    mean = torch.tensor([[1.0, 2.0], [-1.0, 0.0], [0.0, 0.0]])
    parts = [MultivariateNormal(mean, covariance), Independent(Normal(torch.zeros(1), torch.full((1,), 2.0)), 1)]
    joint = Joint(parts, validate_args=False)
    whole = torch.block_diag(covariance, torch.tensor([[4.0]]))
    reference = MultivariateNormal(torch.cat([mean, torch.zeros(3, 1)], 1), whole)
    assert (joint.batch_shape, joint.event_shape) == ((3,), (3,))
    value = torch.randn(5, 3, 3)
    torch.testing.assert_close(joint.log_prob(value), reference.log_prob(value))
    torch.manual_seed(0)
    samples = joint.sample(torch.Size([20_000]))
    assert samples.shape == (20_000, 3, 3)
    torch.testing.assert_close(samples.mean(0), reference.mean, rtol=0, atol=0.06)
    torch.testing.assert_close(samples[:, 0].T.cov(), whole, rtol=0, atol=0.15)
    alone = Joint(parts[1:], validate_args=False)
    assert alone.sample(torch.Size([7])).shape == (7, 1)
    with pytest.raises(ValueError, match=r"distributions over vectors, at least one, got events of \[\(\)\]"):
        Joint([Normal(0.0, 1.0)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_probability_from_logits_is_torchs(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = (8 * torch.randn(3, 1000)).to(dtype)
    logits[:, :4] = torch.tensor([60.0, -60.0, 0.0, 25.0])
    for value in (torch.rand(1000).round().to(dtype), torch.rand(1000).to(dtype)):
        found, gradients = [], []
        for kind in (LogitBernoulli, Bernoulli):
            given = logits.clone().requires_grad_()
            found.append(kind(logits=given, validate_args=False).log_prob(value))
            gradients += torch.autograd.grad(found[-1].sum(), given)
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(*found, rtol=8 * eps, atol=60 * eps)
        torch.testing.assert_close(*gradients, rtol=8 * eps, atol=8 * eps)
