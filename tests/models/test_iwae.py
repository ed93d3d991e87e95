"""The IWAE against linear-Gaussian models whose log p(x) is known, against autograd, and between estimators."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal, Normal

from lit_gen.data import Synthetic
from lit_gen.models import CIWAE, IWAE, MIWAE, PIWAE, VAE, DReG, GradientEstimator, Reparametrized, load_model
from lit_gen.models.iwae import Samples
from lit_gen.networks import MLP, GlorotMLP, Likelihood, Shape
from lit_gen.objectives import importance_weighted_bound
from tests.callbacks.tiny import data, trainer
from tests.linear_gaussian import OFFSET, POSTERIOR_MEAN, PRECISION, VARIANCE, WEIGHTS, X


class LinearGaussian(Likelihood):
    """Pixels about the output of the decoder, with the variance of the golden numbers."""

    is_density = True

    def distribution(self, parameters: Tensor) -> Distribution:
        return self._independent(Normal(parameters, VARIANCE**0.5, validate_args=False))


def linear(input_shape: Shape, output_shape: Shape) -> GlorotMLP:
    return GlorotMLP(input_shape, output_shape, hidden_dims=[])


def small(input_shape: Shape, output_shape: Shape) -> GlorotMLP:
    return GlorotMLP(input_shape, output_shape, hidden_dims=[3])


def linear_model(*latent_dims: int, estimator: type[GradientEstimator] = DReG, samples: int = 2) -> IWAE:
    return IWAE((1, 2, 2), latent_dims, samples, estimator, linear, linear, linear, linear, LinearGaussian).double()


def put(network: object, weight: Tensor, bias: Tensor) -> None:
    assert isinstance(network, GlorotMLP)
    with torch.no_grad():
        network.layers[0].weight.copy_(weight)  # type: ignore[operator, union-attr]
        network.layers[0].bias.copy_(bias)  # type: ignore[operator, union-attr]


BEST_ENCODER = torch.cat([POSTERIOR_MEAN, -0.5 * PRECISION.diagonal().log()])
"""Mean and log standard deviation of the best diagonal posterior at X."""


def golden_model(estimator: type[GradientEstimator] = DReG, samples: int = 2) -> IWAE:
    model = linear_model(2, estimator=estimator, samples=samples)
    put(model.decoder, WEIGHTS, OFFSET)
    put(model.encoder, torch.zeros(4, 4), BEST_ENCODER)
    return model


def tiny(estimator: Callable[[], GradientEstimator], latent_dims: tuple[int, ...], samples: int) -> IWAE:
    torch.manual_seed(2)
    model = IWAE((1, 1, 3), latent_dims, samples, estimator, small, small, small, small).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


def gradients(model: IWAE, images: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Of the mean loss: in all parameters of q, and in all of p."""
    torch.manual_seed(seed)
    return split(model, model.objective(images).loss.mean())


def split(model: IWAE, loss: Tensor) -> tuple[Tensor, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))
    ours = torch.cat([value.flatten() for name, value in found.items() if "encoder" in name])
    others = torch.cat([value.flatten() for name, value in found.items() if "decoder" in name])
    assert len(ours) + len(others) == sum(parameter.numel() for parameter in parameters)
    return ours, others


IMAGES = torch.tensor([[1.0, 0, 1], [0, 0, 1], [1, 1, 0]]).double().reshape(3, 1, 1, 3)


# ---- the bound


@pytest.mark.parametrize(("k", "golden"), [(1, -4.493772617), (2, -4.47733), (5, -4.46611), (10, -4.46242)])
def test_golden_bounds_of_one_layer(k: int, golden: float) -> None:
    model = golden_model()
    torch.manual_seed(k)
    bounds = model.lower_bound(X.expand(40_000, 1, 2, 2), k)
    error = bounds.std().item() / math.sqrt(len(bounds))
    assert bounds.mean().item() == pytest.approx(golden, abs=4 * error + 3e-4)
    assert error < 2e-3
    terms = model.objective(X.expand(40_000, 1, 2, 2))
    assert terms.elbo is not None
    assert terms.elbo.mean().item() == pytest.approx(-4.493772617, abs=6e-3)
    assert -terms.loss.mean().item() == pytest.approx(-4.47733, abs=6e-3)


