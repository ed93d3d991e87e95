"""VAE/GAN: sizes of its networks, who gets which gradient, and a training that is algorithm 1."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from lit_gen.models import (
    R1,
    VAEGAN,
    Equilibrium,
    FeatureDistance,
    Hinge,
    NonSaturating,
    PixelDistance,
    SumOfDistances,
    load_model,
)
from lit_gen.models.adversarial import Piece, Turns
from lit_gen.networks import (
    MLP,
    DCGANDiscriminator,
    DCGANGenerator,
    ExemplarComparator,
    MaxoutMLP,
    RandomComparator,
    Shape,
)
from lit_gen.networks.vae_gan import VAEGANDiscriminator, VAEGANEncoder, VAEGANGenerator
from tests.callbacks.tiny import data, trainer

SHAPE: Shape = (1, 8, 8)
LATENTS = 3


def small(input_shape: Shape, output_shape: Shape) -> MLP:
    return MLP(input_shape, output_shape, hidden_dims=[12])


def sgd(parameters: Any) -> SGD:
    return SGD(parameters, lr=0.05)


def still(parameters: Any) -> SGD:
    return SGD(parameters, lr=0.0)


def hybrid(**arguments: Any) -> VAEGAN:
    torch.manual_seed(1)
    options = dict.fromkeys(("encoder", "generator", "discriminator"), small)
    options |= {f"{name}_optimizer": sgd for name in options}
    return VAEGAN(SHAPE, LATENTS, **{**options, "feature_layer": "layers.1", "gamma": 0.3, **arguments})


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def moved(network: nn.Module, before: dict[str, Tensor]) -> float:
    return sum((value - before[name]).abs().sum().item() for name, value in network.state_dict().items())


# ---- the networks


def test_networks_are_those_of_the_papers_table() -> None:
    model = VAEGAN((3, 64, 64))
    counts = [sum(part.numel() for part in net.parameters()) for net in (model.encoder, model.generator)]
    # Weights of 5x5 convolutions, of linear layers, gains and shifts of normalisation, biases of the last layer.
    encoder = 25 * (3 * 64 + 64 * 128 + 128 * 256) + 256 * 8 * 8 * 1024 + 2 * (64 + 128 + 256 + 1024) + 1025 * 256
    generator = 128 * 8 * 8 * 256 + 25 * (256 * 256 + 256 * 128 + 128 * 32 + 32 * 3)
    generator += 2 * (8 * 8 * 256 + 256 + 128 + 32) + 3
    discriminator = 25 * (3 * 32 + 32 * 128 + 128 * 256 + 256 * 256) + 32 + 256 * 8 * 8 * 512
    discriminator += 2 * (128 + 256 + 256 + 512) + 513
    assert [*counts, sum(part.numel() for part in model.discriminator.parameters())] == [
        encoder,
        generator,
        discriminator,
    ]
    _, features = model.logits_and_features(torch.rand(2, 3, 64, 64))
    assert features is not None
    assert features.shape == (2, 256, 8, 8)
    assert features.min() < 0, "before its ReLU"


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 5), (2, 28, 20), (3, 33, 47)])
def test_networks_take_any_size(shape: Shape) -> None:
    assert VAEGANEncoder(shape, (6,), [4, 5], 7)(torch.rand(2, *shape)).shape == (2, 6)
    assert VAEGANGenerator((3,), shape, [4, 5], 6)(torch.rand(2, 3)).shape == (2, *shape)
    assert VAEGANDiscriminator(shape, (1,), [3, 4, 5], 7)(torch.rand(2, *shape)).shape == (2, 1)


def test_too_small_an_image_is_refused() -> None:
    for network in (VAEGANEncoder, VAEGANDiscriminator):
        with pytest.raises(ValueError, match=r"\(1, 7, 7\), are too small for 3 halvings; give fewer channels"):
            network((1, 7, 7), (1,))
    with pytest.raises(ValueError, match="too small for 3 halvings"):
        VAEGANGenerator((3,), (1, 7, 7))
    with pytest.raises(ValueError, match=r"must be images \(channels, height, width\), got \(8,\)"):
        VAEGANEncoder((8,), (1,))


# ---- who gets which gradient


def fit_one_batch(model: VAEGAN, folder: Path) -> dict[str, dict[str, Tensor]]:
    """Weights of each network after one batch, from the same noise every time."""
    torch.manual_seed(5)
    trainer(folder, limit_train_batches=1, limit_val_batches=0).fit(model, data())
    return {name: weights(getattr(model, name)) for name in ("encoder", "generator", "discriminator")}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_adversarial_loss_does_not_reach_the_encoder(tmp_path: Path) -> None:
    fixed = {"discriminator_optimizer": still}
    one = fit_one_batch(hybrid(loss=NonSaturating, **fixed), tmp_path)
    other = fit_one_batch(hybrid(loss=Hinge, **fixed), tmp_path)
    assert same(one["encoder"], other["encoder"])
    assert not same(one["generator"], other["generator"]), "which two losses would move alike proves nothing"


def test_the_feature_error_does_not_reach_the_discriminator(tmp_path: Path) -> None:
    class Blind(VAEGAN):
        def feature_error(self, features: Tensor, reconstructed: Tensor) -> Tensor:
            return 0 * super().feature_error(features, reconstructed)

    one = fit_one_batch(hybrid(), tmp_path)
    torch.manual_seed(1)
    blind = Blind(SHAPE, LATENTS, small, small, small, "layers.1", 0.3, **{
        f"{name}_optimizer": sgd for name in ("encoder", "generator", "discriminator")
    })  # fmt: skip
    other = fit_one_batch(blind, tmp_path)
    assert same(one["discriminator"], other["discriminator"])
    assert not same(one["encoder"], other["encoder"])
    assert not same(one["generator"], other["generator"])


def test_gamma_is_the_generators_alone(tmp_path: Path) -> None:
    one, other = (fit_one_batch(hybrid(gamma=gamma), tmp_path) for gamma in (0.0, 2.0))
    assert same(one["encoder"], other["encoder"])
    assert same(one["discriminator"], other["discriminator"])
    assert not same(one["generator"], other["generator"])


def test_a_distance_stands_in_for_the_learned_one_or_joins_it(tmp_path: Path) -> None:
    pixels = {"distance": lambda shape: PixelDistance(shape, normalize=False), "distance_weight": 3.0}
    alone, both = hybrid(feature_layer=None, **pixels), hybrid(**pixels)
    images = torch.rand(6, *SHAPE)
    piece = Piece(images, None, None, 1.0)
    for model in (alone, both):
        torch.manual_seed(3)
        loss, values = model._encoder_turn(piece)
        torch.manual_seed(3)
        made = model.generate(model.encode(images).rsample())
        squares = 0.5 * (made - images).square().sum((1, 2, 3))
        wanted = values["kl"] + 3 * squares + values.get("feature_error", torch.zeros(6))
        torch.testing.assert_close(loss, wanted)
        torch.manual_seed(3)
        loss, values = model._generator_turn(piece)
        error = 3 * values["distance"] + values.get("feature_error", torch.zeros(6))
        torch.testing.assert_close(loss, 0.3 * error + values["generator_loss"])
    assert "feature_error" in both._generator_turn(piece)[1]
    assert "feature_error" not in alone._generator_turn(piece)[1]
    # The adversarial loss still ends at the generator.
    one, other = (
        fit_one_batch(hybrid(feature_layer=None, loss=loss, discriminator_optimizer=still, **pixels), tmp_path)
        for loss in (NonSaturating, Hinge)
    )
    assert same(one["encoder"], other["encoder"])
    assert not same(one["generator"], other["generator"])


def test_a_comparator_learns_once_and_comes_back_with_the_model(tmp_path: Path) -> None:
    features = lambda shape: FeatureDistance(shape, lambda s: ExemplarComparator(s, 4, 8, 5, 3, 5))  # noqa: E731
    model = hybrid(feature_layer=None, distance=features)
    run = trainer(tmp_path, limit_train_batches=2)
    run.fit(model, data())
    assert isinstance(model.distance, FeatureDistance)
    assert bool(model.distance.measured)
    assert run.callback_metrics["val/distance"].isfinite()
    run.save_checkpoint(tmp_path / "one.ckpt")
    loaded = load_model(tmp_path / "one.ckpt")
    assert isinstance(loaded, VAEGAN)
    assert same(weights(loaded.distance), weights(model.distance))  # type: ignore[arg-type]


def test_a_sum_of_distances_comes_back_with_the_model(tmp_path: Path) -> None:
    features = lambda shape: FeatureDistance(shape, lambda s: RandomComparator(s, [4, 8]))  # noqa: E731
    both = lambda shape: SumOfDistances(shape, [PixelDistance, features], [2.0, 0.5])  # noqa: E731
    model = hybrid(feature_layer=None, distance=both)
    run = trainer(tmp_path, limit_train_batches=2)
    run.fit(model, data())
    run.save_checkpoint(tmp_path / "one.ckpt")
    loaded = load_model(tmp_path / "one.ckpt")
    assert isinstance(loaded, VAEGAN)
    assert isinstance(loaded.distance, SumOfDistances)
    images, others = torch.rand(2, 5, *SHAPE)
    assert torch.equal(loaded.distance(images, others), model.distance(images, others))  # type: ignore[misc]


def test_training_is_algorithm_1(tmp_path: Path) -> None:
    """Against a bare loop that separates gradients by detaching, on probabilities and torch's own losses."""
    model = hybrid()  # the paper's loss is the default
    encoder, generator, discriminator = (
        copy.deepcopy(net) for net in (model.encoder, model.generator, model.discriminator)
    )
    torch.manual_seed(7)
    trainer(tmp_path, max_epochs=3, limit_val_batches=0).fit(model, data(batch_size=60, seed=3))

    def decode(z: Tensor) -> Tensor:
        return torch.tanh(generator(z))  # [-1, 1], as the discriminator sees them

    def features(x: Tensor) -> Tensor:
        return discriminator.layers[:2](x.flatten(1))

    def said(x: Tensor) -> Tensor:
        return torch.sigmoid(discriminator(x))

    def posterior(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = encoder(x).chunk(2, 1)
        return mean, log_variance, mean + (0.5 * log_variance).exp() * torch.randn(60, LATENTS)

    nets = {"discriminator": discriminator, "encoder": encoder, "generator": generator}
    optimizers = {name: sgd(net.parameters()) for name, net in nets.items()}

    def step(name: str, loss: Tensor) -> None:
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        loss.backward()
        optimizers[name].step()

    source = data(batch_size=60, seed=3)
    source.prepare_data()
    source.setup("fit")
    loader = source.train_dataloader()
    torch.manual_seed(7)
    for epoch in range(3):
        loader.set_epoch(epoch)
        x = 2 * next(iter(loader))[0] - 1
        *_, z = posterior(x)
        x_tilde, x_p = decode(z).detach(), decode(torch.randn(60, LATENTS)).detach()
        gan = said(x).log() + (1 - said(x_tilde)).log() + (1 - said(x_p)).log()
        step("discriminator", -gan.mean())

        mean, log_variance, z = posterior(x)
        prior = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1)
        likeness = nn.functional.mse_loss(features(decode(z)), features(x), reduction="none").sum(1) / 2
        step("encoder", (prior + likeness).mean())

        *_, z = posterior(x)
        z = z.detach()
        x_p = decode(torch.randn(60, LATENTS))
        likeness = nn.functional.mse_loss(features(decode(z)), features(x), reduction="none").sum(1) / 2
        gan = (1 - said(decode(z))).log() + (1 - said(x_p)).log()
        step("generator", (0.3 * likeness).mean() + gan.mean())
    for name, net in nets.items():
        for key, value in net.state_dict().items():
            torch.testing.assert_close(getattr(model, name).state_dict()[key], value, rtol=0, atol=1e-5)


