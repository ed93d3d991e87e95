"""One restricted Boltzmann machine as a plain module: an RBM is one, a deep belief net a stack of them.

Smolensky 1986, Information processing in dynamical systems: foundations of harmony theory; Hinton 2010, A practical
guide to training restricted Boltzmann machines.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from lit_gen.distributions import sample_bernoulli
from lit_gen.networks.visible import VisibleLayer

State = tuple[Tensor, ...]
"""(v, h, ...): visible units first, each ``(B, units)``."""


class BipartiteLayer(nn.Module):
    """Binary hidden units that are independent given the visible ones, and these given them.

    A subclass gives :meth:`hidden_input`, :meth:`visible_energy` and :meth:`sample_visible`. Visible and hidden units
    may have any shape behind the batch.
    """

    def hidden_input(self, visible: Tensor) -> Tensor:
        """The logits of p(h = 1 given v), biases included."""
        raise NotImplementedError(f"{type(self).__name__} must define hidden_input")

    def visible_energy(self, visible: Tensor) -> Tensor:
        """E(v, 0), ``(B,)`` nats."""
        raise NotImplementedError(f"{type(self).__name__} must define visible_energy")

    def sample_visible(self, hidden: Tensor) -> Tensor:
        """A draw of v given h."""
        raise NotImplementedError(f"{type(self).__name__} must define sample_visible")

    def energy(self, visible: Tensor, hidden: Tensor) -> Tensor:
        """E(v, h), ``(B,)`` nats."""
        return self.visible_energy(visible) - (self.hidden_input(visible) * hidden).flatten(1).sum(1)

    def free_energy(self, visible: Tensor) -> Tensor:
        """-log of the sum over h of exp(-E(v, h)), ``(B,)`` nats."""
        return self.visible_energy(visible) - softplus(self.hidden_input(visible)).flatten(1).sum(1)

    def hidden_mean(self, visible: Tensor) -> Tensor:
        """p(h = 1 given v)."""
        return torch.sigmoid(self.hidden_input(visible))

    def sample_hidden(self, visible: Tensor) -> Tensor:
        """A draw of h given v."""
        return sample_bernoulli(self.hidden_mean(visible))

    def sweep(self, state: State) -> State:
        """h given v, then v given h: (v, h); only the visible units of the state matter."""
        hidden = self.sample_hidden(state[0])
        return self.sample_visible(hidden), hidden

    @torch.no_grad()
    def gibbs(self, state: State, steps: int) -> State:
        """The state after ``steps`` sweeps."""
        for _ in range(steps):
            state = self.sweep(state)
        return state


class BoltzmannLayer(BipartiteLayer):
    """Binary hidden units on a visible layer: E(v, h) = energy(v) - scale(v) W h - c h.

    Energies and fields are computed in full precision whatever the autocast: under bf16 they would be nats off.

    Centred, the same machines are written with other parameters, in which a plain gradient step learns better
    (Montavon & Mueller 2012, Deep Boltzmann machines and the centering trick; Melchior, Fischer & Wiskott 2016, How to
    center deep Boltzmann machines): with offsets m and l,
    E(v, h) = energy(v) - (scale(v) - m) W (h - l) - c h, up to the constant m W l.

    Args:
        visible: the visible units.
        num_hidden: number of hidden units.
        initial_weight_std: weights start from N(0, this squared).
        centered: use the offsets, which :meth:`move_offsets` sets.
    """

    visible_offset: Tensor
    hidden_offset: Tensor
    data_mean: Tensor
    data_variance: Tensor
    knows_data: Tensor

    def __init__(
        self, visible: VisibleLayer, num_hidden: int, initial_weight_std: float = 0.01, centered: bool = False
    ) -> None:
        super().__init__()
        if num_hidden < 1:
            raise ValueError(f"num_hidden must be at least 1, got {num_hidden}")
        if initial_weight_std < 0:
            raise ValueError(f"initial_weight_std must not be negative, got {initial_weight_std}")
        self.num_hidden = num_hidden
        self.centered = centered
        self.visible = visible
        self.weight = nn.Parameter(initial_weight_std * torch.randn(visible.num_units, num_hidden))
        self.hidden_bias = nn.Parameter(torch.zeros(num_hidden))
        self.register_buffer("visible_offset", torch.zeros(visible.num_units))
        self.register_buffer("hidden_offset", torch.zeros(num_hidden))
        # In the checkpoint: annealing starts from the means of the units, and a test has no training images.
        self.register_buffer("data_mean", torch.full((visible.num_units,), 0.5))
        self.register_buffer("data_variance", torch.full((visible.num_units,), 0.25))
        self.register_buffer("knows_data", torch.tensor(False))

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

    @torch.no_grad()
    def move_offsets(self, visible: Tensor, hidden: Tensor, rate: float = 1.0) -> None:
        """Move the offsets towards means of scale(v) and h, the biases with them: the distribution stays what it is.

        Args:
            visible: ``(V,)``.
            hidden: ``(H,)``.
            rate: 1 moves them all the way.

        Raises:
            ValueError: the layer is not centred.
        """
        if not self.centered:
            raise ValueError("this layer has no offsets to move; build it with centered=True")
        visible_step = rate * (visible - self.visible_offset)
        hidden_step = rate * (hidden - self.hidden_offset)
        with torch.autocast(visible.device.type, enabled=False):  # a training step calls this under autocast
            self.hidden_bias.add_(visible_step @ self.weight)
            self.visible.absorb(self.weight @ hidden_step)
        self.visible_offset += visible_step
        self.hidden_offset += hidden_step

    def hidden_input(self, visible: Tensor) -> Tensor:
        """c + W' (scale(v) - m), the logits of p(h = 1 given v): ``(B, V) -> (B, H)``."""
        with torch.autocast(visible.device.type, enabled=False):
            return torch.addmm(self.free_hidden_bias(), self.visible.scale(visible), self.weight)

    def free_hidden_bias(self) -> Tensor:
        """c - W' m, the bias of the hidden units were the machine written without offsets: ``(H,)``."""
        return self.hidden_bias - self.visible_offset @ self.weight if self.centered else self.hidden_bias

    def field(self, hidden: Tensor) -> Tensor:
        """W (h - l), what the hidden units exert on the visible ones: ``(B, H) -> (B, V)``."""
        with torch.autocast(hidden.device.type, enabled=False):
            return (hidden - self.hidden_offset if self.centered else hidden) @ self.weight.T

    def visible_energy(self, visible: Tensor) -> Tensor:
        """E(v, 0): ``(B, V) -> (B,)`` nats."""
        if not self.centered:
            return self.visible.energy(visible)
        with torch.autocast(visible.device.type, enabled=False):
            return self.visible.energy(visible) + self.visible.scale(visible) @ (self.weight @ self.hidden_offset)

    def hidden_log_density(self, hidden: Tensor) -> Tensor:
        """log of the sum (or integral) over v of exp(-E(v, h)): ``(B, H) -> (B,)`` nats."""
        with torch.autocast(hidden.device.type, enabled=False):
            return hidden @ self.free_hidden_bias() + self.visible.log_partition(self.field(hidden))

    def visible_mean(self, hidden: Tensor) -> Tensor:
        """E[v given h]: ``(B, H) -> (B, V)``."""
        return self.visible.mean(self.visible.natural(self.field(hidden)))

    def sample_visible(self, hidden: Tensor) -> Tensor:
        """A draw of v given h: ``(B, H) -> (B, V)``."""
        return self.visible.sample(self.visible.natural(self.field(hidden)))

    def noise(self, num_chains: int) -> State:
        """States of independent visible units with about the means of the data: where sampling starts."""
        base = self.visible.base(self.data_mean, self.data_variance)
        return (self.visible.sample(tuple(eta.expand(num_chains, -1) for eta in base)),)
