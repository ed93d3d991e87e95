"""The path along which the partition function of a deep Boltzmann machine is annealed."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lit_gen.distributions import sample_bernoulli
from lit_gen.inference import AnnealedPath
from lit_gen.networks import DeepBoltzmannMachine


class OddLayers(NamedTuple):
    """The odd hidden layers of many chains, and what they exert on their neighbours."""

    layers: dict[int, Tensor]
    """Number of the layer -> its units, (num_chains, H)."""
    own: Tensor
    """(num_chains,) sum of c h over these layers, nats."""
    even: dict[int, Tensor]
    """Number of an even layer -> its inputs, (num_chains, H)."""
    natural: tuple[Tensor, ...]
    """Natural parameters of the pixels, (num_chains, V) each."""
    constant: Tensor
    """(num_chains,) what the sum over the pixels lacks beside the log normalizer, nats; zero for binary pixels."""


class AnnealedDBM(AnnealedPath[OddLayers]):
    """From independent units, the pixels with about the means of the data, to the machine.

    Pixels and even layers are summed out: log f_beta(h_1, h_3, ...) = beta sum_odd c h + sum_even softplus(beta a)
    + A((1 - beta) eta_0 + beta eta(W_1 h_1)).

    Source: Salakhutdinov & Hinton 2009, section 3.2, with another base.

    Args:
        machine: the machine; its parameters must not change meanwhile.
    """

    def __init__(self, machine: DeepBoltzmannMachine) -> None:
        self.machine = machine
        self.base = machine.base
        self.biases = machine.hidden_biases()

    def state(self, odd: Sequence[Tensor]) -> OddLayers:
        """The state at the odd layers, ``(num_chains, H)`` each, from the bottom."""
        machine = self.machine
        units = dict(zip(machine.odd, odd, strict=True))
        with torch.autocast(odd[0].device.type, enabled=False):  # under bf16 the product would be nats off
            own = torch.stack([part @ self.biases[number - 1] for number, part in units.items()]).sum(0)
        layers = [units.get(number, own) for number in range(len(machine.hidden_dims) + 1)]
        field = machine.field(units[1])
        natural = machine.visible.natural(field)
        constant = machine.visible.log_partition(field) - machine.visible.log_normalizer(natural)
        even = {number: machine.hidden_input(number, layers) for number in machine.even}
        return OddLayers(units, own, even, natural, constant)

    def between(self, state: OddLayers, beta: float) -> tuple[Tensor, ...]:
        """Natural parameters of the pixels at ``beta``."""
        return tuple((1 - beta) * start + beta * end for start, end in zip(self.base, state.natural, strict=True))

    def log_density(self, state: OddLayers, beta: float) -> Tensor:
        """log f_beta, ``(num_chains,)`` nats."""
        total = beta * (state.own + state.constant) + self.machine.visible.log_normalizer(self.between(state, beta))
        for inputs in state.even.values():
            total = total + softplus(beta * inputs).sum(1)
        return total

    @property
    def log_partition_base(self) -> Tensor:
        free_units = sum(self.machine.hidden_dims) * torch.log(torch.tensor(2.0, dtype=torch.float64))
        return self.machine.visible.log_normalizer(self.base).cpu().double() + free_units

    def sample_base(self, num_chains: int) -> OddLayers:
        half = self.base[0].new_full((), 0.5)
        sizes = [self.machine.hidden_dims[number - 1] for number in self.machine.odd]
        return self.state([sample_bernoulli(half.expand(num_chains, units)) for units in sizes])

    def log_ratio(self, state: OddLayers, beta: float, next_beta: float) -> Tensor:
        return self.log_density(state, next_beta) - self.log_density(state, beta)

    def transition(self, state: OddLayers, beta: float) -> OddLayers:
        """Pixels and even layers given the odd ones, and these given them."""
        machine = self.machine
        visible = machine.visible.scale(machine.visible.sample(self.between(state, beta)))
        layers = [visible, *state.own.new_zeros(len(machine.hidden_dims), 0)]
        for number, inputs in state.even.items():
            layers[number] = sample_bernoulli(torch.sigmoid(beta * inputs))
        return self.state(
            [sample_bernoulli(torch.sigmoid(beta * machine.hidden_input(number, layers))) for number in machine.odd]
        )