def test_parts_of_a_batch_train_all_three(tmp_path: Path) -> None:
    model = hybrid(micro_batches=3, regularizer=R1, generator_steps=2, ema_decay=0.5)
    before = {name: weights(getattr(model, name)) for name in ("encoder", "generator", "discriminator")}
    run = trainer(tmp_path, max_epochs=1)
    run.fit(model, data())
    assert run.global_step == 6
    assert all(moved(getattr(model, name), old) > 0 for name, old in before.items())
    assert {"val/kl", "val/feature_error", "val/reconstruction_error"} <= run.callback_metrics.keys()


def test_what_evaluation_says_is_of_the_mean_reconstruction() -> None:
    model = hybrid().eval()
    images = torch.rand(4, *SHAPE)
    said = model.judge(images)
    reconstructions = model.reconstruct(images)
    wanted = (reconstructions - images).square().sum((1, 2, 3))
    torch.testing.assert_close(said["reconstruction_error"], wanted)
    hidden = model.discriminator.layers[:2]
    difference = hidden((2 * reconstructions - 1).flatten(1)) - hidden((2 * images - 1).flatten(1))
    torch.testing.assert_close(said["feature_error"], 0.5 * difference.square().sum(1))
    assert said["fake_logit"].shape == (8,), "of reconstructions and samples"


