"""The U-Net and the dense network of diffusion: sizes, what they are told, and how they start."""

import pytest
import torch

from lit_gen.networks import BumpMLP, UNet
from lit_gen.networks.timed import sinusoids


def small(shape: tuple[int, ...], num_classes: int = 0) -> UNet:
    torch.manual_seed(0)
    return UNet(shape, shape, num_classes, channels=8, multipliers=[1, 2, 2], blocks=1, dropout=0.0, groups=4)


def test_network_for_cifar10_has_the_published_size() -> None:
    with torch.device("meta"):
        network = UNet((3, 32, 32), (3, 32, 32))
    assert sum(parameter.numel() for parameter in network.parameters()) == 35_746_307


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 28, 20), (1, 7, 5), (2, 33, 64)])
def test_any_size(shape: tuple[int, ...]) -> None:
    network = small(shape)
    output = network(torch.randn(2, *shape), torch.tensor([0.1, 1.0]))
    assert output.shape == (2, *shape)
    # It starts by saying nothing, and every parameter but the biases of keys, to which attention is blind, can learn.
    assert (output == 0).all()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    network(torch.randn(2, *shape), torch.tensor([0.1, 1.0])).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_time_and_class_matter() -> None:
    network = small((1, 8, 8), num_classes=3)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(1, 1, 8, 8).expand(4, -1, -1, -1)
    time = torch.tensor([0.2, 0.2, 0.2, 0.201])
    outputs = network(x, time, torch.tensor([0, 1, 3, 0]))
    torch.testing.assert_close(outputs[:1], network(x[:1], time[:1], torch.tensor([0])))
    for other in (1, 2, 3):
        assert (outputs[other] - outputs[0]).abs().max() > 1e-3


def test_output_may_have_other_channels() -> None:
    network = UNet((1, 8, 8), (2, 8, 8), channels=8, multipliers=[1, 2], blocks=1, groups=4)
    assert network(torch.randn(2, 1, 8, 8), torch.rand(2)).shape == (2, 2, 8, 8)


def test_sinusoids() -> None:
    embedding = sinusoids(torch.tensor([0.0, 0.25]), 6)
    assert embedding[0].tolist() == [0, 0, 0, 1, 1, 1]
    expected = torch.tensor([250.0, 2.5, 0.025])
    torch.testing.assert_close(embedding[1], torch.cat([expected.sin(), expected.cos()]), rtol=0, atol=1e-4)


def test_bumps_are_a_mean_over_time() -> None:
    torch.manual_seed(0)
    network = BumpMLP((1, 4, 4), (2, 4, 4), 3, hidden_dims=[12], bumps=5)
    x, label = torch.randn(3, 1, 4, 4), torch.tensor([0, 1, 3])
    time = torch.tensor([0.1, 0.5, 0.9])
    weights = network.weights(time)
    torch.testing.assert_close(weights.sum(1), torch.ones(3))
    assert weights.argmax(1).tolist() == [0, 2, 4]
    assert network(x, time, label).shape == (3, 2, 4, 4)
    assert not torch.equal(network(x, time, label)[1], network(x, time, torch.tensor([0, 0, 3]))[1])
    # With all outputs alike, time makes no difference.
    with torch.no_grad():
        network.output.weight.copy_(network.output.weight[:32].repeat(5, 1))
        network.output.bias.copy_(network.output.bias[:32].repeat(5))
    torch.testing.assert_close(network(x, time, label), network(x, time.flip(0), label))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"same height and width, got \(1, 8, 8\) and \(1, 8, 4\)"):
        UNet((1, 8, 8), (1, 8, 4))
    with pytest.raises(ValueError, match=r"channels must be even, multipliers .* got 7"):
        UNet((1, 8, 8), (1, 8, 8), channels=7)
    with pytest.raises(ValueError, match="images of 4x4 are too small for 4 levels; give fewer multipliers"):
        UNet((1, 4, 4), (1, 4, 4))
    with pytest.raises(ValueError, match=r"attention_levels must lie in 0\.\.1, got \[2\]"):
        UNet((1, 8, 8), (1, 8, 8), multipliers=[1, 2], attention_levels=[2])
    with pytest.raises(ValueError, match=r"at least one hidden layer and one bump, got \[\] and 10"):
        BumpMLP((1, 4, 4), (1, 4, 4), hidden_dims=[])
