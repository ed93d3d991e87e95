"""The bound against closed forms and against another estimator."""

import math

import pytest
import torch
from torch.distributions import Independent, LogNormal, MultivariateNormal, Normal

from lit_gen.objectives import bits_per_dim, kl_divergence, variational_bound


def test_closed_form_kl_of_gaussians() -> None:
    mean, log_variance = torch.randn(3, 4).double(), torch.randn(3, 4).double()
    posterior = Independent(Normal(mean, (0.5 * log_variance).exp()), 1)
    prior = Independent(Normal(torch.zeros(4).double(), torch.ones(4).double()), 1)
    # Appendix B of the paper.
    expected = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)
    torch.testing.assert_close(kl_divergence(posterior, prior, posterior.rsample()), expected)


def test_kl_without_closed_form_is_estimated_from_the_sample() -> None:
    # KL is invariant under exp, so log-normals against a transformed normal have the KL of the normals.
    posterior = Independent(LogNormal(torch.full((20_000, 1), 0.5), 0.7), 1)
    base = Independent(Normal(torch.zeros(1), 1.0), 1)
    prior = torch.distributions.TransformedDistribution(base, [torch.distributions.ExpTransform()])
    z = posterior.rsample()
    estimate = kl_divergence(posterior, prior, z)
    exact = 0.5 * (0.5**2 + 0.7**2 - 1) - math.log(0.7)
    assert estimate.shape == (20_000,)
    assert abs(estimate.mean().item() - exact) < 4 * estimate.std().item() / math.sqrt(20_000)


def test_kl_weight_changes_the_loss_and_not_the_bound() -> None:
    terms = variational_bound(torch.tensor([-10.0]), torch.tensor([3.0]), kl_weight=0.5)
    assert (terms.loss.item(), terms.elbo.item()) == (11.5, -13.0)


@pytest.mark.parametrize(("nats", "bits"), [(-82.90, 0.15255), (-78.01, 0.14355)])
def test_bits_per_dim_of_mnist_numbers(nats: float, bits: float) -> None:
    assert bits_per_dim(torch.tensor(nats), 784).item() == pytest.approx(bits, abs=5e-6)


def test_uniform_density_costs_eight_bits() -> None:
    assert bits_per_dim(torch.tensor(0.0), 784, is_density=True).item() == 8.0


def test_kl_of_correlated_gaussian_uses_torch() -> None:
    q = MultivariateNormal(
        torch.tensor([[0.44282478, 0.00661861]]), torch.tensor([[0.22188519, -0.0635113], [-0.0635113, 0.26285436]])
    )
    p = MultivariateNormal(torch.zeros(2), torch.eye(2))
    assert kl_divergence(q, p, q.rsample()).item() == pytest.approx(0.797147984, abs=1e-6)
