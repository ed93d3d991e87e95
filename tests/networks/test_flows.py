"""Normalizing flows against golden numbers, Jacobians by autograd, and their own inverses."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian
from torch.distributions import Transform
from torch.nn.functional import softplus

from lit_gen.networks import (
    MADE,
    AutoregressiveTransform,
    Flow,
    InverseAutoregressiveFlow,
    PlanarFlow,
    PlanarTransform,
    RadialFlow,
    RadialTransform,
)

Z = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)
FLOWS: dict[str, Callable[[int], Flow]] = {
    "planar": lambda d: PlanarFlow(d, 3),
    "radial": lambda d: RadialFlow(d, 3),
    "iaf": lambda d: InverseAutoregressiveFlow(d, 3, hidden_dims=[9, 7], context_dim=5),
}


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def flow_and_parameters(name: str, dim: int = 4, batch: int = 6) -> tuple[Flow, Tensor]:
    flow = FLOWS[name](dim).double()
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return flow, (1 if name == "iaf" else 2) * torch.randn(batch, flow.num_parameters).double()


def test_planar_golden_numbers() -> None:
    transform = PlanarTransform(vector(1, -0.5, 0.25), vector(-2, 0.4, 0.9), vector(0.2))
    expected = vector(-1.1581401117, -0.0209299442, 1.1104649721)
    torch.testing.assert_close(transform.direction, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(transform(Z), vector(-0.6372840318, -0.7169386262, 1.9987004903), rtol=0, atol=1e-9)
    assert transform.log_abs_det_jacobian(Z, transform(Z)).item() == pytest.approx(-0.3569577951, abs=1e-9)


def test_radial_golden_numbers() -> None:
    transform = RadialTransform(vector(0.5, 0, -0.2), vector(0.8), vector(-1.5))
    assert transform.margin.item() - 0.8 == pytest.approx(-0.5985867220, abs=1e-9)
    torch.testing.assert_close(transform(Z), vector(0.3522790824, -0.5170232115, 0.7601859642), rtol=0, atol=1e-9)
    assert transform.log_abs_det_jacobian(Z, transform(Z)).item() == pytest.approx(-0.7017457752, abs=1e-9)


@pytest.mark.parametrize("bias", [0.0, 0.7])
def test_planar_without_a_plane_is_a_shift(bias: float) -> None:
    """All weights zero, as under an encoder whose last layer starts at zero."""
    weight = torch.zeros(3).double().requires_grad_()
    transform = PlanarTransform(weight, vector(-2, 0.4, 0.9), vector(bias))
    x = vector(0.3, -1.0, 2.0)
    y = transform(x)
    torch.testing.assert_close(y, x + vector(-2, 0.4, 0.9) * math.tanh(bias))
    assert transform.log_abs_det_jacobian(x, y).item() == 0
    torch.testing.assert_close(transform._inverse(y), x)
    (gradient,) = torch.autograd.grad(y.sum(), weight)
    assert gradient.isfinite().all()
    assert gradient.ne(0).any(), "it can become a plane"


@pytest.mark.parametrize("name", FLOWS)
def test_log_determinants_are_those_of_the_jacobian(name: str) -> None:
    flow, parameters = flow_and_parameters(name)
    for row in range(3):
        maps, z = flow(parameters[row : row + 1]), torch.randn(1, 4).double()
        for transform in maps:
            ahead = transform(z)
            exact = jacobian(lambda x, transform=transform: transform._call(x[None])[0], z[0])
            sign, logarithm = torch.linalg.slogdet(exact)
            assert sign == 1, "a map that keeps its orientation everywhere"
            torch.testing.assert_close(transform.log_abs_det_jacobian(z, ahead)[0], logarithm)
            z = ahead


@pytest.mark.parametrize("name", FLOWS)
def test_maps_are_invertible_however_large_their_parameters(name: str) -> None:
    flow, parameters = flow_and_parameters(name)
    z = 2 * torch.randn(50, 6, 4).double()
    for transform in flow(3 * parameters if name != "iaf" else parameters):
        # Through the functions themselves: the transforms keep what they have just computed.
        back = transform._inverse(transform._call(z))
        torch.testing.assert_close(back, z, rtol=0, atol=1e-6)


def test_the_unconstrained_planar_map_would_not_be_invertible() -> None:
    weight, direction, bias = vector(2, 0), vector(-3, 0), vector(0)
    along = torch.linspace(-2, 2, 400).double()[:, None] * vector(1, 0)
    wild = along + direction * torch.tanh(along @ weight)[:, None]
    tamed = PlanarTransform(weight, direction, bias)(along)
    assert (wild[:, 0].diff() < 0).any()
    assert (tamed[:, 0].diff() > 0).all()
    # To the edge: where -1 + softplus(w'u) is -1 in any precision, the log-determinant is finite.
    steep = PlanarTransform(torch.tensor([3.0, 0.0]), torch.tensor([-20.0, 0.0]), torch.zeros(1))
    assert steep.log_abs_det_jacobian(torch.zeros(2), torch.zeros(2)).isfinite()


@pytest.mark.parametrize("name", FLOWS)
def test_gradients_of_the_inverse(name: str) -> None:
    """A flow can be fitted to points, as a prior: the density of given points has the gradient of a difference."""
    flow, parameters = flow_and_parameters(name, batch=1)
    y, parameters = torch.randn(7, 1, 4).double(), 0.3 * parameters

    def density(parameters: Tensor) -> Tensor:
        outputs = torch.cat([torch.zeros(1, 8).double(), parameters], 1)
        return flow.posterior(outputs).log_prob(y).sum()

    leaf = parameters.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(density(leaf), leaf)
    along = torch.randn_like(parameters)
    difference = (density(parameters + 1e-5 * along) - density(parameters - 1e-5 * along)) / 2e-5
    torch.testing.assert_close((gradient * along).sum(), difference.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FLOWS)
def test_posterior_of_each_image(name: str) -> None:
    flow, parameters = flow_and_parameters(name)
    outputs = torch.cat([torch.randn(6, 8).double(), parameters], 1)
    posterior = flow.posterior(outputs)
    assert (posterior.batch_shape, posterior.event_shape) == ((6,), (4,))
    for shape in ((), (5,)):
        z = posterior.rsample(torch.Size(shape))
        kept = posterior.log_prob(z)
        assert kept.shape == (*shape, 6)
        # A copy is not the tensor that was kept: this goes through the inverses.
        torch.testing.assert_close(posterior.log_prob(z.clone()), kept, rtol=1e-5, atol=1e-5)
    alone = flow.posterior(outputs[2:3])
    torch.testing.assert_close(alone.log_prob(z[:, 2:3].clone())[:, 0], kept[:, 2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FLOWS)
def test_density_integrates_to_one(name: str) -> None:
    flow, parameters = flow_and_parameters(name, dim=2, batch=1)
    posterior = flow.posterior(torch.cat([torch.zeros(1, 4).double(), 0.4 * parameters], 1))
    axis = torch.linspace(-15, 15, 301).double()
    density = posterior.log_prob(torch.cartesian_prod(axis, axis)[:, None]).exp()
    assert density.sum().item() * 0.1**2 == pytest.approx(1, abs=0.02)
    assert density.max() > 0.05, "a density that the grid resolves"


@pytest.mark.parametrize("descending", [False, True])
def test_masks_cut_every_way_from_later_latents(descending: bool) -> None:
    network = MADE(5, 3, [8, 6], descending).double()
    context = torch.randn(1, 3).double()
    for part in range(2):
        slope = jacobian(lambda z, part=part: network(z[None], context)[part][0], torch.randn(5).double())
        kept = slope.T if descending else slope
        assert torch.equal(kept.triu(), torch.zeros(5, 5).double())
        assert (kept[torch.ones(5, 5).tril(-1).bool()] != 0).all(), "every way that may be open is"
    moved = jacobian(lambda c: network(torch.zeros(1, 5).double(), c)[0], context)
    assert (moved != 0).all()


def test_iaf_is_gated_as_published() -> None:
    mean, logit = vector(1, 2, 3), vector(0, 5, -5)
    transform = AutoregressiveTransform(lambda z: (mean.expand_as(z), logit.expand_as(z)))
    gate = torch.sigmoid(logit)
    torch.testing.assert_close(transform(Z), gate * Z + (1 - gate) * mean)
    # No gate closes for good.
    closed = AutoregressiveTransform(lambda z: (mean.expand_as(z), torch.full_like(z, -1000.0)))
    assert closed.log_abs_det_jacobian(Z, closed(Z)).item() == pytest.approx(-3 * math.log1p(math.exp(7)))
    # The identity at first, nearly.
    flow = InverseAutoregressiveFlow(4, 1, [8], 2, gate_bias=30.0)
    z = torch.randn(3, 4)
    torch.testing.assert_close(flow(torch.randn(3, 2))[0](z), z)


def steep_flow(seed: int) -> tuple[InverseAutoregressiveFlow, Tensor]:
    """Weights three times those of a new network, in single precision; and contexts of 8 images."""
    torch.manual_seed(seed)
    flow = InverseAutoregressiveFlow(16, 4)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(3)
    return flow, torch.randn(8, flow.num_parameters)


@pytest.mark.parametrize("seed", range(3))
def test_steep_autoregressive_maps_hold_in_single_precision(seed: int) -> None:
    """Gates all but close, in the order of the latents and against it."""
    flow, contexts = steep_flow(seed)
    z, lowest = torch.randn(8, 16), []
    for transform, single in zip(flow(contexts), flow(contexts[:1]), strict=True):
        lowest.append(transform.network(z)[1].detach().min().item())
        ahead = transform._call(z)
        torch.testing.assert_close(transform._inverse(ahead), z, rtol=0, atol=0.01 * float(z.abs().max()))
        exact = jacobian(lambda x, single=single: single._call(x[None])[0], z[0]).double()
        torch.testing.assert_close(
            transform.log_abs_det_jacobian(z, ahead)[0], torch.linalg.slogdet(exact)[1].float(), rtol=1e-4, atol=1e-3
        )
        z = ahead.detach()
    assert min(lowest) < -4, "some gate is nearly closed"


@pytest.mark.parametrize("seed", range(3))
def test_densities_of_far_points_under_a_steep_flow_are_finite(seed: int) -> None:
    """As a mixture of posteriors needs them: of the draws of other images, and their gradients."""
    flow, contexts = steep_flow(seed)
    outputs = torch.cat([torch.zeros(8, 32), contexts], 1).requires_grad_()
    draws = 5 * torch.randn(20, 1, 16)
    density = flow.posterior(outputs).log_prob(draws)
    assert density.isfinite().all()
    mixture = torch.logsumexp(density, 1).mean()
    gradients = torch.autograd.grad(mixture, [outputs, *flow.parameters()])
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert all(gradient.ne(0).any() for gradient in gradients)


def test_a_draw_takes_one_pass() -> None:
    calls = []

    def network(z: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(z)
        return z, z

    transform: Transform = AutoregressiveTransform(network)
    z = torch.randn(3, 4)
    y = transform(z)
    assert transform.inv(y) is z
    transform.log_abs_det_jacobian(z, y)
    assert len(calls) == 1
    transform.log_abs_det_jacobian(z.clone(), y)
    assert len(calls) == 2


def test_sizes_and_mistakes() -> None:
    assert PlanarFlow(40, 80).num_parameters == 80 * 81
    assert RadialFlow(40, 80).num_parameters == 80 * 42
    assert RadialFlow(40, 80).num_outputs == 80 + 80 * 42
    radii = [transform.radius for transform in RadialFlow(2, 2)(torch.zeros(1, 8))]
    torch.testing.assert_close(torch.cat(radii), softplus(torch.zeros(2, 1)))
    assert PlanarFlow(3, length=2).specification(1)["init_args"] == {"length": 2}
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        PlanarFlow(3, 0)
    with pytest.raises(ValueError, match="hidden_dims"):
        InverseAutoregressiveFlow(3, hidden_dims=[])
