"""Unpooling, up-convolution, and the published sizes."""

import pytest
import torch
from torch.nn import functional as F

from lit_gen.networks import UpConv, UpConvNetwork, unpool


def test_unpooling_puts_values_at_the_upper_left() -> None:
    x = torch.arange(1.0, 13).view(1, 2, 2, 3)
    y = unpool(x)
    assert y.shape == (1, 2, 4, 6)
    assert torch.equal(y[:, :, ::2, ::2], x)
    assert y.count_nonzero() == 12


@pytest.mark.parametrize("odd", [(False, False), (True, False), (True, True)])
def test_up_convolution_is_unpooling_then_convolution(odd: tuple[bool, bool]) -> None:
    torch.manual_seed(0)
    layer = UpConv(3, 4, odd).double()
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    # A transposed convolution is a convolution with the filters turned by half a turn.
    full = F.conv2d(unpool(x), layer.weight.transpose(0, 1).flip(2, 3), layer.bias, padding=2)
    wanted = full[:, :, : 10 - odd[0], : 8 - odd[1]]
    torch.testing.assert_close(layer(x), wanted, atol=1e-6, rtol=0)


def published(classes: int, side: int) -> UpConvNetwork:
    more = [92], [32]
    image, mask = ([256, 256, 92], [128, 92, 32]) if side == 64 else ([256, 256, 92, *more[0]], [128, 92, 32, *more[1]])
    with torch.device("meta"):
        return UpConvNetwork((classes, 28), (3, side, side), image_channels=image, mask_channels=mask)


def count(network: UpConvNetwork) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_published_numbers_of_parameters() -> None:
    assert count(published(809, 64)) == 31_638_962
    assert count(published(809, 128)) == 31_876_286


def test_more_classes_change_the_first_class_layer_alone() -> None:
    fewer, more = (dict(published(classes, 64).named_parameters()) for classes in (809, 843))
    changed = {name for name in fewer if fewer[name].shape != more[name].shape}
    assert len(changed) == 1
    assert sum(more[name].numel() - fewer[name].numel() for name in changed) == 17_408 == 512 * (843 - 809)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 28, 20), (3, 27, 33)])
def test_any_size(shape: tuple[int, ...]) -> None:
    network = UpConvNetwork((4, 2), shape, 6, 8, [5, 4], [3, 2, 2])
    image, mask = network(torch.rand(2, 4), torch.rand(2, 4), torch.rand(2, 2))
    assert image.shape == mask.shape == (2, *shape)


def test_more_doublings_than_the_image_has_room_for() -> None:
    with pytest.raises(ValueError, match="mask_channels has 5 entries"):
        UpConvNetwork((4, 2), (3, 16, 16), 6, 8, [4], [4] * 5)