def two_layers() -> tuple[IWAE, Tensor]:
    """A linear-Gaussian hierarchy, and the logarithm of its density at X."""
    model = linear_model(2, 2)
    between = torch.tensor([[0.8, -0.3], [0.2, 0.6]]).double()
    shift, log_std = torch.tensor([0.3, -0.1]).double(), torch.tensor([-0.4, -0.2]).double()
    put(model.decoder, WEIGHTS, OFFSET)
    assert model.upper_decoder is not None
    put(model.upper_decoder[0], torch.cat([between, torch.zeros_like(between)]), torch.cat([shift, log_std]))
    first = between @ between.T + torch.diag((2 * log_std).exp())
    covariance = WEIGHTS @ first @ WEIGHTS.T + VARIANCE * torch.eye(4).double()
    exact = MultivariateNormal(OFFSET + WEIGHTS @ shift, covariance).log_prob(X.flatten())
    # A posterior that is wrong, but broader than the true one.
    wide = torch.zeros(4, 2).double()
    assert model.upper_encoder is not None
    put(model.upper_encoder[0], wide, torch.zeros(4))
    put(model.encoder, torch.zeros(4, 4), torch.cat([POSTERIOR_MEAN, torch.full((2,), -0.3).double()]))
    return model, exact


def test_bounds_of_two_layers_rise_towards_the_truth() -> None:
    model, exact = two_layers()
    torch.manual_seed(0)
    means = [model.lower_bound(X.expand(2000, 1, 2, 2), k).mean().item() for k in (1, 5, 50)]
    assert means[0] < means[1] - 0.1 < means[2] - 0.1
    assert means[2] < exact.item() + 0.005
    bounds = model.lower_bound(X.expand(1000, 1, 2, 2), 300)
    # The mean of w is p(x) without bias.
    total = (torch.logsumexp(bounds, 0) - math.log(len(bounds))).item()
    assert total == pytest.approx(exact.item(), abs=0.01)


def exact_posterior() -> tuple[IWAE, Tensor, Tensor]:
    """Layers of one unit: their true posterior is a chain of Gaussians with linear means, which the encoder can be."""
    model = linear_model(1, 1)
    weight, scale, shift, log_std = WEIGHTS[:, 0], 0.7, 0.2, -0.5
    noise = math.exp(2 * log_std)
    put(model.decoder, weight[:, None], OFFSET)
    assert model.upper_decoder is not None
    assert model.upper_encoder is not None
    put(model.upper_decoder[0], torch.tensor([[scale], [0.0]]), torch.tensor([shift, log_std]))
    first = scale**2 + noise
    precision = 1 / first + weight @ weight / VARIANCE
    slope = weight / VARIANCE / precision
    offset = shift / first / precision - slope @ OFFSET
    put(model.encoder, torch.stack([slope, torch.zeros(4)]), torch.stack([offset, -0.5 * precision.log()]))
    above = 1 + scale**2 / noise
    gain = scale / noise / above
    put(model.upper_encoder[0], torch.tensor([[gain], [0.0]]), torch.tensor([-gain * shift, -0.5 * math.log(above)]))
    covariance = first * weight[:, None] @ weight[None] + VARIANCE * torch.eye(4).double()
    images = torch.randn(5, 1, 2, 2).double()
    return model, MultivariateNormal(OFFSET + weight * shift, covariance).log_prob(images.flatten(1)), images


