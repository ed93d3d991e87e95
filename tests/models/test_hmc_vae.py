"""The VAE with leapfrogs against the VAE, a linear-Gaussian model whose log p(x) is known, and autograd."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian
from torch.distributions import Distribution, Independent, Normal

from lit_gen.inference.hmc import Point, evaluate
from lit_gen.models import HMCVAE, VAE
from lit_gen.models.hmc_vae import Tempering, quadratic_cooling
from lit_gen.networks import MLP, Shape
from tests.callbacks.tiny import data, trainer
from tests.linear_gaussian import LOG_P, OFFSET, VARIANCE, WEIGHTS, X

SHAPE: Shape = (1, 2, 3)
PRIOR_ELBO = -6.943830
"""The golden bound of the linear-Gaussian model whose posterior is the prior."""


def small(input_shape: Shape, output_shape: Shape) -> MLP:
    return MLP(input_shape, output_shape, hidden_dims=[6])


def model(num_leapfrogs: int = 3, tempering: Tempering = "learned", **arguments: Any) -> HMCVAE:
    torch.manual_seed(0)
    options = {"step_size": 0.3, "reverse": small, **arguments}
    made = HMCVAE(SHAPE, 2, num_leapfrogs, tempering=tempering, encoder=small, decoder=small, **options).double()
    with torch.no_grad():
        made.log_mass.copy_(torch.tensor([0.4, -0.3]))
        for parameter in made.decoder.parameters():
            parameter.mul_(3)
    return made


def binary(count: int) -> Tensor:
    return (torch.rand(count, *SHAPE) > 0.5).double()


class LinearGaussianHMC(HMCVAE):
    """The linear-Gaussian decoder under an encoder that knows nothing: q(z_0 given x) is the prior."""

    def encode(self, images: Tensor, condition: Any = None) -> Distribution:
        zeros = torch.zeros(len(images), 2).double()
        return Independent(Normal(zeros, torch.ones_like(zeros)), 1)

    def decode(self, z: Tensor, condition: Any = None) -> Distribution:
        mean = (z @ WEIGHTS.T + OFFSET).unflatten(-1, (1, 2, 2))
        return Independent(Normal(mean, VARIANCE**0.5), 3)


def linear(num_leapfrogs: int, tempering: Tempering, reverse: bool) -> LinearGaussianHMC:
    torch.manual_seed(1)
    made = LinearGaussianHMC(
        (1, 2, 2), 2, num_leapfrogs, 0.2, tempering, encoder=small, decoder=small, reverse=small if reverse else None
    )
    return made.double()


# ---- the bound


def test_no_leapfrogs_are_the_vae() -> None:
    plain, x = model(0), binary(4)
    torch.manual_seed(0)
    vae = VAE(SHAPE, 2, small, small).double()
    vae.load_state_dict({name: value for name, value in plain.state_dict().items() if name in vae.state_dict()})
    bounds = []
    for each in (plain, vae):
        torch.manual_seed(1)
        bounds.append(each.lower_bound(x, 9))
    torch.testing.assert_close(bounds[0], bounds[1])
    rows = x.expand(4000, *x.shape).flatten(0, 1)
    ours, theirs = (each.objective(rows).elbo.detach().unflatten(0, (4000, 4)) for each in (plain, vae))
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 5 * ours.std(0) / math.sqrt(4000)).all()
    torch.testing.assert_close(plain.reconstruct(x), vae.reconstruct(x))


@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.parametrize("tempering", ["off", "fixed", "learned"])
def test_weights_average_to_the_true_density(tempering: Tempering, reverse: bool) -> None:
    made = linear(3, tempering, reverse)
    with torch.no_grad():
        made.log_mass.copy_(torch.tensor([0.5, -0.4]))
    torch.manual_seed(2)
    images = X.expand(500, 1, 2, 2)
    bounds = made.lower_bound(images, 100)
    estimate = torch.logsumexp(bounds, 0) - math.log(500)
    error = (bounds - estimate).exp().std().item() / math.sqrt(500)
    assert error < 0.03
    assert estimate.item() == pytest.approx(LOG_P, abs=4.5 * error)
    # ... and of one sample their logarithm stays below, on average.
    elbos = made.objective(images.expand(500, 1, 2, 2)).elbo
    assert elbos is not None
    assert elbos.mean().item() < LOG_P - 0.05


def test_more_leapfrogs_tighten_the_bound() -> None:
    images, means = X.expand(200, 1, 2, 2), []
    for steps in (0, 1, 4):
        made = linear(steps, "learned", reverse=True)
        optimizer = torch.optim.Adam(made.parameters(), lr=0.05)
        for _ in range(60 if steps else 0):
            optimizer.zero_grad()
            made.objective(images).loss.mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            elbo = made.objective(images.expand(50, 200, 1, 2, 2).flatten(0, 1)).elbo
        assert elbo is not None
        means.append(elbo.mean().item())
    assert means[0] == pytest.approx(PRIOR_ELBO, abs=0.15)
    assert means[0] + 1 < means[1] < means[2] - 0.1 < LOG_P - 0.1


# ---- the dynamics


@pytest.mark.parametrize("tempering", ["off", "fixed", "learned"])
def test_volume_is_that_of_the_cooling(tempering: Tempering) -> None:
    made, x = model(3, tempering), binary(1)

    def at(z: Tensor) -> Point:
        return evaluate(lambda z: made.decode(z).log_prob(x) + made.prior.log_prob(z), z, create_graph=True)

    def carry(both: Tensor) -> Tensor:
        position, momentum = both[None].chunk(2, 1)
        end, momentum = made.follow(at(position), momentum, at)
        return torch.cat([end.position, momentum], 1)[0]

    start = torch.tensor([0.3, -0.8, 1.1, 0.4]).double()
    matrix = jacobian(carry, start)
    assert not torch.allclose(matrix, torch.eye(4).double(), atol=0.1)
    torch.testing.assert_close(torch.linalg.slogdet(matrix).logabsdet, made.log_volume.detach())
    # D / 2 log beta_0, with the default of 0.3 ("learned" starts there).
    expected = 0.0 if tempering == "off" else math.log(0.3)
    assert made.log_volume.item() == pytest.approx(expected, abs=1e-5)


def test_quadratic_cooling() -> None:
    # 1 / sqrt(beta): 2, 2 - 1/4, 1.
    torch.testing.assert_close(quadratic_cooling(2, 0.25), torch.tensor([1.75 / 2, 1 / 1.75]))


@pytest.mark.parametrize(
    "name", ["log_step_sizes", "log_mass", "cooling", "encoder.layers.0.weight", "decoder.layers.0.weight"]
)
def test_gradient_goes_through_the_leapfrogs(name: str) -> None:
    made, x = model(2), binary(3)

    def loss() -> Tensor:
        torch.manual_seed(3)
        return made.objective(x).loss.sum()

    parameter = made.get_parameter(name)
    gradient = torch.autograd.grad(loss(), parameter)[0].flatten()[-1].item()
    values = parameter.data.view(-1)
    with torch.no_grad():
        values[-1] += 1e-6
        above = loss().item()
        values[-1] -= 2e-6
        below = loss().item()
    assert gradient == pytest.approx((above - below) / 2e-6, rel=1e-4)
    assert abs(gradient) > 1e-4


def test_evaluation_without_gradients_is_the_same() -> None:
    made, x = model(2), binary(3)
    torch.manual_seed(3)
    expected = made.objective(x)
    torch.manual_seed(3)
    with torch.no_grad():
        terms = made.objective(x)
    torch.testing.assert_close(terms.elbo, expected.elbo.detach())
    assert not terms.loss.requires_grad
    assert all(parameter.grad is None for parameter in made.parameters())


def test_reconstruction_climbs_from_the_mean_of_the_encoder() -> None:
    made, x = model(4, "off", step_size=0.1), binary(20)
    assert torch.equal(made.reconstruct(x), made.reconstruct(x))
    before, after = VAE.reconstruct(made, x), made.reconstruct(x)
    assert (after - x).square().mean() < (before - x).square().mean()


def test_posterior_draws_are_where_the_leapfrogs_end() -> None:
    """From a prior that knows nothing of the image to about its posterior mean, and not back to where they began."""
    made = linear(0, "off", reverse=False)
    assert made.posterior_draws(X.expand(6, 1, 2, 2), 2000)[0].mean().item() == pytest.approx(0, abs=0.05)
    torch.manual_seed(0)
    made = LinearGaussianHMC((1, 2, 2), 2, 3, 0.2, "off", encoder=small, decoder=small, reverse=None).double()
    images = torch.stack([X, -X]).view(2, 1, 2, 2)
    (draws,) = made.posterior_draws(images, 4000)
    assert draws.shape == (4000, 2, 2)
    # Leapfrogs of a quadratic Hamiltonian are linear: the mean goes where they take a mean at rest.
    posterior = made.encode(images)

    def at(z: Tensor) -> Point:
        return evaluate(lambda z: made.decode(z).log_prob(images) + made.prior.log_prob(z), z)

    end, _ = made.follow(at(posterior.mean), torch.zeros(2, 2).double(), at)
    assert end.position.abs().max() > 0.3
    torch.testing.assert_close(draws.mean(0), end.position, atol=0.1, rtol=0)


def test_compilation_leaves_the_decoder_alone() -> None:
    made = model()
    assert made.compiled_parts() == [made.encoder, made.reverse]


def test_the_first_epochs_are_those_of_a_vae(tmp_path: Path) -> None:
    moved, without_gradient = [], []

    class Watched(HMCVAE):
        def on_after_backward(self) -> None:
            without_gradient.append([name for name, value in self.named_parameters() if value.grad is None])

        def on_train_epoch_end(self) -> None:
            moved.append([name for name, value in self.named_parameters() if not torch.equal(value, before[name])])

    def decaying(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, weight_decay=0.5)

    watched = Watched((1, 8, 8), 3, 2, encoder=small, decoder=small, reverse=small, warmup_epochs=2, optimizer=decaying)
    before = {name: value.detach().clone() for name, value in watched.named_parameters()}
    fit = trainer(tmp_path, max_epochs=3, limit_train_batches=1, limit_val_batches=1, num_sanity_val_steps=0)
    fit.fit(watched, data())
    networks = [name for name in before if name.startswith(("encoder", "decoder"))]
    assert moved[:2] == [networks, networks]
    assert set(moved[2]) == set(before)
    assert without_gradient == [[], [], []]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_leapfrogs": -1}, "num_leapfrogs must not be negative, got -1"),
        ({"step_size": 0.0}, "step_size must be positive, got 0"),
        ({"warmup_epochs": -1}, "warmup_epochs must not be negative, got -1"),
        ({"inverse_temperature": 1.5}, r"inverse_temperature must lie in \(0, 1\], got 1.5"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HMCVAE(SHAPE, 2, **arguments)
