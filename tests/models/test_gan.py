"""The GAN of 2014: sizes and beginnings of its networks, its noise, and a distribution that it recovers."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from lit_gen.data import Arrays
from lit_gen.models import DCGAN, GAN, R1, VAEGAN, FusedAdam, RisingMomentum
from lit_gen.networks import MLP, MaxoutMLP, Shape, UniformMLP, VAEGANDiscriminator, VAEGANEncoder
from lit_gen.networks.maxout import Maxout
from tests.callbacks.tiny import data, trainer


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_networks_have_the_published_sizes() -> None:
    model = GAN((1, 28, 28))
    assert count(model.generator) == 2_503_984
    assert count(model.discriminator) == 1_231_441
    weights = [part.weight for part in model.modules() if isinstance(part, nn.Linear)]
    ranges = [weight.abs().max().item() for weight in weights]
    assert ranges == pytest.approx([0.05] * 3 + [0.005] * 3, rel=0.05)
    dropouts = [part.p for part in model.discriminator.modules() if isinstance(part, nn.Dropout)]
    assert dropouts == [0.2, 0.5, 0.5]


def test_maxout_takes_the_largest_piece() -> None:
    layer = Maxout(1, 2, 3)
    layer.linear.weight.data = torch.tensor([[1.0], [-1.0], [0.5], [2.0], [0.0], [-3.0]])
    layer.linear.bias.data = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    torch.testing.assert_close(layer(torch.tensor([[1.0], [-2.0]])), torch.tensor([[1.5, 2.0], [2.0, 6.0]]))


@pytest.mark.parametrize("noise", ["uniform", "normal"])
def test_noise_has_unit_variance(noise: str) -> None:
    z = GAN((1, 8, 8), 5, noise).sample_latents(20_000)
    assert z.shape == (20_000, 5)
    assert z.mean().item() == pytest.approx(0, abs=0.02)
    assert z.std().item() == pytest.approx(1, abs=0.02)
    assert (z.abs().max().item() <= math.sqrt(3)) == (noise == "uniform")


def test_unknown_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="noise must be uniform or normal, got 'cauchy'"):
        GAN((1, 8, 8), noise="cauchy")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [GAN, DCGAN, VAEGAN])
def test_the_output_starts_at_the_pixel_means(kind: type[GAN], tmp_path: Path) -> None:
    def still(parameters: list[nn.Parameter]) -> SGD:
        return SGD(parameters, lr=0.0)

    options: dict[str, Any] = {"generator_optimizer": still, "discriminator_optimizer": still, "ema_decay": 0.9}
    options |= {"generator": lambda i, o: UniformMLP(i, o, [5])}
    if kind is VAEGAN:
        options |= {"encoder": partial(VAEGANEncoder, channels=[4, 5]), "feature_layer": "layers.convolution2"}
        options |= {"discriminator": partial(VAEGANDiscriminator, channels=[3, 4, 5])}
    model = kind((1, 8, 8), 3, **options)
    source = data(binarization="none")
    trainer(tmp_path, limit_val_batches=0).fit(model, source)
    means = torch.cat([images for images, _ in source.train_dataloader()]).mean(0).clamp(0.001, 0.999)
    for network in (model.generator, model.average.network):
        torch.testing.assert_close(model.to_image(network.layers[-1].bias).view(1, 8, 8), means)


def test_generate_is_differentiable_and_sample_is_not() -> None:
    model = GAN((3, 8, 8), 4)
    z = torch.randn(2, 4, requires_grad=True)
    model.generate(z).sum().backward()
    assert z.grad is not None
    assert not model.sample(2).requires_grad


def test_momentum_rises_in_a_straight_line() -> None:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.5)
    schedule = RisingMomentum(optimizer, final_momentum=0.7, epochs=4, decay=0.9)
    seen = []
    for _ in range(6):
        seen.append((optimizer.param_groups[0]["momentum"], optimizer.param_groups[0]["lr"]))
        optimizer.step()
        schedule.step()
    assert [momentum for momentum, _ in seen] == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.7])
    assert [rate for _, rate in seen] == pytest.approx([0.1 * 0.9**epoch for epoch in range(6)])
    # The program's own: 0.1 to 0.0607 after 250 epochs of 500 updates.
    long = RisingMomentum(SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.5))
    assert 0.1 * long.decay**250 == pytest.approx(0.0607, abs=1e-4)
    with pytest.raises(ValueError, match="has no momentum to change"):
        RisingMomentum(FusedAdam([nn.Parameter(torch.zeros(1))]))


def narrow(input_shape: Shape, output_shape: Shape) -> MLP:
    return MLP(input_shape, output_shape, hidden_dims=[32], activation="leaky_relu")


def test_a_gaussian_on_the_line_is_recovered(tmp_path: Path) -> None:
    grey = (torch.randn(2000) * 0.08 + 0.65).clamp(0, 1)
    images = (grey * 255).round().to(torch.uint8).view(-1, 1, 1, 1).numpy()

    def adam(parameters: list[nn.Parameter]) -> FusedAdam:
        return FusedAdam(parameters, lr=2e-3, betas=(0.5, 0.99))

    model = GAN(
        (1, 1, 1), 1, "normal", narrow, narrow, regularizer=lambda: R1(0.1), ema_decay=0.99,
        generator_optimizer=adam, discriminator_optimizer=adam,
    )  # fmt: skip
    source = Arrays(images=images, layout="NCHW", val_size=100, test_size=100, batch_size=200)
    trainer(tmp_path, max_epochs=-1, max_steps=600, limit_val_batches=0).fit(model, source)
    samples = model.sample(4000)
    assert samples.mean().item() == pytest.approx(0.65, abs=0.02)
    assert samples.std().item() == pytest.approx(0.08, rel=0.35)


def test_networks_are_those_of_the_configs_names() -> None:
    assert UniformMLP((3,), (1, 2, 2), hidden_dims=[4])(torch.zeros(5, 3)).shape == (5, 1, 2, 2)
    with pytest.raises(ValueError, match="pieces must be at least 1, got 0"):
        MaxoutMLP((1, 2, 2), (1,), pieces=0)
