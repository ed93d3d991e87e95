"""A network of torchvision as comparator: its layers, in eval mode, without a download."""

import pytest
import torch
from torchvision.models import mobilenet_v3_small

from lit_gen.networks import TorchvisionComparator

NODES = ["features.0", "features.3"]


def test_its_layers_are_those_of_the_network() -> None:
    comparator = TorchvisionComparator((1, 32, 40), "mobilenet_v3_small", None, NODES)
    original = mobilenet_v3_small(weights=None)
    # Batch normalisation with other statistics than those of the batch.
    torch.manual_seed(0)
    for name, value in comparator.body.state_dict().items():
        original.state_dict()[name].copy_(value)
    comparator.train()
    images = torch.rand(2, 1, 32, 40)
    x = (images.expand(-1, 3, -1, -1) - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
        [0.229, 0.224, 0.225]
    )[:, None, None]
    with torch.no_grad():
        expected = [original.eval().features[: number + 1](x) for number in (0, 3)]
        torch.testing.assert_close(comparator.layers(images), expected)
    images.requires_grad_()
    comparator.layers(images)[1].sum().backward()
    assert images.grad is not None
    assert all(weight.grad is None for weight in comparator.parameters())
    assert comparator.specification(1)["init_args"]["weights"] is None


def test_small_images_are_enlarged() -> None:
    comparator = TorchvisionComparator((3, 8, 8), "mobilenet_v3_small", None, NODES, shorter_side=64)
    assert comparator.layer_shapes() == [(16, 32, 32), (24, 8, 8)]


def test_what_it_cannot_take_is_said() -> None:
    with pytest.raises(ValueError, match=r"mobilenet_v3_small has no layers \['conv9'\]; it has x, features"):
        TorchvisionComparator((1, 32, 32), "mobilenet_v3_small", None, ["conv9"])
    with pytest.raises(ValueError, match="takes grey or colour images"):
        TorchvisionComparator((2, 32, 32))
    with pytest.raises(ValueError, match=r"alexnet cannot take images of \(1, 8, 8\)"):
        TorchvisionComparator((1, 8, 8), weights=None)
