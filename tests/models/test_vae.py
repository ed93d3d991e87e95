"""The VAE against its equations, and the hooks that variants override."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal

from lit_gen.models import VAE
from lit_gen.models.base import Decodes, Encodes, HasLowerBound, HasTrajectory, Reconstructs
from lit_gen.networks import MLP, ConvDecoder, ConvEncoder, GaussianLikelihood
from tests.conditional import ClassVAE


def test_objective_is_equation_3() -> None:
    model = VAE((1, 4, 4), latent_dim=3, encoder=lambda i, o: MLP(i, o, hidden_dims=[7]))
    images = (torch.rand(5, 1, 4, 4) > 0.5).float()
    torch.manual_seed(1)
    terms = model.objective(images)
    torch.manual_seed(1)
    mean, log_variance = model.encoder(images).chunk(2, 1)
    z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
    probabilities = torch.sigmoid(model.decoder(z)).flatten(1)
    x = images.flatten(1)
    reconstruction = (x * probabilities.log() + (1 - x) * (1 - probabilities).log()).sum(1)
    kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)
    torch.testing.assert_close(terms.reconstruction, reconstruction)
    torch.testing.assert_close(terms.kl, kl)
    torch.testing.assert_close(terms.elbo, reconstruction - kl)
    torch.testing.assert_close(terms.loss, kl - reconstruction)


def test_pathwise_gradient_equals_a_finite_difference() -> None:
    model = VAE((1, 2, 2), latent_dim=2, encoder=lambda i, o: MLP(i, o, hidden_dims=[3])).double()
    images = (torch.rand(3, 1, 2, 2) > 0.5).double()

    def loss() -> torch.Tensor:
        torch.manual_seed(3)
        return model.objective(images).loss.sum()

    parameter = model.encoder.layers[0].weight
    gradient = torch.autograd.grad(loss(), parameter)[0][1, 2].item()
    with torch.no_grad():
        parameter[1, 2] += 1e-6
        above = loss().item()
        parameter[1, 2] -= 2e-6
        below = loss().item()
    assert gradient == pytest.approx((above - below) / 2e-6, rel=1e-5)


def test_capabilities() -> None:
    model = VAE((1, 4, 4))
    assert isinstance(model, Encodes)
    assert isinstance(model, Decodes)
    assert isinstance(model, Reconstructs)
    assert isinstance(model, HasLowerBound)
    assert not isinstance(model, HasTrajectory)


def test_kl_weight_warms_up_in_training_only() -> None:
    class Clock:
        global_step = 25

    model = VAE((1, 4, 4), kl_weight=2.0, kl_warmup_steps=100)
    model._trainer = Clock()  # type: ignore[assignment]
    assert model.train().kl_weight_now() == 0.5
    assert model.eval().kl_weight_now() == 2.0


def test_networks_are_injected_for_any_size() -> None:
    model = VAE((3, 28, 20), 5, encoder=ConvEncoder, decoder=ConvDecoder, likelihood=GaussianLikelihood)
    images = torch.rand(2, 3, 28, 20)
    assert model.reconstruct(images).shape == images.shape
    assert model.sample(4).shape == (4, 3, 28, 20)
    assert model.is_density


def test_a_variant_overrides_the_prior() -> None:
    class ShiftedPrior(VAE):
        @property
        def prior(self) -> Independent:
            return Independent(Normal(torch.full((self.latent_dim,), 2.0), 1.0), 1)

    plain, shifted = VAE((1, 3, 3), 4), ShiftedPrior((1, 3, 3), 4)
    shifted.load_state_dict(plain.state_dict())
    images = torch.ones(2, 1, 3, 3)
    posterior = plain.encode(images)
    expected = 0.5 * (posterior.variance + (posterior.mean - 2) ** 2 - 1 - posterior.variance.log()).sum(1)
    torch.testing.assert_close(shifted.objective(images).kl, expected)


def test_log_weights_average_to_the_marginal_of_one_pixel() -> None:
    # For one binary pixel p(x=0) + p(x=1) = 1, and each is the mean of its importance weights.
    model = VAE((1, 1, 1), 1, encoder=lambda i, o: MLP(i, o, hidden_dims=[2])).eval()
    total = sum(model.lower_bound(torch.full((1, 1, 1, 1), value), 200_000).exp().item() for value in (0.0, 1.0))
    assert total == pytest.approx(1.0, abs=5e-3)


@pytest.mark.parametrize("arguments", [{"latent_dim": 0}, {"kl_weight": -1.0}, {"kl_warmup_steps": -1}])
def test_impossible_arguments_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        VAE((1, 4, 4), **arguments)  # type: ignore[arg-type]


def test_bits_per_dim_of_a_uniform_guess() -> None:
    model = VAE((1, 4, 4))
    for parameter in model.decoder.parameters():
        torch.nn.init.zeros_(parameter)
    terms = model.objective(torch.ones(1, 1, 4, 4))
    assert terms.reconstruction.item() == pytest.approx(-16 * math.log(2))


class ClassPriorVAE(ClassVAE):
    """A VAE whose prior has a mean for each class."""

    def conditional_prior(self, condition: torch.Tensor | None = None) -> Independent:
        assert condition is not None
        means = torch.nn.functional.one_hot(condition, self.latent_dim).float()
        return Independent(Normal(means, torch.ones_like(means)), 1)


def test_a_variant_overrides_the_prior_given_a_condition() -> None:
    torch.manual_seed(0)
    model = ClassPriorVAE((1, 4, 4), num_classes=4)
    images, classes = (torch.rand(6, 1, 4, 4) > 0.5).float(), torch.arange(6) % 4
    centre = torch.eye(4)[classes]
    posterior = model.encode(images, classes)
    closed_form = 0.5 * (posterior.variance + (posterior.mean - centre) ** 2 - 1 - posterior.variance.log()).sum(1)
    torch.testing.assert_close(model.objective(images, classes).kl, closed_form)

    # The k-sample bound weighs with the prior of each image's own class: it meets plain Monte Carlo from that prior.
    z = centre + torch.randn(100_000, 6, 4)
    with torch.no_grad():
        rows = images.expand(100_000, *images.shape).flatten(0, 1)
        log_likelihood = model.decode(z.flatten(0, 1), classes.repeat(100_000)).log_prob(rows).unflatten(0, (-1, 6))
    expected = log_likelihood.logsumexp(0) - math.log(100_000)
    torch.testing.assert_close(model.lower_bound(images, 5000, classes), expected, atol=0.05, rtol=0)

    latents = model.sample_latents(4000, torch.full((4000,), 2))
    torch.testing.assert_close(latents.mean(0), torch.tensor([0.0, 0, 1, 0]), atol=0.1, rtol=0)
    assert model.sample(3, torch.tensor([0, 1, 2])).shape == (3, 1, 4, 4)
