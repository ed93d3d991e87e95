"""Priors against torch.distributions, quadrature, and what they must be in a VAE."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from lit_gen.callbacks import Doctor, LatentGrid
from lit_gen.models import IWAE, VAE
from lit_gen.models.base import LitGenModule
from lit_gen.models.checkpoint import load_model
from lit_gen.networks import (
    FlowPrior,
    InverseAutoregressiveFlow,
    MixtureOfGaussians,
    PlanarFlow,
    Prior,
    PriorFactory,
    RadialFlow,
    Shape,
    StandardNormal,
    VampPrior,
)
from tests.callbacks.tiny import data, small, trainer

SHAPE: Shape = (1, 2, 3)
FLOWS: dict[str, Callable[[int], object]] = {
    "planar": lambda dim: PlanarFlow(dim, 2),
    "radial": lambda dim: RadialFlow(dim, 2),
    "autoregressive": lambda dim: InverseAutoregressiveFlow(dim, 2, hidden_dims=[8], context_dim=3),
}


def refuse(images: Tensor) -> Distribution:
    raise AssertionError("this prior has no use for the encoder")


def mixture(components: int = 3) -> MixtureOfGaussians:
    prior = MixtureOfGaussians(2, SHAPE, components).double()
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter)
    return prior


def flow_prior(name: str) -> FlowPrior:
    torch.manual_seed(1)
    prior = FlowPrior(2, SHAPE, FLOWS[name]).double()  # type: ignore[arg-type]
    torch.nn.init.normal_(prior.parameters_of_flow)
    return prior


def test_standard_normal_draws_nothing_and_keeps_checkpoints_as_they_were() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    prior = StandardNormal(2, SHAPE)
    assert torch.equal(torch.rand(3), expected)
    assert not prior.state_dict()
    assert not list(prior.parameters())
    z = torch.randn(5, 2)
    torch.testing.assert_close(prior(refuse).log_prob(z), -0.5 * z.square().sum(1) - math.log(2 * math.pi))


def test_mixture_is_that_of_its_parts() -> None:
    prior, z = mixture(), torch.randn(4, 5, 2).double()
    weights = torch.softmax(prior.logits, 0)
    densities = [
        weight * Normal(mean, log_std.exp()).log_prob(z).sum(-1).exp()
        for weight, mean, log_std in zip(weights, prior.mean, prior.log_std, strict=True)
    ]
    torch.testing.assert_close(prior(refuse).log_prob(z), torch.stack(densities).sum(0).log())
    draws = prior(refuse).sample(torch.Size([40_000]))
    torch.testing.assert_close(draws.mean(0), (weights[:, None] * prior.mean).sum(0).detach(), atol=0.05, rtol=0)


@pytest.mark.parametrize("shape", [(), (7,), (2, 3)])
def test_mixture_keeps_its_digits_where_components_are_sharp(shape: tuple[int, ...]) -> None:
    # 1e4 standard deviations from zero, in float32: squares of 1e8 cancel to about 1. Derivatives, too.
    torch.manual_seed(0)
    prior = MixtureOfGaussians(3, SHAPE, components=4)
    torch.nn.init.uniform_(prior.mean, 1, 3)
    torch.nn.init.constant_(prior.log_std, math.log(2e-4))
    z = (prior.mean[1].detach() + 2e-4 * torch.randn(*shape, 3)).requires_grad_()
    exact = MixtureSameFamily(
        Categorical(logits=prior.logits.double()),
        Independent(Normal(prior.mean.double(), prior.log_std.double().exp()), 1),
    )
    both = []
    for density, at in ((prior(refuse), z), (exact, z.double())):
        value = density.log_prob(at)
        (slope,) = torch.autograd.grad(value.sum(), z, create_graph=True)
        (curve,) = torch.autograd.grad(slope.sum(), z)
        weights = torch.autograd.grad(density.log_prob(at).sum(), list(prior.parameters()))
        both.append((value, slope, curve, *weights))
    assert both[0][0].dtype == torch.float32
    for found, expected in zip(*both, strict=True):
        torch.testing.assert_close(found, expected.to(found.dtype), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", FLOWS)
def test_flow_prior_is_a_density_by_its_jacobian(name: str) -> None:
    prior = flow_prior(name)
    distribution = prior(refuse)
    z = distribution.sample(torch.Size([6]))

    def normalize(point: Tensor) -> Tensor:
        for transform in prior.flow(prior.parameters_of_flow):
            point = transform(point)
        return point

    for point in z:
        base = normalize(point)
        determinant = torch.linalg.slogdet(jacobian(normalize, point)).logabsdet
        expected = Normal(0.0, 1.0).log_prob(base).sum() + determinant
        torch.testing.assert_close(distribution.log_prob(point), expected)


@pytest.mark.parametrize("name", FLOWS)
def test_flow_prior_sums_to_one_and_draws_what_it_says(name: str) -> None:
    distribution = flow_prior(name)(refuse)
    axis = torch.linspace(-12, 12, 401).double()
    points = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        mass = distribution.log_prob(points).exp() * (axis[1] - axis[0]) ** 2
        assert mass.sum().item() == pytest.approx(1, abs=2e-3)
        draws = distribution.sample(torch.Size([40_000]))
    error = draws.std(0) / 200
    assert ((draws.mean(0) - (mass[:, None] * points).sum(0)).abs() < 4.5 * error + 5e-3).all()


@pytest.mark.parametrize("name", FLOWS)
def test_a_checkpoint_rebuilds_the_flow_of_a_prior(name: str, tmp_path: Path) -> None:
    make: PriorFactory = lambda dim, shape: FlowPrior(dim, shape, FLOWS[name])  # type: ignore[arg-type]  # noqa: E731
    model = VAE((1, 8, 8), 3, small, small, latent_prior=make)
    run = trainer(tmp_path)
    run.fit(model, data())
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = load_model(tmp_path / "model.ckpt")
    assert isinstance(loaded, VAE)
    z = torch.randn(5, 3)
    assert torch.equal(loaded.prior.log_prob(z), model.prior.log_prob(z))


def test_vamp_prior_is_the_mean_of_posteriors() -> None:
    model = VAE(SHAPE, 2, small, small, latent_prior=lambda dim, shape: VampPrior(dim, shape, components=4)).double()
    prior = model.latent_prior
    assert isinstance(prior, VampPrior)
    with torch.no_grad():
        prior.pseudo_inputs.mul_(2)  # some leave [0, 1]
    posterior = model.encode(prior.pseudo_inputs.clamp(0, 1))
    assert isinstance(posterior, Independent)
    parts = Independent(Normal(posterior.mean, posterior.stddev), 1)
    expected = MixtureSameFamily(Categorical(torch.ones(4).double()), parts)
    z = torch.randn(7, 2).double()
    torch.testing.assert_close(model.prior.log_prob(z), expected.log_prob(z))
    model.prior.log_prob(z).sum().backward()  # type: ignore[no-untyped-call]
    assert prior.pseudo_inputs.grad is not None
    assert prior.pseudo_inputs.grad[prior.pseudo_inputs > 1].ne(0).all(), "pixels out of range can return"
    assert all(parameter.grad is not None for parameter in model.encoder.parameters())


def standard_mixture(latent_dim: int, image_shape: Shape) -> Prior:
    prior = MixtureOfGaussians(latent_dim, image_shape, components=1)
    torch.nn.init.zeros_(prior.mean)
    return prior


def test_one_standard_component_is_the_vae() -> None:
    torch.manual_seed(0)
    plain = VAE(SHAPE, 2, small, small).double()
    torch.manual_seed(0)
    mixed = VAE(SHAPE, 2, small, small, latent_prior=standard_mixture).double()
    images = (torch.rand(5, *SHAPE) > 0.5).double()
    bounds, terms = [], []
    for model in (plain, mixed):
        torch.manual_seed(1)
        bounds.append(model.lower_bound(images, 7))
        torch.manual_seed(1)
        terms.append(model.objective(images.expand(4000, *images.shape).flatten(0, 1)))
    torch.testing.assert_close(bounds[0], bounds[1])
    torch.testing.assert_close(terms[0].reconstruction, terms[1].reconstruction)
    # The KL is estimated by the sample, without bias.
    estimates, exact = terms[1].kl.unflatten(0, (4000, 5)), terms[0].kl[:5]
    assert ((estimates.mean(0) - exact).abs() < 4.5 * estimates.std(0) / math.sqrt(4000)).all()


def test_pseudo_inputs_begin_at_training_images_once(tmp_path: Path) -> None:
    def frozen(**arguments: int) -> VAE:
        make: PriorFactory = lambda dim, shape: VampPrior(dim, shape, **arguments)  # noqa: E731
        return VAE((1, 8, 8), 2, small, small, latent_prior=make, optimizer=lambda p: torch.optim.SGD(p, lr=0.0))

    images = torch.cat([batch for batch, _ in _train(tmp_path)])
    model, many = frozen(components=25), frozen(components=70)
    for each in (model, many):
        trainer(tmp_path).fit(each, data())
    inputs = model.latent_prior.pseudo_inputs
    rows = {tuple(image.flatten().tolist()) for image in images}
    assert all(tuple(image.flatten().tolist()) in rows for image in inputs)
    found = [tuple(image.flatten().tolist()) in rows for image in many.latent_prior.pseudo_inputs]
    assert found == [True] * 60 + [False] * 10, "60 images and no more"
    with torch.no_grad():
        inputs.fill_(0.5)
    trainer(tmp_path).fit(model, data())
    assert (inputs == 0.5).all(), "a trained model keeps what it learnt"


def _train(folder: Path) -> object:
    module = data()
    module.prepare_data()
    module.setup("fit")
    return module.train_dataloader()


@pytest.mark.parametrize("kind", [VampPrior, MixtureOfGaussians, FlowPrior])
def test_callbacks_cope(kind: type[Prior], tmp_path: Path) -> None:
    def hierarchy() -> IWAE:
        return IWAE((1, 8, 8), [3, 2], 2, encoder=small, decoder=small, latent_prior=kind)

    for make in (lambda: VAE((1, 8, 8), 2, small, small, latent_prior=kind), hierarchy):
        model: LitGenModule = make()
        run = trainer(tmp_path, Doctor(), LatentGrid(rows=2, steps=3))
        run.fit(model, data())
        assert run.callback_metrics["val/active_units"] >= 0


@pytest.mark.parametrize("kind", [VampPrior, MixtureOfGaussians])
def test_no_components_are_refused(kind: type[VampPrior]) -> None:
    with pytest.raises(ValueError, match="components must be at least 1, got 0"):
        kind(2, SHAPE, components=0)
