"""The convolutional presets of the VAE for images of every size."""

import pytest
import torch
from torch import nn

from lit_gen.models import ConvVAE
from lit_gen.networks import ConvDecoder, ConvEncoder, Shape


@pytest.mark.parametrize(
    ("shape", "maps", "smallest"),
    [
        ((1, 28, 28), [32, 64, 128], 3 * 3),
        ((1, 28, 20), [32, 64, 128], 3 * 2),
        ((3, 32, 32), [32, 64, 128], 4 * 4),
        ((1, 48, 48), [32, 64, 128, 256], 3 * 3),
        ((3, 64, 64), [32, 64, 128, 256], 4 * 4),
    ],
)
def test_depth_comes_from_the_size(shape: Shape, maps: list[int], smallest: int) -> None:
    model = ConvVAE(shape, latent_dim=5)
    assert isinstance(model.encoder, ConvEncoder)
    assert isinstance(model.decoder, ConvDecoder)
    downwards = [layer for layer in model.encoder.modules() if isinstance(layer, nn.Conv2d)]
    upwards = [layer for layer in model.decoder.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in downwards] == maps
    assert [layer.in_channels for layer in upwards] == maps[::-1]
    assert model.encoder.output[1].in_features == smallest * maps[-1]  # type: ignore[union-attr]
    images = torch.rand(2, *shape)
    assert model.eval().reconstruct(images).shape == images.shape
    assert model.objective(images).loss.isfinite().all()


def test_its_bound_is_in_bits_of_8_bit_pixels() -> None:
    model = ConvVAE((1, 8, 8))
    assert not model.is_density
    # Sharp pixels at the right grey level cost nothing: a probability, which a density would exceed.
    image = torch.full((1, 1, 8, 8), 100 / 255)
    sharp = torch.cat([torch.logit(image), torch.full_like(image, -20.0)], 1)
    assert model.likelihood(sharp).log_prob(image).abs().item() < 20
    assert model.likelihood(sharp).log_prob(image).item() <= 0