# ---- parts that recombine


@pytest.mark.parametrize(
    ("discriminator", "layer"),
    [
        (lambda i, o: DCGANDiscriminator(i, o, width=4, spectral_norm=True), "convolutions.3"),
        (lambda i, o: MaxoutMLP(i, o, [6, 6], 2), "layers.3"),
    ],
)
def test_any_discriminator_with_named_layers_will_do(discriminator: Any, layer: str, tmp_path: Path) -> None:
    model = hybrid(discriminator=discriminator, feature_layer=layer, generator=lambda i, o: DCGANGenerator(i, o, 4))
    run = trainer(tmp_path, max_epochs=1, limit_train_batches=2)
    run.fit(model, data())
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = load_model(tmp_path / "model.ckpt")
    assert isinstance(loaded, VAEGAN)
    assert loaded.feature_layer == layer
    images = torch.rand(3, *SHAPE)
    assert torch.equal(loaded.reconstruct(images), model.eval().reconstruct(images))
    assert model.discriminator not in model.compiled_parts()


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"the MLP has no layer 'layers\.9'; take one of layers, layers\.0, layers\.1"):
        hybrid(feature_layer="layers.9")
    with pytest.raises(ValueError, match=r"gamma must not be negative, got -1"):
        hybrid(gamma=-1.0)
    with pytest.raises(ValueError, match="nothing would compare reconstructions with images: give a feature_layer"):
        hybrid(feature_layer=None)
    with pytest.raises(ValueError, match=r"distance_weight must be positive, got 0\.0; leave out the distance"):
        hybrid(distance=PixelDistance, distance_weight=0.0)
    with pytest.raises(ValueError, match="encoder_clip must be positive"):
        hybrid(encoder_clip=0.0)


