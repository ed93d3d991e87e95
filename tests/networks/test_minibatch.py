"""Layers that see the batch, the networks that take them, and those of spectrally normalised GANs."""

import pytest
import torch
from torch import nn

from lit_gen.networks import (
    DCGANDiscriminator,
    MaxoutMLP,
    MinibatchDeviation,
    MinibatchDiscrimination,
    SNGANDiscriminator,
    SNGANGenerator,
)


def test_copies_are_counted_and_strangers_are_not() -> None:
    layer = MinibatchDiscrimination(4, kernels=3, kernel_dim=2)
    copies = torch.randn(1, 4).expand(6, 4)
    appended = layer(copies)
    assert appended.shape == (6, 7)
    assert torch.equal(appended[:, :4], copies)
    torch.testing.assert_close(appended[:, 4:], torch.full((6, 3), 6.0))
    far = layer(1e4 * torch.randn(6, 4))
    torch.testing.assert_close(far[:, 4:], torch.ones(6, 3), rtol=0, atol=1e-6)


def test_closeness_by_hand() -> None:
    layer = MinibatchDiscrimination(2, kernels=2, kernel_dim=2)
    layer.tensor.data = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]])  # M_i0 = x_i, M_i1 = 0
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]])
    near, far, farther = (torch.exp(torch.tensor(-d)).item() for d in (1.0, 2.0, 3.0))
    counts = layer(x)[:, 2:]
    assert counts[:, 0].tolist() == pytest.approx([1 + near + farther, 1 + near + far, 1 + far + farther])
    assert counts[:, 1].tolist() == [3.0, 3.0, 3.0]


def test_gradients_tell_copies_apart_from_the_rest() -> None:
    layer = MinibatchDiscrimination(3, kernels=2, kernel_dim=2).double()
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)


def test_deviation_of_vectors_is_one_unit() -> None:
    appended = MinibatchDeviation()(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
    torch.testing.assert_close(appended[:, 2], torch.full((2,), 0.5), rtol=0, atol=1e-3)


@pytest.mark.parametrize("arguments", [{"minibatch_deviation": True}, {"minibatch_kernels": 7}])
def test_discriminators_take_them(arguments: dict) -> None:
    for plain, told in (
        (DCGANDiscriminator((1, 8, 8), (1,), 4), DCGANDiscriminator((1, 8, 8), (1,), 4, **arguments)),
        (MaxoutMLP((1, 8, 8), (1,), [6], 2), MaxoutMLP((1, 8, 8), (1,), [6], 2, **arguments)),
    ):
        images = torch.rand(5, 1, 8, 8)
        assert told(images).shape == (5, 1)
        for network, depends in ((plain, False), (told, True)):
            network.eval()
            with torch.no_grad():
                alone, together = network(images[:1]), network(images)[:1]
            assert (not torch.allclose(alone, together, rtol=1e-5, atol=1e-7)) == depends


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="kernels and kernel_dim must be at least 1, got 0 and 5"):
        MinibatchDiscrimination(4, kernels=0)


# ---- spectral normalisation


def test_networks_of_sngan_have_the_published_sizes() -> None:
    def count(network: nn.Module) -> int:
        return sum(part.numel() for part in network.parameters())

    # Transposed convolutions have no biases here: batch normalisation would take them away again.
    assert count(SNGANGenerator((128,), (3, 32, 32))) == 3_812_355 - (256 + 128 + 64)
    assert count(SNGANDiscriminator((3, 32, 32), (1,))) == 2_935_873


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 20), (2, 33, 47)])
def test_networks_of_sngan_take_any_size(shape: tuple[int, int, int]) -> None:
    assert SNGANGenerator((3,), shape, [4, 5, 6])(torch.randn(2, 3)).shape == (2, *shape)
    assert SNGANDiscriminator(shape, (1,), [4, 5, 6])(torch.rand(2, *shape)).shape == (2, 1)
    with pytest.raises(ValueError, match="too small for 3 halvings"):
        SNGANDiscriminator((1, 4, 4), (1,), [2, 2, 2, 2])


def test_every_layer_is_divided_by_its_largest_singular_value() -> None:
    network = SNGANDiscriminator((1, 8, 8), (1,), [6, 8])
    for _ in range(20):
        network(torch.rand(2, 1, 8, 8))
    network.eval()
    layers = [part for part in network.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    assert len(layers) == 4
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


def test_power_iterations_are_those_of_the_algorithm() -> None:
    network = SNGANDiscriminator((1, 4, 4), (2,), [1]).eval()
    layer = network.output.parametrizations.weight
    layer.original.data = torch.zeros(2, 16)
    layer.original.data[0, 0], layer.original.data[1, 1] = 3.0, 1.0
    layer[0]._u.copy_(torch.tensor([0.5**0.5, 0.5**0.5]))
    layer[0]._v.copy_(torch.cat([torch.tensor([0.5**0.5, 0.5**0.5]), torch.zeros(14)]))
    network.train()
    estimates = [3.0 / network.output.weight[0, 0].item() for _ in range(4)]
    assert estimates == pytest.approx([2.8636, 2.9982, 2.99998, 2.9999997], abs=5e-5)
