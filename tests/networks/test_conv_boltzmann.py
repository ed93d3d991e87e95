"""The convolutional machine against enumeration, autograd and its own adjoint."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from lit_gen.inference import binary_states
from lit_gen.networks import ConvBoltzmannLayer


def golden(side: int, stride: int) -> ConvBoltzmannLayer:
    """W = 0.3 sin(1 + flat index over (f, x, y, z)), two filters of 3x3x3, c = (0.05, -0.1), b = -0.1."""
    layer = ConvBoltzmannLayer((1, side, side, side), 2, 3, stride).double()
    with torch.no_grad():
        layer.weight.copy_(0.3 * torch.sin(1 + torch.arange(54, dtype=torch.float64)).view(2, 1, 3, 3, 3))
        layer.hidden_bias.copy_(torch.tensor([0.05, -0.1], dtype=torch.float64))
        layer.visible_bias.fill_(-0.1)
    return layer


@torch.no_grad()
def log_partition(layer: ConvBoltzmannLayer) -> Tensor:
    """By adding up all hidden states."""
    found = []
    for hidden in binary_states(16).view(-1, *layer.hidden_shape).split(8192):
        visible = softplus(layer.field(hidden).flatten(1) + layer.visible_bias).sum(1)
        found.append(hidden.flatten(2).sum(2) @ layer.hidden_bias + visible)
    return torch.logsumexp(torch.cat(found), 0)


@pytest.mark.parametrize(
    ("side", "stride", "log_z", "energy"),
    [(4, 1, 53.765915532, -8.636066047), (5, 2, 93.732915966, -5.948828729)],
)
def test_golden_numbers(side: int, stride: int, log_z: float, energy: float) -> None:
    layer = golden(side, stride)
    assert layer.hidden_shape == (2, 2, 2, 2)
    assert log_partition(layer).item() == pytest.approx(log_z, abs=1e-8)
    visible = (torch.arange(side**3) % 2 == 0).double()
    states = torch.stack([visible, torch.zeros_like(visible)]).view(2, 1, side, side, side)
    assert layer.free_energy(states).tolist() == pytest.approx([energy, -10.902850465], abs=1e-8)


SHAPES = [
    ((1, 30, 30, 30), 6, 2, (13, 13, 13)),
    ((3, 13, 13, 13), 5, 2, (5, 5, 5)),
    ((3, 5, 5, 5), 4, 1, (2, 2, 2)),
    ((1, 12, 10), 4, 2, (5, 4)),
    ((2, 12, 12), 4, 2, (5, 5)),
    ((2, 14, 15), 5, 2, (5, 6)),
    ((1, 9), 3, 3, (3,)),
]


@pytest.mark.parametrize(("shape", "kernel_size", "stride", "places"), SHAPES)
def test_the_field_is_the_adjoint_of_the_convolution(
    shape: tuple, kernel_size: int, stride: int, places: tuple
) -> None:
    torch.manual_seed(0)
    layer = ConvBoltzmannLayer(shape, 3, kernel_size, stride).double()
    assert layer.hidden_shape == (3, *places)
    visible = torch.randn(2, *shape, dtype=torch.float64)
    hidden = torch.randn(2, *layer.hidden_shape, dtype=torch.float64)
    forward = (layer.hidden_input(visible) * hidden).sum()  # hidden biases are zero
    assert layer.field(hidden).shape == visible.shape
    assert forward.item() == pytest.approx((layer.field(hidden) * visible).sum().item(), rel=1e-12)


def test_energies_agree() -> None:
    """exp(-F) is the sum of exp(-E) over the hidden units, and conditionals are its derivatives."""
    torch.manual_seed(0)
    layer = ConvBoltzmannLayer((2, 4, 4), 2, 3).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    visible = torch.rand(3, 2, 4, 4, dtype=torch.float64).round().requires_grad_()
    hidden = binary_states(8).view(-1, 2, 2, 2)
    energies = torch.stack([layer.energy(v.expand(len(hidden), -1, -1, -1), hidden) for v in visible])
    torch.testing.assert_close(-torch.logsumexp(-energies, 1), layer.free_energy(visible), rtol=0, atol=1e-10)
    states = hidden[torch.tensor([3, 77, 200])].clone().requires_grad_()
    by_hidden, by_visible = torch.autograd.grad(layer.energy(visible, states).sum(), (states, visible))
    torch.testing.assert_close(layer.hidden_mean(visible), torch.sigmoid(-by_hidden), rtol=0, atol=1e-10)
    torch.testing.assert_close(layer.visible_mean(states), torch.sigmoid(-by_visible), rtol=0, atol=1e-10)


def test_gibbs_leaves_the_distribution_invariant() -> None:
    torch.manual_seed(0)
    layer = ConvBoltzmannLayer((1, 6), 2, 3, 2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
        states = binary_states(6).float().view(-1, 1, 6)
        exact = torch.softmax(-layer.free_energy(states), 0)
        start = states[torch.multinomial(exact, 40_000, replacement=True)]
        visible = layer.gibbs((start,), 2)[0]
        means = exact @ states.flatten(1)
    torch.testing.assert_close(visible.flatten(1).mean(0), means, rtol=0, atol=0.012)


def test_contrast_has_the_gradient_of_the_textbook() -> None:
    """Statistics of data less those of the model, a mean over places; visible biases divided by the hidden width."""
    torch.manual_seed(0)
    layer = ConvBoltzmannLayer((1, 6, 6), 2, 3).double()
    data, model = torch.rand(2, 3, 1, 6, 6, dtype=torch.float64).round()
    layer.contrast(data, model).backward()
    patches = [part.unfold(2, 3, 1).unfold(3, 3, 1) for part in (data, model)]  # (B, 1, 4, 4, 3, 3)
    products = [
        torch.einsum("bfxy,bcxyij->fcij", layer.hidden_mean(part), patch) / (3 * 16)
        for part, patch in zip((data, model), patches, strict=True)
    ]
    assert layer.weight.grad is not None
    assert layer.visible_bias.grad is not None
    torch.testing.assert_close(layer.weight.grad, products[1] - products[0], rtol=0, atol=1e-12)
    visible = (model - data).mean(0).flatten() / 4
    torch.testing.assert_close(layer.visible_bias.grad, visible, rtol=0, atol=1e-12)


def test_empty_places_say_nothing() -> None:
    torch.manual_seed(0)
    layer = ConvBoltzmannLayer((1, 8, 8), 2, 4, 4).double()  # receptive fields do not overlap
    data = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    data[:, :, 0, 0] = 1
    model = torch.rand(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert layer.occupied(data).flatten().tolist() == [True, False, False, False]
    masked = layer.contrast(data, model, skip_empty=True)
    by_voxel = torch.autograd.grad(masked + layer.visible_energy(model).mean() / 2, model, retain_graph=True)[0]
    assert by_voxel[..., :4, :4].abs().min() > 0
    by_voxel[..., :4, :4] = 0
    assert not by_voxel.any(), "what is masked has exactly no gradient"
    masked.backward()
    assert layer.hidden_bias.grad is not None
    # One place of four is left: the mean over it alone, 4 / (4 - 3) times its share in the mean over all.
    difference = layer.hidden_mean(model)[0, :, 0, 0] - layer.hidden_mean(data)[0, :, 0, 0]
    torch.testing.assert_close(layer.hidden_bias.grad, difference, rtol=0, atol=1e-12)
    assert layer.contrast(torch.zeros_like(data), model.detach(), skip_empty=True).isfinite()


def test_sparsity_moves_hidden_biases_only() -> None:
    torch.manual_seed(0)
    layer = ConvBoltzmannLayer((1, 6, 6), 2, 3).double()
    data = torch.rand(3, 1, 6, 6, dtype=torch.float64).round()
    layer.contrast(data, data, sparsity_target=0.1, sparsity_cost=2.0).backward()
    activity = layer.hidden_mean(data).mean((0, 2, 3))
    expected = {"weight": 0.0, "visible_bias": 0.0, "hidden_bias": 2 * (activity - 0.1)}
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None
        wanted = torch.zeros_like(parameter) + expected[name]
        torch.testing.assert_close(parameter.grad, wanted, rtol=0, atol=1e-12)


def test_visible_biases_start_from_the_data() -> None:
    layer = ConvBoltzmannLayer((1, 3, 3), 2, 3)
    layer.initialize(torch.linspace(0, 1, 9), 98)
    mean = layer.visible_mean(torch.zeros(1, *layer.hidden_shape)).flatten()
    torch.testing.assert_close(mean, (torch.linspace(0, 1, 9) * 98 + 1) / 100)


def test_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match="filters of size 4 do not fit into maps of 3x5"):
        ConvBoltzmannLayer((1, 3, 5), 2, 4)
    with pytest.raises(ValueError, match="must be at least 1, got 0, 3 and 1"):
        ConvBoltzmannLayer((1, 3, 5), 0, 3)
    with pytest.raises(ValueError, match=r"with 1 to 3 sides, got \(1,\)"):
        ConvBoltzmannLayer((1,), 2, 3)