def test_every_weight_is_the_truth_under_the_exact_posterior() -> None:
    model, exact, images = exact_posterior()
    weights = model.infer(images, model.posterior(1, images), 7).log_weights
    torch.testing.assert_close(weights, exact.expand(7, 5), rtol=0, atol=1e-6)
    # The doubly reparametrized gradient has no noise there.
    ours, others = gradients(model, images)
    assert ours.abs().max() < 1e-5
    assert others.abs().max() > 1e-2


def test_chunks_of_any_size_see_all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = tiny(Reparametrized, (2, 1), 4), []
    plain = model.generative

    def counted(layer: int, above: Tensor, condition: object = None) -> Distribution:
        rows.append(len(above))
        return plain(layer, above, condition)

    monkeypatch.setattr(model, "generative", counted)
    model.lower_bound(IMAGES, 1000)
    assert sum(rows) == 2 * 3 * 1000, "each of two layers decodes every sample once"
    assert max(rows) <= 1000


# ---- gradients


@pytest.mark.parametrize("latent_dims", [(2,), (2, 1), (2, 2, 1)])
@pytest.mark.parametrize(
    ("estimator", "bound"),
    [
        (Reparametrized, importance_weighted_bound),
        (lambda: MIWAE(3), lambda w: importance_weighted_bound(w, 3)),
        (lambda: CIWAE(0.3), lambda w: 0.3 * w.mean(0) + 0.7 * importance_weighted_bound(w)),
    ],
    ids=["IWAE", "MIWAE", "CIWAE"],
)
def test_gradient_of_a_bound_is_that_of_autograd(
    estimator: Callable[[], GradientEstimator], bound: Callable[[Tensor], Tensor], latent_dims: tuple[int, ...]
) -> None:
    model = tiny(estimator, latent_dims, 6)
    torch.manual_seed(0)
    value = -bound(model.infer(IMAGES, model.posterior(1, IMAGES), 6).log_weights).mean()
    for ours, theirs in zip(gradients(model, IMAGES), split(model, value), strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.manual_seed(0)
    torch.testing.assert_close(model.objective(IMAGES).loss.mean(), value)


def test_one_sample_gives_the_gradient_of_the_elbo() -> None:
    """That of a VAE with the same weights: on average, since the VAE has its KL in closed form."""
    model = tiny(Reparametrized, (2,), 1)
    vae = VAE((1, 1, 3), 2, small, small).double()
    vae.load_state_dict({name: value for name, value in model.state_dict().items() if name != "knows_data"})
    with torch.no_grad():
        # The VAE reads the second half of the outputs as log-variances.
        vae.encoder.layers[-1].weight[2:] *= 2
        vae.encoder.layers[-1].bias[2:] *= 2
    images, decoder = IMAGES.repeat(4000, 1, 1, 1), list(model.decoder.parameters())
    torch.manual_seed(0)
    ours = torch.autograd.grad(model.objective(images).loss.mean(), [*model.encoder.parameters(), *decoder])
    torch.manual_seed(0)
    parameters = [*vae.encoder.parameters(), *vae.decoder.parameters()]
    theirs = torch.autograd.grad(vae.objective(images).loss.mean(), parameters)
    for a, b in zip(ours[-len(decoder) :], theirs[-len(decoder) :], strict=True):
        torch.testing.assert_close(a, b)  # the same noise
    torch.testing.assert_close(ours[0], theirs[0], rtol=0.05, atol=0.05)
    assert theirs[0].abs().max() > 0.5


@pytest.mark.parametrize("latent_dims", [(2,), (2, 1)])
def test_piwae_trains_p_by_iwae_and_q_by_miwae(latent_dims: tuple[int, ...]) -> None:
    mixed = gradients(tiny(lambda: PIWAE(2), latent_dims, 6), IMAGES)
    torch.testing.assert_close(mixed[0], gradients(tiny(lambda: MIWAE(2), latent_dims, 6), IMAGES)[0])
    torch.testing.assert_close(mixed[1], gradients(tiny(Reparametrized, latent_dims, 6), IMAGES)[1])


def replicates(estimator: type[GradientEstimator], latent_dims: tuple[int, ...], samples: int) -> Tensor:
    """The gradient in q's parameters from independent batches, the same noise for every estimator."""
    model, images = tiny(estimator, latent_dims, samples), IMAGES.repeat(50, 1, 1, 1)
    return torch.stack([gradients(model, images, seed)[0] for seed in range(100)])


@pytest.mark.parametrize("latent_dims", [(2,), (2, 1), (1, 1, 1)])
def test_dreg_is_unbiased(latent_dims: tuple[int, ...]) -> None:
    plain, double = (replicates(estimator, latent_dims, 3) for estimator in (Reparametrized, DReG))
    difference = plain - double
    error = difference.std(0) / math.sqrt(len(difference))
    assert (difference.mean(0).abs() / error).max() < 4.5
    # The test would see a bias of a quarter.
    assert (plain.mean(0).abs() / error).max() > 20
    decoder = [gradients(tiny(estimator, latent_dims, 3), IMAGES)[1] for estimator in (Reparametrized, DReG)]
    torch.testing.assert_close(decoder[0], decoder[1])


def test_more_samples_blur_the_plain_gradient_of_the_encoder_and_clear_that_of_dreg() -> None:
    def signal_to_noise(estimator: type[GradientEstimator], samples: int) -> float:
        model = golden_model(estimator, samples)
        put(model.encoder, torch.zeros(4, 4), BEST_ENCODER + 0.1)  # a posterior that is nearly right
        images = X.expand(100, 1, 2, 2)
        drawn = torch.stack([gradients(model, images, seed)[0] for seed in range(40)])
        noise = drawn.var(0).sum()
        signal = drawn.mean(0).square().sum() - noise / len(drawn)
        return (signal.clamp(min=0) / noise).sqrt().item()

    # Measured at 1, 8 and 64 samples: 2.2, 0.5 and below 0.1; 7, 14 and 36.
    few, many = (signal_to_noise(Reparametrized, samples) for samples in (1, 64))
    assert many < 0.5 * few
    few, many = (signal_to_noise(DReG, samples) for samples in (1, 64))
    assert many > 2 * few


def test_samples_of_no_weight_are_no_nan() -> None:
    model = tiny(lambda: PIWAE(2), (2,), 4)
    with torch.no_grad():
        model.decoder.layers[-1].weight.mul_(1000)  # log-weights thousands of nats apart
    ours, others = gradients(model, IMAGES)
    assert ours.isfinite().all()
    assert others.isfinite().all()


# ---- the model


def test_parameters_of_the_paper() -> None:
    def count(model: IWAE) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    def upper(input_shape: Shape, output_shape: Shape) -> GlorotMLP:
        return GlorotMLP(input_shape, output_shape, hidden_dims=[100, 100])

    assert count(IWAE((1, 28, 28))) == 425_284
    assert count(IWAE((1, 28, 28), [100, 50], upper_encoder=upper, upper_decoder=upper)) == 521_084


def test_weights_start_as_those_of_glorot() -> None:
    layer = GlorotMLP((784,), (200,)).layers[0]
    limit = math.sqrt(6 / 984)
    assert layer.weight.abs().max() <= limit  # type: ignore[operator, union-attr]
    assert layer.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.01)  # type: ignore[operator, union-attr]
    assert not layer.bias.any()  # type: ignore[operator, union-attr]