# ---- the rule of the authors' program


@pytest.mark.parametrize(
    ("real", "fake", "discriminator", "generator"),
    [
        (0.68, 0.68, True, True),
        (0.32, 0.68, False, True),
        (0.68, 0.2, False, True),
        (1.04, 0.68, True, False),
        (0.68, 2.0, True, False),
        (0.1, 2.0, True, True),
        (0.34, 1.02, True, True),
    ],
)
def test_equilibrium(real: float, fake: float, discriminator: bool, generator: bool) -> None:
    assert Equilibrium().turns(real, fake, 1.0) == Turns(discriminator, generator)


def test_equilibrium_is_checked() -> None:
    with pytest.raises(ValueError, match=r"center must be positive and margin at least 0, got 0\.7 and -1"):
        Equilibrium(0.7, -1.0)


def test_the_encoder_never_waits(tmp_path: Path) -> None:
    # At the start every error is log 2: far above this equilibrium, so that the generator waits.
    model = hybrid(balance=lambda: Equilibrium(0.1, 0.0))
    before = {name: weights(getattr(model, name)) for name in ("encoder", "generator", "discriminator")}
    assert math.log(2) > 0.1
    after = fit_one_batch(model, tmp_path)
    assert same(before["generator"], after["generator"])
    assert not same(before["encoder"], after["encoder"])
    assert not same(before["discriminator"], after["discriminator"])
