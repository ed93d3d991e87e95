"""Offsets of a machine: other parameters for the same distribution, and the gradient that follows from them."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_gen.inference import ais, binary_states, published_temperatures
from lit_gen.models.annealed_rbm import AnnealedRBM, exact_log_partition
from lit_gen.networks import BernoulliVisible, BoltzmannLayer, CategoricalVisible, GaussianVisible
from lit_gen.networks.softmax import LabelledVisible
from lit_gen.objectives import energy_difference
from tests.toy_rbm import IMAGES, LOG_Z, mean_and_error, toy

LAYERS: dict[str, Any] = {
    "bernoulli": lambda: BernoulliVisible((1, 1, 4)),
    "gaussian": lambda: GaussianVisible((1, 1, 4)),
    "categorical": lambda: CategoricalVisible((1, 1, 2), levels=2),
    "labelled": lambda: LabelledVisible(BernoulliVisible((1, 1, 2)), 2),
}


def centred_toy() -> BoltzmannLayer:
    """The toy machine, ready to be centred."""
    plain = toy().machine
    machine = BoltzmannLayer(plain.visible, 4, centered=True).double()
    machine.load_state_dict(plain.state_dict())
    return machine


def layer(name: str) -> BoltzmannLayer:
    torch.manual_seed(0)
    machine = BoltzmannLayer(LAYERS[name](), 3, 1.0, centered=True).double()
    for parameter in machine.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return machine


def move(machine: BoltzmannLayer) -> None:
    torch.manual_seed(1)
    for rate in (1.0, 0.3):
        size = machine.visible.num_units
        means = torch.rand(size), torch.rand(machine.num_hidden)
        machine.move_offsets(*(mean.to(machine.weight) for mean in means), rate)


def test_moving_the_offsets_changes_no_probability() -> None:
    machine = centred_toy()
    states = [binary_states(10)[:, :6], binary_states(10)[:, 6:]]
    before = machine.energy(states[0], states[1]).detach()
    move(machine)
    assert machine.hidden_offset.min() > 0
    # The constant is left out of the energy, so that for binary pixels even that and log Z stay.
    torch.testing.assert_close(machine.energy(states[0], states[1]), before, rtol=0, atol=1e-12)
    assert exact_log_partition(machine).item() == pytest.approx(LOG_Z, abs=1e-12)
    assert torch.logsumexp(-machine.free_energy(binary_states(6)), 0).item() == pytest.approx(LOG_Z, abs=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_absorbs_what_the_offsets_take(name: str) -> None:
    machine = layer(name)
    if name == "gaussian":
        visible = torch.randn(9, 4, dtype=torch.float64)
    elif name == "labelled":
        pixels, labels = binary_states(2).repeat_interleave(2, 0), torch.eye(2, dtype=torch.float64).repeat(4, 1)
        visible = torch.cat([pixels, labels], 1)
    else:
        visible = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)), dtype=torch.float64)
    hidden = binary_states(3)

    def log_probabilities() -> list[Tensor]:
        log_z = exact_log_partition(machine)
        return [-machine.free_energy(visible) - log_z, machine.hidden_log_density(hidden) - log_z]

    before = [part.detach() for part in log_probabilities()]
    field, mean = machine.hidden_input(visible).detach(), machine.visible_mean(hidden).detach()
    move(machine)
    for ours, theirs in zip(log_probabilities(), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(machine.hidden_input(visible), field, rtol=0, atol=1e-12)
    torch.testing.assert_close(machine.visible_mean(hidden), mean, rtol=0, atol=1e-12)
    joint = -machine.energy(visible[:, None].expand(-1, 8, -1).flatten(0, 1), hidden.repeat(len(visible), 1))
    summed = joint.unflatten(0, (-1, 8)).logsumexp(1)
    torch.testing.assert_close(summed, -machine.free_energy(visible), rtol=0, atol=1e-12)


def test_gradient_is_the_centred_one() -> None:
    """Melchior et al. (2016): <(v - m)(h - l)> of data less that of the model, and plain means for the biases."""
    machine = centred_toy()
    move(machine)
    model = binary_states(6)[[3, 17, 42, 60]]
    energy_difference(machine.free_energy(IMAGES), machine.free_energy(model)).loss.backward()
    statistics = []
    for visible in (IMAGES, model):
        hidden = torch.sigmoid(toy().machine.hidden_input(visible))
        centred = (visible - machine.visible_offset).T @ (hidden - machine.hidden_offset) / len(visible)
        statistics.append((centred, visible.mean(0), hidden.mean(0)))
    expected = [second - first for first, second in zip(*statistics, strict=True)]
    parameters = [machine.weight, machine.visible.get_parameter("bias"), machine.hidden_bias]
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient.detach(), rtol=0, atol=1e-13)


def test_annealing_of_a_centred_machine() -> None:
    machine = centred_toy()
    move(machine)
    weights = ais(AnnealedRBM(machine), published_temperatures(30), 4000).log_weights
    ratio, error = mean_and_error(torch.exp(weights - LOG_Z))
    assert abs(ratio - 1) < 4 * error < 0.1


def test_a_layer_that_is_not_centred_has_no_offsets_to_move() -> None:
    with pytest.raises(ValueError, match="build it with centered=True"):
        toy().machine.move_offsets(torch.zeros(6), torch.zeros(4))


def test_autocast_changes_nothing() -> None:
    """A training step moves the offsets under the autocast of bf16-mixed, and callbacks look at the machine there."""
    machine = centred_toy().float()
    hidden = binary_states(4).float()
    before = [machine.free_energy(IMAGES.float()), machine.hidden_log_density(hidden)]
    with torch.autocast("cpu", torch.bfloat16):
        move(machine)
        after = [machine.free_energy(IMAGES.float()), machine.hidden_log_density(hidden)]
    for ours, theirs in zip(after, before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