def test_pixels_start_at_the_log_odds_of_the_data(tmp_path: Path) -> None:
    data = Synthetic(image_shape=(1, 4, 4), num_train=40, num_val=10, batch_size=10, binarization="static")
    model = IWAE((1, 4, 4), [2], 2, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    run = pl.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet)  # type: ignore[arg-type]
    run.fit(model, data)
    mean = torch.cat([images for images, _ in data.train_dataloader()]).mean(0).flatten()
    bias = model.decoder.layers[-1].bias  # type: ignore[index, union-attr]
    torch.testing.assert_close(torch.sigmoid(bias), mean.clamp(0.001, 0.999))
    with torch.no_grad():
        bias.fill_(0.5)
    run = pl.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet)  # type: ignore[arg-type]
    run.fit(model, data)
    assert (bias == 0.5).all(), "a trained model keeps what it learnt"


def test_a_hierarchy_survives_its_checkpoint(tmp_path: Path) -> None:
    def wide(input_shape: Shape, output_shape: Shape) -> MLP:
        return MLP(input_shape, output_shape, hidden_dims=[5], activation="relu")

    model = IWAE((1, 3, 3), [4, 3, 2], 6, lambda: PIWAE(3), small, small, wide, small)
    run = pl.Trainer(max_epochs=0, accelerator="cpu", logger=False, enable_checkpointing=False)
    run.strategy.connect(model)
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = load_model(tmp_path / "model.ckpt")
    assert isinstance(loaded, IWAE)
    assert isinstance(loaded.estimator, PIWAE)
    assert loaded.estimator.groups == 3
    images = torch.rand(2, 1, 3, 3)
    torch.manual_seed(0)
    bound = copy.deepcopy(model).eval().lower_bound(images, 5)
    torch.manual_seed(0)
    torch.testing.assert_close(loaded.lower_bound(images, 5), bound, rtol=0, atol=0)
    assert loaded.encode(images).event_shape == loaded.latent_shape == (2,)


