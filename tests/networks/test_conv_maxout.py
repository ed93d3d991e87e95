"""The convolutional networks of the GAN of 2014: published sizes, and each layer against plain arithmetic."""

import pytest
import torch
from torch import Tensor, nn

from lit_gen.networks import ConvMaxoutDiscriminator, DeconvGenerator, Shape
from lit_gen.networks.conv_maxout import ConvMaxout


def sizes(network: nn.Module, kind: type[nn.Module], x: Tensor) -> list[tuple[int, ...]]:
    """Shapes that modules of a kind give, without the batch."""
    found: list[tuple[int, ...]] = []
    for module in network.modules():
        if isinstance(module, kind):
            module.register_forward_hook(lambda _, __, output: found.append(tuple(output.shape[1:])))
    network(x)
    return found


def test_published_geometry_on_cifar() -> None:
    network = ConvMaxoutDiscriminator((3, 32, 32), (1,))
    assert sizes(network, ConvMaxout, torch.rand(2, 3, 32, 32)) == [(32, 16, 16), (32, 7, 7), (192, 5, 5)]
    # Weights and biases of two pieces of each convolution, of five of the dense layer, and of the logit.
    layers = [64 * (3 * 64 + 1), 64 * (32 * 64 + 1), 384 * (32 * 25 + 1), 2500 * (192 * 25 + 1), 501]
    assert sum(parameter.numel() for parameter in network.parameters()) == sum(layers)
    assert [part.p for part in network.modules() if isinstance(part, nn.Dropout)] == [0.2, 0.5, 0.5, 0.5, 0.5]
    generator = DeconvGenerator((100,), (3, 32, 32), hidden_dim=10)
    assert sizes(generator, nn.Unflatten, torch.rand(2, 100)) == [(80, 10, 10)]
    assert sizes(generator, nn.ConvTranspose2d, torch.rand(2, 100)) == [(3, 32, 32)], "nothing is cut off"
    assert generator.layers[3].out_features == 8000


def test_generator_adds_a_patch_for_every_unit_of_its_maps() -> None:
    network = DeconvGenerator((3,), (1, 11, 8), hidden_dim=4, maps=2).double()
    z = torch.randn(1, 3, dtype=torch.float64)
    maps = network.layers[:6](z)[0]
    assert maps.shape == (2, 3, 2)
    assert 0 < maps.min() < maps.max() < 1
    deconvolution = network.layers[6]
    canvas = torch.zeros(11, 8, dtype=torch.float64) + deconvolution.bias
    for number, row, column in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(2)).tolist():
        patch = maps[number, row, column] * deconvolution.weight[number, 0]
        canvas[3 * row : 3 * row + 5, 3 * column : 3 * column + 5] += patch
    torch.testing.assert_close(network(z)[0, 0], canvas)


def test_maxout_is_the_largest_piece_of_the_largest_neighbour() -> None:
    layer = ConvMaxout(1, 2, 3, kernel_size=1, padding=0, pool=2, pool_stride=2)
    weights, biases = torch.tensor([1.0, -1.0, 0.5, 2.0, 0.0, -3.0]), torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    layer.convolution.weight.data, layer.convolution.bias.data = weights.view(6, 1, 1, 1), biases
    images = torch.tensor([[1.0, -2.0, 0.0], [0.5, 0.0, 3.0], [-1.0, 1.0, 4.0]]).view(1, 1, 3, 3)
    pieces = weights.view(2, 3, 1, 1) * images[0] + biases.view(2, 3, 1, 1)
    units = pieces.amax(1)
    corners = [units[:, :2, :2], units[:, :2, 2:], units[:, 2:, :2], units[:, 2:, 2:]]
    expected = torch.stack([corner.amax((1, 2)) for corner in corners], 1).view(1, 2, 2, 2)
    torch.testing.assert_close(layer(images), expected)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 28, 20), (3, 64, 64), (1, 8, 8), (4, 17, 9)])
def test_sizes_are_derived(shape: Shape) -> None:
    images = DeconvGenerator((3,), shape, hidden_dim=4, maps=2)(torch.rand(2, 3))
    assert images.shape == (2, *shape)
    assert ConvMaxoutDiscriminator(shape, (1,), channels=(4, 4, 6), hidden_dim=5)(images).shape == (2, 1)


def test_weights_start_small_and_uniform() -> None:
    for network, limit in (
        (DeconvGenerator((3,), (3, 32, 32), hidden_dim=40, maps=8), 0.05),
        (ConvMaxoutDiscriminator((3, 32, 32), (1,), channels=(4, 4, 6), hidden_dim=50), 0.005),
    ):
        for name, parameter in network.named_parameters():
            largest = parameter.abs().max().item()
            assert largest == 0 if name.endswith("bias") else 0.8 * limit < largest <= limit, name


def test_bad_options() -> None:
    with pytest.raises(ValueError, match=r"of at least 8 pixels a side, got \(1, 7, 9\)"):
        ConvMaxoutDiscriminator((1, 7, 9), (1,))
    with pytest.raises(ValueError, match=r"channels must be of 3 layers, got \[4, 4\]"):
        ConvMaxoutDiscriminator((1, 8, 8), (1,), channels=[4, 4])
    with pytest.raises(ValueError, match=r"stride must lie in 1..kernel_size, got 4 and a kernel of 3"):
        DeconvGenerator((3,), (1, 8, 8), kernel_size=3, stride=4)
    with pytest.raises(ValueError, match=r"makes images \(channels, height, width\), got \(1, 8, 8, 8\)"):
        DeconvGenerator((3,), (1, 8, 8, 8))
