"""Laplacian pyramids give their image back, and the networks of the levels have the published sizes."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from lit_gen.networks import (
    ClassPlane,
    CoarseDiscriminator,
    CoarseGenerator,
    PlaneDiscriminator,
    PlaneGenerator,
    Shape,
)
from lit_gen.networks.laplacian import collapse_pyramid, default_sizes, laplacian_pyramid, resize

PYRAMIDS = [[32, 16, 8], [28, 14, 8], [96, 64, 32, 16, 8], [64, 32, 16, 8, 4]]


def squares(sides: list[int]) -> list[tuple[int, int]]:
    return [(side, side) for side in sides]


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("sides", PYRAMIDS)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_a_pyramid_gives_its_image_back(sides: list[int], dtype: torch.dtype, error: float) -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, sides[0], sides[0], dtype=dtype)
    pyramid = laplacian_pyramid(images, squares(sides))
    assert [part.shape[-1] for part in pyramid] == sides
    assert pyramid[0].abs().max() > 0.1, "residuals of nothing would prove nothing"
    assert (collapse_pyramid(pyramid) - images).abs().max() <= error


@pytest.mark.parametrize("sides", PYRAMIDS)
def test_a_pyramid_is_linear_and_knows_constants(sides: list[int]) -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 2, 1, sides[0], sides[0], dtype=torch.float64)
    apart = [laplacian_pyramid(images, squares(sides)) for images in (first, second)]
    together = laplacian_pyramid(2 * first - 3 * second, squares(sides))
    for one, other, both in zip(*apart, together, strict=True):
        torch.testing.assert_close(2 * one - 3 * other, both, rtol=0, atol=1e-12)
    *residuals, coarsest = laplacian_pyramid(torch.full_like(first, 0.3), squares(sides))
    assert max(residual.abs().max().item() for residual in residuals) <= 1e-12
    torch.testing.assert_close(coarsest, torch.full_like(coarsest, 0.3))


def test_halving_is_the_triangle_filter() -> None:
    row = torch.randn(8, dtype=torch.float64)
    halved = resize(row.expand(1, 1, 8, 8), (8, 4))[0, 0, 0]
    inner = torch.stack([row[2 * n - 1 : 2 * n + 3] @ torch.tensor([1.0, 3, 3, 1]).double() / 8 for n in (1, 2)])
    torch.testing.assert_close(halved[1:3], inner)


def test_networks_have_the_published_sizes() -> None:
    with torch.device("meta"):
        assert count(CoarseGenerator((100,), (3, 8, 8))) == 66_352_192
        assert count(CoarseDiscriminator((3, 8, 8), (1,))) == 2_872_001
        assert count(PlaneGenerator((4, 14, 14), (3, 14, 14))) == count(PlaneGenerator((4, 28, 28), (3, 28, 28)))
        assert count(PlaneGenerator((4, 28, 28), (3, 28, 28))) == 218_179
        assert count(PlaneDiscriminator((3, 14, 14), (1,))) == 107_905
        assert count(PlaneDiscriminator((3, 28, 28), (1,))) == 113_729


def test_weights_start_as_published() -> None:
    torch.manual_seed(0)
    networks = (CoarseGenerator((100,), (3, 8, 8), [500, 500]), 0.05), (CoarseDiscriminator((3, 8, 8), (1,)), 0.005)
    for network, expected in networks:
        weights = torch.cat([part.flatten() for part in network.parameters() if part.ndim > 1])
        assert weights.std().item() == pytest.approx(expected, rel=0.01)
        assert all(part.abs().max() == 0 for part in network.parameters() if part.ndim == 1)


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 8, 8), (3, 9, 12), (3, 28, 20), (2, 5, 64)])
def test_any_size_and_any_channels(shape: Shape) -> None:
    channels, *size = shape
    assert PlaneGenerator((channels + 1, *size), shape, [4, 4])(torch.randn(2, channels + 1, *size)).shape == (
        2,
        *shape,
    )
    discriminator = PlaneDiscriminator(shape, (1,), 4, dropout=0)
    images = torch.randn(3, *shape, requires_grad=True)
    logits = discriminator(images)
    assert logits.shape == (3, 1)
    logits.sum().backward()
    assert images.grad is not None
    assert images.grad[..., size[0] // 2, size[1] // 2].abs().min() > 0


def test_default_sizes_grow_to_the_image() -> None:
    for side in range(1, 130):
        sizes = default_sizes(side)
        assert sizes[-1] == side
        assert all(1.3 <= large / small <= 2 for small, large in pairwise(sizes)), sizes
        assert sizes[0] <= 12, sizes


def test_the_plane_of_the_class_is_learned() -> None:
    torch.manual_seed(0)
    network = ClassPlane((2 + 3, 8, 8), (1, 8, 8), 3, PlaneGenerator)
    assert count(network) == count(PlaneGenerator((3, 8, 8), (1, 8, 8))) + 64 * 4
    planes, classes = torch.randn(3, 2, 8, 8), torch.eye(3)
    output = network(torch.cat([planes, classes[:, :, None, None].expand(-1, -1, 8, 8)], 1))
    plane = torch.relu(network.plane.weight.T + network.plane.bias).view(3, 1, 8, 8)
    torch.testing.assert_close(output, network.network(torch.cat([planes, plane], 1)))


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"kernel_sizes must be odd, one more than channels .*, got \[7, 6\]"):
        PlaneGenerator((2, 8, 8), (1, 8, 8), [4], [7, 6])
    with pytest.raises(ValueError, match="keeps height and width"):
        PlaneGenerator((2, 8, 8), (1, 4, 4))
    with pytest.raises(ValueError, match="last_activation must be sigmoid or relu, got 'tanh'"):
        CoarseGenerator((4,), (1, 8, 8), [4], "tanh")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="hidden_dims must name at least one layer"):
        CoarseDiscriminator((1, 8, 8), (1,), [])