def test_samples_draw_the_layers_between_and_latents_decode_through_their_means() -> None:
    model = tiny(Reparametrized, (2, 1), 1)
    z = torch.zeros(2000, 1).double()
    assert torch.equal(*model.decode_images(z).unique(dim=0).expand(2, -1, -1, -1, -1))
    # p(x) of single pixels, by ancestral sampling and by quadrature over both layers.
    axis = torch.linspace(-6, 6, 241).double()[:, None]
    top = torch.softmax(model.prior.log_prob(axis), 0)
    h = torch.cat([model.generative(1, axis).sample() for _ in range(100)])
    expected = (model.generative(0, h).mean.flatten(1).unflatten(0, (100, -1)).mean(0) * top[:, None]).sum(0)
    drawn = torch.cat([model.sample(5000) for _ in range(4)]).flatten(1).double()
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert ((drawn.mean(0) - expected).abs() < 6 * error).all()


def test_the_first_epochs_draw_fewer_samples(tmp_path: Path) -> None:
    drawn = []

    class Watched(IWAE):
        def infer(self, *args: Any, **kwargs: Any) -> Samples:
            samples = super().infer(*args, **kwargs)
            drawn.append((self.training, len(samples.reconstruction)))
            return samples

    model = Watched((1, 8, 8), [3], 4, encoder=small, decoder=small, warmup_samples=2, warmup_epochs=1)
    trainer(tmp_path, max_epochs=3, limit_train_batches=1, limit_val_batches=1, num_sanity_val_steps=0).fit(
        model, data()
    )
    assert drawn == [(True, 2), (False, 4), (True, 4), (False, 4), (True, 4), (False, 4)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_dims": []}, "latent_dims must name at least one layer"),
        ({"latent_dims": [3, 0]}, "at least 1 unit"),
        ({"num_samples": 0}, "warmup_epochs not negative, got 0, 5 and 0"),
        ({"warmup_epochs": -1}, "warmup_epochs not negative, got 50, 5 and -1"),
        ({"warmup_epochs": 1, "estimator": lambda: PIWAE(2)}, "5 samples cannot be shared evenly by 2 groups"),
        ({"num_samples": 5, "estimator": MIWAE}, "5 samples cannot be shared evenly by 8 groups"),
        ({"estimator": lambda: CIWAE(1.5)}, r"beta must lie in 0\.\.1"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IWAE((1, 4, 4), **arguments)
