"""The ladder VAE against a hierarchy whose posterior it can be, its equations, and what it logs."""

import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from lit_gen.models import LadderVAE
from lit_gen.models.ladder_vae import MIN_VARIANCE
from lit_gen.networks import MLP, Likelihood, Shape, VampPrior
from lit_gen.objectives import importance_weighted_bound
from tests.callbacks.tiny import data, trainer
from tests.linear_gaussian import OFFSET, VARIANCE, WEIGHTS, X

SHAPE: Shape = (1, 2, 3)


class Gaussian(Likelihood):
    """Pixels about the output of the decoder, with the variance of the golden numbers."""

    is_density = True

    def distribution(self, parameters: Tensor) -> Distribution:
        return self._independent(Normal(parameters, VARIANCE**0.5, validate_args=False))


def linear(input_shape: Shape, output_shape: Shape) -> MLP:
    return MLP(input_shape, output_shape, hidden_dims=[])


def small(input_shape: Shape, output_shape: Shape) -> MLP:
    return MLP(input_shape, output_shape, hidden_dims=[7])


def tiny(num_samples: int = 1, **arguments: int) -> LadderVAE:
    torch.manual_seed(0)
    return LadderVAE(SHAPE, [4, 3, 2], [6, 5, 4], num_samples, small, small, small, small, **arguments).double()  # type: ignore[arg-type]


def binary(count: int) -> Tensor:
    torch.manual_seed(5)
    return (torch.rand(count, *SHAPE) > 0.5).double()


def put(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
    last = layer.layers[-1] if isinstance(layer, MLP) else layer
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.copy_(weight.view_as(last.weight))
        last.bias.copy_(bias)


def before_softplus(variance: float) -> float:
    return math.log(math.expm1(variance - MIN_VARIANCE))


def exact_ladder() -> tuple[LadderVAE, float]:
    """Two layers of one unit: p(x given h_1) and p(h_1 given h_2) are linear, and the ladder is their posterior."""
    model = LadderVAE((1, 2, 2), [1, 1], [4, 4], 1, linear, linear, linear, linear, Gaussian).double()
    w, slope, shift, std = WEIGHTS[:, 0], 0.8, 0.3, 0.6
    assert model.upper_decoder is not None
    assert model.upper_encoder is not None
    put(model.decoder, w, OFFSET)
    put(model.upper_decoder[0], torch.tensor([slope, 0.0]), torch.tensor([shift, before_softplus(std**2)]))
    for network in (model.encoder, model.upper_encoder[0]):
        put(network, torch.eye(4), torch.zeros(4))
    # What the image says of h_1 is the likelihood, as a Gaussian in h_1.
    precision = (w @ w / VARIANCE).item()
    mean = w / (w @ w)
    put(
        model.evidence[0],
        torch.stack([mean, torch.zeros(4)]),
        torch.tensor([-(mean @ OFFSET), before_softplus(1 / precision)]),
    )
    # And of h_2: its posterior, from x = w (slope h_2 + shift + std e) + offset + noise.
    covariance = std**2 * torch.outer(w, w) + VARIANCE * torch.eye(4)
    gain = slope * torch.linalg.solve(covariance, w)
    variance = 1 / (1 + slope * gain @ w)
    top = variance * gain
    bias = torch.tensor([-(top @ (OFFSET + shift * w)), before_softplus(variance.item())])
    put(model.evidence[1], torch.stack([top, torch.zeros(4)]), bias)
    marginal = MultivariateNormal(OFFSET + shift * w, covariance + slope**2 * torch.outer(w, w))
    return model, marginal.log_prob(X.flatten()).item()


def test_a_ladder_that_is_the_posterior_bounds_exactly() -> None:
    model, exact = exact_ladder()
    # log w is log p(x) for every draw: the bound has no gap and no noise.
    bounds = model.lower_bound(X.expand(50, 1, 2, 2), 1)
    torch.testing.assert_close(bounds, torch.full_like(bounds, exact))
    terms = model.objective(X.expand(20_000, 1, 2, 2))
    assert terms.elbo is not None
    error = terms.elbo.std().item() / math.sqrt(20_000)
    assert terms.elbo.mean().item() == pytest.approx(exact, abs=4.5 * error)
    with torch.no_grad():
        model.evidence[0].bias[0] += 0.5  # type: ignore[index, operator]
    assert model.lower_bound(X.expand(5000, 1, 2, 2), 1).mean().item() < exact - 0.1
    assert model.lower_bound(X.expand(1000, 1, 2, 2), 200).mean().item() == pytest.approx(exact, abs=0.02)


def test_posterior_is_the_product_of_both() -> None:
    torch.manual_seed(0)
    parts = [Independent(Normal(torch.randn(3, 2).double(), torch.rand(3, 2).double() + 0.2), 1) for _ in range(2)]
    product = tiny().combine(*parts)
    z = torch.randn(6, 3, 2).double()
    difference = product.log_prob(z) - parts[0].log_prob(z) - parts[1].log_prob(z)
    torch.testing.assert_close(difference, difference[:1].expand_as(difference))


def test_bound_is_its_equation() -> None:
    model, x = tiny(), binary(5)
    torch.manual_seed(1)
    terms = model.objective(x)
    torch.manual_seed(1)
    assert model.upper_encoder is not None
    assert model.upper_decoder is not None
    features = [model.encoder(x)]
    for network in model.upper_encoder:
        features.append(network(features[-1]))
    heads = [head(each).chunk(2, 1) for head, each in zip(model.evidence, features, strict=True)]
    mean, variance = heads[2][0], nn.functional.softplus(heads[2][1]) + MIN_VARIANCE
    h = mean + variance.sqrt() * torch.randn_like(mean)
    kl = [0.5 * (mean**2 + variance - 1 - variance.log()).sum(1)]
    for layer in (1, 0):
        prior_mean, raw = model.upper_decoder[layer](h).chunk(2, 1)
        ours, theirs = (1 / (nn.functional.softplus(each) + MIN_VARIANCE) for each in (heads[layer][1], raw))
        variance = 1 / (ours + theirs)
        mean = (heads[layer][0] * ours + prior_mean * theirs) * variance
        h = mean + variance.sqrt() * torch.randn_like(mean)
        ratio = variance * theirs
        kl.append(0.5 * (ratio + (mean - prior_mean) ** 2 * theirs - 1 - ratio.log()).sum(1))
    logits = model.decoder(h)
    reconstruction = -nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)
    torch.testing.assert_close(terms.reconstruction, reconstruction)
    torch.testing.assert_close(terms.kl, torch.stack(kl).sum(0))
    torch.testing.assert_close(terms.elbo, reconstruction - torch.stack(kl).sum(0))
    torch.testing.assert_close(terms.loss, -terms.elbo)
    torch.manual_seed(1)
    _, values = model.measure("train", x)
    for number, layer_kl in enumerate(reversed(kl), 1):
        torch.testing.assert_close(values[f"kl_{number}"], layer_kl)


