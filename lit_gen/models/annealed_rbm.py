"""The partition function of a restricted Boltzmann machine, exact or by annealing."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lit_gen.distributions import sample_bernoulli
from lit_gen.inference import enumerated_log_partition
from lit_gen.models.negative_phase import RestartablePath
from lit_gen.networks import BernoulliVisible, BoltzmannLayer, State


def exact_log_partition(machine: BoltzmannLayer) -> Tensor:
    """log Z by adding up all states of the hidden units, or of the visible ones if these are fewer and binary.

    Args:
        machine: the machine.

    Returns:
        A float64 scalar, nats, at the precision of the parameters.

    Raises:
        ValueError: more than 25 units on the smaller side.
    """
    if isinstance(machine.visible, BernoulliVisible) and machine.visible.num_units < machine.num_hidden:
        return enumerated_log_partition(
            lambda states: -machine.free_energy(states.to(machine.weight)), machine.visible.num_units
        )
    return enumerated_log_partition(
        lambda states: machine.hidden_log_density(states.to(machine.weight)), machine.num_hidden
    )


class AnnealedRBM(RestartablePath):
    """From independent pixels with about the means of the data to the machine (Salakhutdinov & Murray 2008).

    log f_beta(v) = (1 - beta) eta_0 T(v) - beta energy(v) + sum_j softplus(beta a_j(v)), with a the input of the hidden
    units. A state is (v, a).

    Args:
        machine: the machine; its parameters must not change meanwhile.
    """

    def __init__(self, machine: BoltzmannLayer) -> None:
        self.machine = machine
        self.base = machine.visible.base(machine.data_mean, machine.data_variance)

    def state(self, visible: Tensor) -> State:
        return visible, self.machine.hidden_input(visible)

    @property
    def log_partition_base(self) -> Tensor:
        free_units = self.machine.num_hidden * torch.log(torch.tensor(2.0, dtype=torch.float64))
        return self.machine.visible.log_normalizer(self.base).cpu().double() + free_units

    def sample_base(self, num_chains: int) -> State:
        return self.state(self.machine.noise(num_chains)[0])

    def log_ratio(self, state: State, beta: float, next_beta: float) -> Tensor:
        visible, inputs = state
        statistics = self.machine.visible.statistics(visible)
        base = torch.stack([(eta * part).sum(1) for eta, part in zip(self.base, statistics, strict=True)]).sum(0)
        # Unit by unit: the difference of two sums of hundreds of units would lose digits.
        hidden = (softplus(next_beta * inputs) - softplus(beta * inputs)).sum(1)
        return hidden - (next_beta - beta) * (base + self.machine.visible_energy(visible))

    def transition(self, state: State, beta: float) -> State:
        hidden = sample_bernoulli(torch.sigmoid(beta * state[1]))
        target = self.machine.visible.natural(self.machine.field(hidden))
        between = tuple(torch.lerp(start, end, beta) for start, end in zip(self.base, target, strict=True))
        return self.state(self.machine.visible.sample(between))
