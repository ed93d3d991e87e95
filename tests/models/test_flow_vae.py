"""The VAE with flows against its equations."""

import pytest
import torch

from lit_gen.models import FlowVAE
from lit_gen.networks import MLP, RadialFlow, Shape


def small(input_shape: Shape, output_shape: Shape) -> MLP:
    return MLP(input_shape, output_shape, hidden_dims=[6])


def model(annealing_steps: int = 0) -> FlowVAE:
    return FlowVAE((1, 3, 3), 2, lambda dim: RadialFlow(dim, 2), small, small, annealing_steps=annealing_steps).double()


def images(count: int) -> torch.Tensor:
    return (torch.rand(count, 1, 3, 3) > 0.5).double()


class Clock:
    global_step = 25


def test_objective_is_the_annealed_free_energy() -> None:
    flowing, x = model(100), images(5)
    torch.manual_seed(1)
    plain = flowing.objective(x)
    flowing._trainer = Clock()  # type: ignore[assignment]
    torch.manual_seed(1)
    annealed = flowing.train().objective(x)
    torch.manual_seed(1)
    mean, log_variance, parameters = flowing.encoder(x).split([2, 2, 8], 1)
    noise = torch.randn_like(mean)
    z = mean + noise * (0.5 * log_variance).exp()
    log_q = -0.5 * (noise.square() + log_variance + torch.log(torch.tensor(2 * torch.pi))).sum(1)
    for transform in flowing.flow(parameters):
        after = transform(z)
        log_q, z = log_q - transform.log_abs_det_jacobian(z, after), after
    reconstruction = flowing.decode(z).log_prob(x)
    log_prior = flowing.prior.log_prob(z)
    torch.testing.assert_close(plain.elbo, reconstruction + log_prior - log_q)
    torch.testing.assert_close(plain.loss, -plain.elbo)
    torch.testing.assert_close(plain.reconstruction, reconstruction)
    torch.testing.assert_close(plain.kl, log_q - log_prior)
    # 25 steps of 100: beta = .01 + .25.
    torch.testing.assert_close(annealed.loss, log_q - 0.26 * (reconstruction + log_prior))
    torch.testing.assert_close(annealed.elbo, plain.elbo)
    assert flowing.eval().joint_weight_now() == 1


def test_bounds_stay_below_quadrature() -> None:
    flowing, x = model().eval(), images(1)
    with torch.no_grad():
        for parameter in flowing.decoder.parameters():
            parameter.mul_(3)
        axis = torch.linspace(-7, 7, 301).double()
        z = torch.cartesian_prod(axis, axis)
        joint = flowing.decode(z).log_prob(x) + flowing.prior.log_prob(z)
    exact = (torch.logsumexp(joint, 0) + 2 * torch.log(axis[1] - axis[0])).item()
    assert flowing.lower_bound(x.expand(2000, 1, 3, 3), 1).mean().item() < exact
    assert flowing.lower_bound(x, 100_000).item() == pytest.approx(exact, abs=0.05)


def test_reconstruction_repeats_itself() -> None:
    flowing, x = model(), images(4)
    assert torch.equal(flowing.reconstruct(x), flowing.reconstruct(x))
    assert flowing.reconstruct(x).shape == x.shape


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="annealing_steps must not be negative, got -1"):
        model(-1)