class Clock:
    global_step = 25


def test_several_samples_are_weighted_and_the_warm_up_weighs_the_prior() -> None:
    model, x = tiny(4, kl_warmup_steps=100), binary(3)
    model._trainer = Clock()  # type: ignore[assignment]
    for weight, mode in ((0.25, model.train), (1.0, model.eval)):
        mode()
        torch.manual_seed(2)
        terms = model.objective(x)
        torch.manual_seed(2)
        descent = model.descend(x, 4)
        expected = importance_weighted_bound(descent.reconstruction + weight * descent.log_ratio)
        torch.testing.assert_close(terms.loss, -expected)
        torch.testing.assert_close(terms.elbo, (descent.reconstruction - sum(descent.layer_kl)).mean(0))
    torch.manual_seed(2)
    torch.testing.assert_close(model.lower_bound(x, 4), expected.detach().float())


def test_layers_are_logged_and_add_up(tmp_path: Path) -> None:
    model = LadderVAE((1, 8, 8), [4, 3, 2], [6, 5, 4], 1, small, small, small, small)
    run = trainer(tmp_path, log_every_n_steps=1)
    run.fit(model, data())
    for stage in ("train", "val"):
        layers = [run.callback_metrics[f"{stage}/kl_{number}"] for number in (1, 2, 3)]
        torch.testing.assert_close(sum(layers), run.callback_metrics[f"{stage}/kl"])
        assert all(layer > 0 for layer in layers)


def test_active_units_of_each_layer_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LadderVAE((1, 8, 8), [4, 3, 2], [6, 5, 4], 1, small, small, small, small)
    for head, used in zip(model.evidence, (2, 0, 1), strict=True):
        assert isinstance(head, nn.Linear)
        with torch.no_grad():
            head.weight[used : head.out_features // 2] = 0
            head.weight[:used] *= 20
            head.bias.zero_()  # the evidence has the width of the prior
    assert model.upper_decoder is not None
    for network in model.upper_decoder:
        put(network, torch.zeros_like(network.layers[-1].weight), torch.zeros(network.output_shape[0]))  # type: ignore[index, operator, union-attr]
    run = trainer(tmp_path)
    run.validate(model, data(), verbose=False)
    assert [run.callback_metrics[f"val/active_units_{number}"].item() for number in (1, 2, 3)] == [2, 0, 1]

    def with_another(_: SingleDeviceStrategy, sums: Tensor, **given: object) -> Tensor:
        """A second process, on images for which all means are 5 larger."""
        if sums.ndim == 0:  # a value that is logged
            return sums
        total, squares, count = sums
        return sums + torch.stack([total + 5 * count, squares + 10 * total + 25 * count, count])

    monkeypatch.setattr(SingleDeviceStrategy, "reduce", with_another)
    run = trainer(tmp_path)
    run.validate(model, data(), verbose=False)
    assert [run.callback_metrics[f"val/active_units_{number}"].item() for number in (1, 2, 3)] == [4, 3, 2]


def test_the_top_may_have_another_prior() -> None:
    model = LadderVAE(
        SHAPE, [4, 2], [6, 5], 1, small, small, small, small, latent_prior=lambda d, s: VampPrior(d, s, components=3)
    )
    x = binary(6).float()
    assert model.latent_shape == model.prior.event_shape == (2,)
    assert model.lower_bound(x, 5).isfinite().all()
    assert model.sample(4).shape == (4, *SHAPE)


def test_reconstruction_repeats_itself_and_samples_draw_every_layer() -> None:
    model, x = tiny(), binary(2)
    assert torch.equal(model.reconstruct(x), model.reconstruct(x))
    top = torch.zeros(200, 2).double()
    assert len(model.decode_images(top).unique(dim=0)) == 1
    model.sample_latents = lambda *given: top  # type: ignore[method-assign, assignment]
    assert len(model.sample(200).unique(dim=0)) == 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_dims": []}, "latent_dims must name at least one layer"),
        ({"latent_dims": [3, 0]}, "at least 1 unit"),
        ({"feature_dims": [3]}, r"feature_dims must name at least 1 feature for each of 5 layers, got \[3\]"),
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LadderVAE(SHAPE, **arguments)
