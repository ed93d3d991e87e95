"""A Boltzmann machine of several hidden layers as a plain module, with the machines of its greedy pretraining.

Salakhutdinov & Hinton 2009, Deep Boltzmann machines (https://proceedings.mlr.press/v5/salakhutdinov09a.html); centred
gradients: Melchior, Fischer & Wiskott 2016, How to center deep Boltzmann machines
(https://jmlr.org/papers/v17/14-237.html).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from lit_gen.distributions import sample_bernoulli
from lit_gen.networks.boltzmann import State
from lit_gen.networks.visible import VisibleLayer

CONVERGED = 1e-6
"""Mean change of a unit's probability below which the mean field counts as converged."""
LONGEST_MEAN_FIELD = 200
"""Updates after which evaluation takes the mean field as it is."""


class DeepBoltzmannMachine(nn.Module):
    """Binary hidden layers on a visible layer, each connected with its neighbours.

    E(v, h) = energy(v) - scale(v) W_1 h_1 - sum_l h_l W_(l+1) h_(l+1) - sum_l c_l h_l.

    Energies and fields are computed in full precision whatever the autocast. A layer of the greedy pretraining is a
    machine of two layers whose weights are doubled where an input of the whole machine is missing.

    Args:
        visible: the visible units.
        hidden_dims: units of each hidden layer, from the bottom.
        initial_weight_std: weights start from N(0, this squared).
    """

    data_mean: Tensor
    data_variance: Tensor
    knows_data: Tensor

    def __init__(self, visible: VisibleLayer, hidden_dims: Sequence[int], initial_weight_std: float = 0.01) -> None:
        super().__init__()
        self.hidden_dims = tuple(hidden_dims)
        self.visible = visible
        pairs = list(pairwise(self.sizes))
        self.weights = nn.ParameterList(initial_weight_std * torch.randn(pair) for pair in pairs)
        self.biases = nn.ParameterList(torch.zeros(above) for above in hidden_dims)
        # Visible biases of the greedy layers from the second on; the machine's bias is the sum of both.
        self.greedy_biases = nn.ParameterList(torch.zeros(below) for below, _ in pairs[1:])
        # In the checkpoint: annealing starts from the means of the units, and a test has no training images.
        self.register_buffer("data_mean", torch.full((visible.num_units,), 0.5))
        self.register_buffer("data_variance", torch.full((visible.num_units,), 0.25))
        self.register_buffer("knows_data", torch.tensor(False))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of the visible and of each hidden layer."""
        return (self.visible.num_units, *self.hidden_dims)

    @torch.no_grad()
    def initialize(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Fit the visible layer to the data as if there were no weights, and remember the statistics.

        Args:
            mean: of each visible unit, ``(V,)``.
            variance: of each visible unit, ``(V,)``.
            count: number of images they were taken from.
        """
        self.data_mean.copy_(mean)
        self.data_variance.copy_(variance)
        self.visible.initialize(self.data_mean, self.data_variance, count)
        self.knows_data.fill_(True)

    def hidden_biases(self) -> list[Tensor]:
        """c_l of each hidden layer."""
        greedy = [*self.greedy_biases, None]
        return [own if other is None else own + other for own, other in zip(self.biases, greedy, strict=True)]

    def hidden_input(self, number: int, layers: Sequence[Tensor]) -> Tensor:
        """Logits of hidden layer ``number``, from 1, given its neighbours: ``(B, H_number)``, in full precision.

        Args:
            number: of the layer.
            layers: scale(v), h_1, h_2, ...; only those below and above are looked at.
        """
        with torch.autocast(layers[0].device.type, enabled=False):
            inputs = torch.addmm(self.biases[number - 1], layers[number - 1], self.weights[number - 1])
            if number < len(self.hidden_dims):
                inputs = inputs + self.greedy_biases[number - 1] + layers[number + 1] @ self.weights[number].T
            return inputs

    def field(self, hidden: Tensor) -> Tensor:
        """W_1 h_1, what the first hidden layer exerts on the pixels: ``(B, H_1) -> (B, V)``, in full precision."""
        with torch.autocast(hidden.device.type, enabled=False):
            return hidden @ self.weights[0].T

    def energy(self, state: State) -> Tensor:
        """E(v, h_1, h_2, ...), ``(B,)`` nats."""
        visible, *hidden = state
        with torch.autocast(visible.device.type, enabled=False):
            total = self.visible.energy(visible)
            below = self.visible.scale(visible)
            for weight, bias, above in zip(self.weights, self.hidden_biases(), hidden, strict=True):
                total = total - (torch.addmm(bias, below, weight) * above).sum(1)
                below = above
            return total

    def model_energy(self, state: State) -> Tensor:
        """-log of the sum of exp(-E) over the first, third, ... hidden layer, which makes its statistics exact."""
        visible, *hidden = state
        with torch.autocast(visible.device.type, enabled=False):
            layers = [self.visible.scale(visible), *hidden]
            total = self.visible.energy(visible)
            biases = self.hidden_biases()
            for number in self.odd:
                total = total - softplus(self.hidden_input(number, layers)).sum(1)
            for number in self.even:
                total = total - layers[number] @ biases[number - 1]
            return total

    @property
    def odd(self) -> range:
        """Numbers of the hidden layers whose neighbours are the pixels and the :attr:`even` layers."""
        return range(1, len(self.hidden_dims) + 1, 2)

    @property
    def even(self) -> range:
        return range(2, len(self.hidden_dims) + 1, 2)

    # ---- the posterior

    @torch.no_grad()
    def mean_field(self, visible: Tensor, steps: int = LONGEST_MEAN_FIELD, tolerance: float = CONVERGED) -> State:
        """The factorial posterior nearest to p(h given v), layer by layer until nothing changes.

        Args:
            visible: ``(B, V)``.
            steps: most updates of all layers.
            tolerance: mean change of a probability at which to stop.

        Returns:
            q(h_l = 1) of each hidden layer, ``(B, H_l)``.
        """
        layers = self.bottom_up(self.visible.scale(visible), sample=False)
        for _ in range(steps):
            change = torch.zeros((), device=visible.device)
            for number in range(1, len(layers)):
                new = torch.sigmoid(self.hidden_input(number, layers))
                change = torch.maximum(change, (new - layers[number]).abs().mean())
                layers[number] = new
            if len(layers) == 2 or change < tolerance:
                break
        return tuple(layers[1:])

    @torch.no_grad()
    def bottom_up(self, visible: Tensor, sample: bool, stop: int | None = None) -> list[Tensor]:
        """One pass upwards with doubled inputs, which stand for those from above; the top layer has none to miss.

        Args:
            visible: ``(B, V)``, scaled.
            sample: whether layers are drawn, or probabilities.
            stop: number of the layer to end with; None: the top.

        Returns:
            ``visible`` and the layers above it.
        """
        layers = [visible]
        for number in range(1, (len(self.hidden_dims) if stop is None else stop) + 1):
            probabilities = torch.sigmoid(self.doubled(number) * self.greedy_input(number, layers[-1]))
            layers.append(sample_bernoulli(probabilities) if sample else probabilities)
        return layers

    def variational_free_energy(self, visible: Tensor, posterior: Sequence[Tensor]) -> Tensor:
        """E_q[E(v, h)] - H(q), which is at least the free energy: ``(B,)`` nats.

        Args:
            visible: ``(B, V)``.
            posterior: q(h_l = 1) of each hidden layer, ``(B, H_l)``.
        """
        entropy = sum((torch.special.entr(part) + torch.special.entr(1 - part)).sum(1) for part in posterior)
        return self.energy((visible, *posterior)) - entropy

    # ---- Gibbs sampling

    def sweep(self, state: State) -> State:
        """The odd layers given the rest, then the pixels and the even layers; odd ones of the state do not matter."""
        layers = [self.visible.scale(state[0]), *state[1:]]
        for number in self.odd:
            layers[number] = sample_bernoulli(torch.sigmoid(self.hidden_input(number, layers)))
        for number in self.even:
            layers[number] = sample_bernoulli(torch.sigmoid(self.hidden_input(number, layers)))
        return self.visible.sample(self.visible.natural(self.field(layers[1]))), *layers[1:]

    def noise(self, num_chains: int) -> State:
        """States of independent units, the pixels with about the means of the data: where sampling starts."""
        visible = self.visible.sample(tuple(eta.expand(num_chains, -1) for eta in self.base))
        return (visible, *(sample_bernoulli(visible.new_full((num_chains, units), 0.5)) for units in self.hidden_dims))

    @property
    def base(self) -> tuple[Tensor, ...]:
        """Natural parameters of independent pixels with about the means of the data."""
        return self.visible.base(self.data_mean, self.data_variance)

    def visible_mean(self, hidden: Tensor) -> Tensor:
        """E[v given h_1]: ``(B, H_1) -> (B, V)``."""
        return self.visible.mean(self.visible.natural(self.field(hidden)))

    # ---- greedy layers

    def doubled(self, number: int) -> int:
        """Factor of the input from below in greedy layer ``number``, where that from above is missing; 1 at the top."""
        return 2 if number < len(self.hidden_dims) else 1

    def greedy_input(self, number: int, below: Tensor) -> Tensor:
        """c + W' x of greedy layer ``number``, without the doubling."""
        with torch.autocast(below.device.type, enabled=False):
            return torch.addmm(self.biases[number - 1], below, self.weights[number - 1])

    def greedy_energy(self, number: int, below: Tensor) -> Tensor:
        """The function of ``(B, units)`` below whose gradient is the learning rule of the doubled machine, nats."""
        factor = self.doubled(number)
        if number == 1:
            bias, scaled = self.visible.energy(below), self.visible.scale(below)
        else:
            bias, scaled = -(below @ self.greedy_biases[number - 2]), below
        return bias - softplus(factor * self.greedy_input(number, scaled)).sum(1) / factor

    @torch.no_grad()
    def greedy_sweep(self, number: int, below: Tensor) -> Tensor:
        """A step of Gibbs sampling of greedy layer ``number``: ``(B, units)`` below to the same shape."""
        scaled = self.visible.scale(below) if number == 1 else below
        hidden = sample_bernoulli(torch.sigmoid(self.doubled(number) * self.greedy_input(number, scaled)))
        with torch.autocast(below.device.type, enabled=False):
            field = hidden @ self.weights[number - 1].T
        if number == 1:
            return self.visible.sample(self.visible.natural(field))
        return sample_bernoulli(torch.sigmoid(2 * (self.greedy_biases[number - 2] + field)))

    # ---- training

    @torch.no_grad()
    def centre_gradients(self, centres: Sequence[Tensor]) -> None:
        """Turn the gradient into that of the same machine written with centred units (Melchior et al. 2016, eq. 12 ff).

        The energy stays as it is: centring is a change of coordinates, and in these a plain step learns.

        Args:
            centres: of the visible and of each hidden layer, ``(V,)`` and ``(H_l,)``.
        """
        biases = [gradient(self.visible.get_parameter("bias")), *(gradient(bias) for bias in self.biases)]
        shifts = [torch.zeros_like(bias) for bias in biases]
        for number, weight in enumerate(self.weights):
            below, above = centres[number : number + 2]
            change = gradient(weight)
            change -= torch.outer(below, biases[number + 1]) + torch.outer(biases[number], above)
            with torch.autocast(change.device.type, enabled=False):  # a training step calls this under autocast
                shifts[number] += change @ above
                shifts[number + 1] += below @ change
        for bias, shift in zip(biases, shifts, strict=True):
            bias -= shift


def gradient(parameter: nn.Parameter) -> Tensor:
    """Its gradient, which must be there."""
    assert parameter.grad is not None
    return parameter.grad
