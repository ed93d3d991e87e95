"""What is seen of inner layers: values, gradients, and what cannot be seen."""

import pytest
import torch
from torch import nn

from lit_gen.networks import DCGANDiscriminator, check_layer, watch_layer


def test_what_is_seen_is_the_layers_output_with_its_gradient() -> None:
    network = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
    x = torch.randn(4, 3, requires_grad=True)
    with watch_layer(network, "1") as seen:
        network(x)
        network(2 * x)
    network(x)
    assert len(seen) == 2, "of the calls within the block, and of no others"
    torch.testing.assert_close(seen[1], torch.tanh(network[0](2 * x)))
    (gradient,) = torch.autograd.grad(seen[0].sum(), x)
    slope = 1 - torch.tanh(network[0](x)).square()
    torch.testing.assert_close(gradient, slope @ network[0].weight)


def test_nothing_is_left_behind() -> None:
    network = nn.Sequential(nn.Linear(3, 5))
    with pytest.raises(RuntimeError), watch_layer(network, "0"):
        network(torch.zeros(1, 7))
    assert not network[0]._forward_hooks


def test_a_layer_that_is_overwritten_is_refused() -> None:
    network = nn.Sequential(nn.Linear(3, 5), nn.ReLU(inplace=True))
    message = "the layer '0' of the Sequential gives is overwritten by the layer after it"
    with pytest.raises(ValueError, match=message), watch_layer(network, "0"):
        network(torch.randn(2, 3))


def test_unknown_layers_are_told_the_known_ones() -> None:
    network = DCGANDiscriminator((1, 8, 8), (1,), width=2)
    assert check_layer(network, "convolutions.0") == "convolutions.0"
    with pytest.raises(ValueError, match=r"the DCGANDiscriminator has no layer 'last'; take one of convolutions, "):
        check_layer(network, "last")
