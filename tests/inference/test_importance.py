"""The k-sample bound against a model whose log p(x) is known, and against quadrature of a neural decoder."""

import math

import pytest
import torch

from lit_gen.inference import importance_bound
from lit_gen.models import VAE
from lit_gen.networks import MLP
from tests.linear_gaussian import LOG_P, LinearGaussianVAE, X


def test_elbo_of_the_linear_gaussian_model() -> None:
    bounds = LinearGaussianVAE().lower_bound(X.expand(20_000, 1, 2, 2), num_samples=1)
    assert bounds.mean().item() == pytest.approx(-4.493772617, abs=4 * bounds.std().item() / math.sqrt(20_000))
    objective = LinearGaussianVAE().objective(X.expand(20_000, 1, 2, 2)).elbo
    assert objective.mean().item() == pytest.approx(-4.493772617, abs=4 * objective.std().item() / math.sqrt(20_000))


def test_bound_rises_with_samples_towards_the_truth() -> None:
    model = LinearGaussianVAE()
    means = [model.lower_bound(X.expand(4000, 1, 2, 2), num_samples=k).mean().item() for k in (1, 5, 50)]
    assert means[0] < means[1] < means[2] < LOG_P + 0.002
    assert means[1] == pytest.approx(-4.46611, abs=0.01)
    assert means[2] == pytest.approx(-4.45884, abs=0.005)


def test_neural_decoder_against_quadrature() -> None:
    model = VAE((1, 3, 3), latent_dim=2, decoder=lambda i, o: MLP(i, o, hidden_dims=[8])).double().eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(3)
    x = (torch.rand(1, 1, 3, 3) > 0.5).double()
    axis = torch.linspace(-7, 7, 701).double()
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        joint = model.decode(z).log_prob(x.expand(len(z), 1, 3, 3)) + model.prior.log_prob(z)
    exact = (torch.logsumexp(joint, 0) + 2 * torch.log(axis[1] - axis[0])).item()
    elbo = model.lower_bound(x.expand(2000, 1, 3, 3), 1).mean().item()
    bounds = model.lower_bound(x.expand(200, 1, 3, 3), 5000)
    tight = (torch.logsumexp(bounds, 0) - math.log(len(bounds))).item()
    assert elbo < exact
    assert tight == pytest.approx(exact, abs=4e-3)


@pytest.mark.parametrize("max_rows", [1, 7, 40, 1000])
def test_chunks_make_no_difference(max_rows: int) -> None:
    weights = torch.randn(10, 4).double()
    taken: list[int] = []

    def draw(size: int) -> torch.Tensor:
        start = sum(taken)
        taken.append(size)
        return weights[start : start + size]

    bound = importance_bound(draw, num_samples=10, batch_size=4, max_rows=max_rows)
    torch.testing.assert_close(bound, (weights.exp().mean(0)).log().float())
    assert sum(taken) == 10
    assert max(taken) <= max(1, max_rows // 4)


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 sample"):
        importance_bound(lambda n: torch.zeros(n, 2), num_samples=0, batch_size=2)
