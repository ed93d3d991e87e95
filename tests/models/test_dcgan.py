"""DCGAN: sizes and beginnings of its networks, images of any shape, classes."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lit_gen.models import DCGAN, ClassDCGAN, GANAdam, GradientPenalty
from lit_gen.networks import DCGANDiscriminator, DCGANGenerator, Shape
from lit_gen.networks.dcgan import MinibatchDeviation
from tests.callbacks.tiny import data, trainer

AUTHORS = {"width": 128, "kernel_size": 5}
IMAGENET = {"channels": [128, 256, 512], "kernel_size": 3, "refine": True}


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("shape", "latent_dim", "arguments", "unit_norm", "generator", "discriminator"),
    [
        ((3, 64, 64), 100, {}, False, 3_576_704, 2_765_568),  # dcgan.torch
        ((3, 64, 64), 100, AUTHORS, True, 18_885_760, 17_232_768),  # dcgan_code, faces
        ((3, 32, 32), 256, IMAGENET, True, 6_690_688, 4_586_112),  # dcgan_code, released weights of ImageNet
    ],
)
def test_networks_have_the_published_sizes(
    shape: Shape, latent_dim: int, arguments: dict, unit_norm: bool, generator: int, discriminator: int
) -> None:
    with torch.device("meta"):
        assert count(DCGANGenerator((latent_dim,), shape, unit_norm=unit_norm, **arguments)) == generator
        assert count(DCGANDiscriminator(shape, (1,), **arguments)) == discriminator


@pytest.mark.parametrize("kernel_size", [3, 4, 5])
@pytest.mark.parametrize(
    "shape", [(1, 28, 28), (3, 8, 8), (1, 4, 4), (4, 32, 20), (3, 109, 89), (2, 33, 47), (1, 7, 64)]
)
def test_any_size_and_any_channels(shape: Shape, kernel_size: int) -> None:
    generator = DCGANGenerator((5,), shape, width=4, kernel_size=kernel_size)
    discriminator = DCGANDiscriminator(shape, (1,), width=2, kernel_size=kernel_size)
    images = generator(torch.randn(16, 5))
    assert images.shape == (16, *shape)
    assert images.std(0).min() > 0, "every pixel depends on the noise"
    assert discriminator(images).shape == (16, 1)
    refined = DCGANGenerator((5,), shape, width=2, kernel_size=kernel_size, refine=True)
    assert refined(torch.randn(2, 5)).shape == (2, *shape)


def test_weights_start_as_published() -> None:
    torch.manual_seed(0)
    for network in (DCGANGenerator((100,), (3, 32, 32)), DCGANDiscriminator((3, 32, 32), (1,))):
        weights = torch.cat([weight.flatten() for weight in network.parameters() if weight.ndim > 1])
        assert weights.std().item() == pytest.approx(0.02, rel=0.01)
        gains = torch.cat([part.weight for part in network.modules() if isinstance(part, nn.BatchNorm2d)])
        assert gains.mean().item() == pytest.approx(1, abs=0.01)
        assert gains.std().item() == pytest.approx(0.02, rel=0.2)


def test_at_the_start_the_discriminator_knows_nothing() -> None:
    model = DCGAN((1, 32, 32))
    terms = model.discriminator_loss(torch.rand(50, 1, 32, 32), model.fakes(torch.zeros(50, 1, 32, 32)))
    assert terms.loss.mean().item() == pytest.approx(1.386, abs=0.2)


def test_pixels_are_scaled_inside() -> None:
    model = DCGAN((1, 8, 8), 4)
    images = torch.linspace(0, 1, 5).view(5, 1, 1, 1).expand(5, 1, 8, 8)
    torch.testing.assert_close(model.to_discriminator(images)[:, 0, 0, 0], torch.linspace(-1, 1, 5))
    outputs = torch.tensor([-50.0, 0.0, 50.0])
    torch.testing.assert_close(model.to_image(outputs), torch.tensor([0.0, 0.5, 1.0]))
    assert model.prior.sample(torch.Size([1000])).abs().max() <= 1


def test_spectral_norm_bounds_every_layer() -> None:
    network = DCGANDiscriminator((1, 16, 16), (1,), width=8, norm="none", spectral_norm=True)
    for _ in range(10):
        network(torch.randn(2, 1, 16, 16))
    network.eval()
    layers = [part for part in network.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    assert len(layers) == 3
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


def test_deviation_of_a_batch_is_one_map() -> None:
    x = torch.tensor([[0.0, 1.0], [2.0, 1.0]]).view(2, 2, 1, 1).expand(2, 2, 3, 3)
    appended = MinibatchDeviation()(x)
    assert appended.shape == (2, 3, 3, 3)
    torch.testing.assert_close(appended[:, 2], torch.full((2, 3, 3), 0.5), rtol=0, atol=1e-3)


def test_adam_is_that_of_the_paper() -> None:
    optimizer = GANAdam([nn.Parameter(torch.zeros(1))])
    assert (optimizer.defaults["lr"], optimizer.defaults["betas"]) == (2e-4, (0.5, 0.999))


def tiny_generator(input_shape: Shape, output_shape: Shape) -> DCGANGenerator:
    return DCGANGenerator(input_shape, output_shape, width=4)


def tiny_discriminator(input_shape: Shape, output_shape: Shape) -> DCGANDiscriminator:
    return DCGANDiscriminator(input_shape, output_shape, width=4)


def test_both_networks_are_told_the_class() -> None:
    model = ClassDCGAN((1, 8, 8), 3, 4, generator=tiny_generator, discriminator=tiny_discriminator).eval()
    z, images = model.prior.sample(torch.Size([1])).expand(3, -1), torch.rand(1, 1, 8, 8).expand(3, -1, -1, -1)
    classes = torch.arange(3)
    assert len(model.decode(z, classes).flatten(1).unique(dim=0)) == 3
    assert len(model.discriminate(images, classes).unique()) == 3
    assert model.sample(5, torch.full((5,), 2)).shape == (5, 1, 8, 8)
    assert set(model.sample_condition(200).tolist()) == {0, 1, 2}


def test_classes_are_needed() -> None:
    with pytest.raises(ValueError, match="needs labels of at least 2 classes, the data has 0"):
        ClassDCGAN((1, 8, 8), 0)


@pytest.mark.parametrize("shape", [(1, 3, 8), (16,)])
def test_what_is_no_image_is_refused(shape: Shape) -> None:
    with pytest.raises(ValueError, match="at least 4 pixels a side"):
        DCGANGenerator((4,), shape)
    with pytest.raises(ValueError, match="at least 4 pixels a side"):
        DCGANDiscriminator(shape, (1,))


def test_too_many_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="too small for 4 halvings"):
        DCGANDiscriminator((1, 8, 8), (1,), channels=[2, 2, 2, 2])


def test_norm_is_checked() -> None:
    with pytest.raises(ValueError, match="norm must be batch, layer or none, got 'group'"):
        DCGANDiscriminator((1, 8, 8), (1,), norm="group")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"--model.discriminator.norm layer"):
        DCGAN((1, 8, 8), regularizer=GradientPenalty)


def test_grey_images_train(tmp_path: Path) -> None:
    model = DCGAN((1, 8, 8), 4, generator=tiny_generator, discriminator=tiny_discriminator)
    run = trainer(tmp_path)
    run.fit(model, data(binarization="none"))
    assert run.callback_metrics["val/generator_loss"].isfinite()
