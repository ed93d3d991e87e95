"""Negative phases: where the states come from by which an energy model knows what it believes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Protocol

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn

from lit_gen.inference import AnnealedPath
from lit_gen.models.schedules import StepSchedule
from lit_gen.networks import Recorded, State


class Machine(Protocol):
    """What a negative phase needs: an energy model, or a layer of a stack of machines."""

    def gibbs(self, state: State, steps: int) -> State:
        """The state after ``steps`` sweeps over all units, without gradient."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters by name."""


class RestartablePath(AnnealedPath[State]):
    """A path to the machine whose states follow from their visible units."""

    @abstractmethod
    def state(self, visible: Tensor) -> State:
        """The state at visible units ``(num_chains, V)``, which come first in it."""


class Tempered(ABC):
    """A machine that can be heated: what :class:`ParallelTempering` needs besides."""

    @abstractmethod
    def annealed_path(self) -> RestartablePath:
        """From independent units to the machine at its parameters of now."""


class NegativePhase(Recorded, ABC):
    """Draws (about) from the model, for the second term of the gradient.

    A subclass whose draws depend on more than :attr:`chains` overrides :meth:`state` and :meth:`load_state`, which
    checkpoints call in every process, and one that learns from the gradient :meth:`on_gradient`.

    Args:
        steps: Gibbs steps in each training step: a number, or a schedule over epochs.
    """

    def __init__(self, steps: int | StepSchedule = 1) -> None:
        self.schedule = steps if isinstance(steps, StepSchedule) else None
        """Steps by epochs, or None."""
        self.steps = steps(0) if isinstance(steps, StepSchedule) else steps
        """Gibbs steps now."""
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        self.chains: State | None = None
        """States that outlive a training step, or None. No buffers: every process has its own, and none is averaged."""

    @abstractmethod
    def __call__(self, machine: Machine, data: State, keep: bool) -> State:
        """States of the model, without gradient.

        Args:
            machine: the model.
            data: state whose visible units are the batch.
            keep: whether the chains move on (in training they do, in evaluation they are left as they are).
        """

    def set_epoch(self, epoch: int) -> None:
        """Take the steps that the schedule has for this epoch, counted from 0."""
        if self.schedule is not None:
            self.steps = self.schedule(epoch)

    def on_gradient(self, machine: Machine) -> None:
        """Called before each step of the optimizer, when the parameters hold the gradient of the loss."""

    def model_chains(self) -> Tensor | None:
        """Visible units ``(chains, V)`` that are about draws from the model, or None."""
        return None if self.chains is None else self.chains[0]

    def values(self) -> dict[str, Tensor]:
        """Scalars to log in training, by name."""
        return {}

    def state(self) -> dict[str, Any]:
        """What outlives a training step, made of tensors; empty if nothing does."""
        return {} if self.chains is None else {"chains": list(self.chains)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave; from ``{}``, begin anew."""
        self.chains = tuple(state["chains"]) if "chains" in state else None


def first(state: State, count: int) -> State:
    """The first ``count`` of the states, from the beginning again if there are fewer."""
    chosen = torch.arange(count, device=state[0].device) % len(state[0])
    return tuple(part[chosen] for part in state)


class ContrastiveDivergence(NegativePhase):
    """CD-k: ``steps`` Gibbs steps from the batch itself (Hinton 2002)."""

    def __call__(self, machine: Machine, data: State, keep: bool) -> State:
        return machine.gibbs(data, self.steps)


class PersistentContrastiveDivergence(NegativePhase):
    """PCD: chains that go on from one training step to the next (Tieleman 2008; Younes 1989).

    They begin at images of the first batch, are stored in checkpoints for each process, and go on exactly when resumed.

    Args:
        steps: Gibbs steps in each training step: a number, or a schedule over epochs.
        num_chains: chains of each process.
    """

    def __init__(self, steps: int | StepSchedule = 1, num_chains: int = 100) -> None:
        super().__init__(steps)
        if num_chains < 1:
            raise ValueError(f"num_chains must be at least 1, got {num_chains}")
        self.num_chains = num_chains

    def __call__(self, machine: Machine, data: State, keep: bool) -> State:
        if self.chains is None:
            chains = first(data, self.num_chains)
        else:
            chains = tuple(part.to(data[0]) for part in self.chains)
        chains = machine.gibbs(chains, self.steps)
        if keep:
            self.chains = chains
        return chains


class FastPersistentContrastiveDivergence(PersistentContrastiveDivergence):
    """PCD whose chains see other weights: fast ones are added, which learn quickly and decay quickly.

    They raise the energy where the chains are and so drive them on, at a learning rate that would by itself be far too
    high.

    Source: Tieleman & Hinton 2009, Using fast weights to improve persistent contrastive divergence.

    Args:
        steps: Gibbs steps in each training step: a number, or a schedule over epochs.
        num_chains: chains of each process.
        fast_lr: learning rate of the fast weights.
        fast_decay: what remains of them after a step.
    """

    def __init__(
        self,
        steps: int | StepSchedule = 1,
        num_chains: int = 100,
        fast_lr: float = 0.01,
        fast_decay: float = 0.95,
    ) -> None:
        super().__init__(steps, num_chains)
        if fast_lr < 0 or not 0 <= fast_decay < 1:
            raise ValueError(
                f"fast_lr must not be negative and fast_decay in [0, 1), got {fast_lr} and {fast_decay}; the authors"
                " take a decay of 19/20"
            )
        self.fast_lr = fast_lr
        self.fast_decay = fast_decay
        self.fast: dict[str, Tensor] = {}
        """Fast weights by the name of their parameter; equal in all processes, as the gradient is."""

    def __call__(self, machine: Machine, data: State, keep: bool) -> State:
        with self._fast_weights(machine):
            return super().__call__(machine, data, keep)

    @contextmanager
    def _fast_weights(self, machine: Machine) -> Iterator[None]:
        changed = [(part, part.data, self.fast[name]) for name, part in machine.named_parameters() if name in self.fast]
        for parameter, slow, fast in changed:
            parameter.data = slow + fast.to(slow)
        try:
            yield
        finally:
            for parameter, slow, _ in changed:
                parameter.data = slow

    @torch.no_grad()
    def on_gradient(self, machine: Machine) -> None:
        for name, parameter in machine.named_parameters():
            if parameter.grad is not None:
                before = self.fast[name].to(parameter) if name in self.fast else torch.zeros_like(parameter)
                # Where the scale of fp16 overflowed the optimizer leaves the step out, and so do the fast weights.
                change = (self.fast_lr * parameter.grad).nan_to_num_(0.0, 0.0, 0.0)
                self.fast[name] = self.fast_decay * before - change

    def state(self) -> dict[str, Any]:
        return {**super().state(), "fast": self.fast}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.fast = dict(state.get("fast", {}))


class ParallelTempering(NegativePhase):
    """Chains at many temperatures that swap states: the hot ones move freely and hand what they find to the cold.

    Temperatures lie on the path of annealed importance sampling, from independent pixels to the machine, so that the
    hottest chain draws afresh in every step. States of the coldest, which is the machine itself, are given to training.
    Logged: ``train/swap_rate``, the running mean of accepted swaps between the two neighbours that swap least; near
    zero, more temperatures are needed.

    Source: Desjardins et al. 2010, Parallel tempering for training of restricted Boltzmann machines; Cho, Raiko & Ilin
    2010, Parallel tempering is efficient for learning restricted Boltzmann machines.

    Args:
        steps: steps in each training step, each a swap of all neighbours and a Gibbs step at every temperature: a
            number, or a schedule over epochs.
        num_chains: chains of each temperature and process.
        num_temperatures: evenly spaced inverse temperatures from 0 to 1, at least 2.
    """

    def __init__(self, steps: int | StepSchedule = 1, num_chains: int = 100, num_temperatures: int = 20) -> None:
        super().__init__(steps)
        if num_chains < 1 or num_temperatures < 2:
            raise ValueError(
                f"num_chains must be at least 1 and num_temperatures at least 2, got {num_chains} and"
                f" {num_temperatures}"
            )
        self.num_chains = num_chains
        self.betas = [step / (num_temperatures - 1) for step in range(num_temperatures)]
        """Inverse temperatures; :attr:`chains` has the visible units of each, in this order."""
        self.swap_rates: Tensor | None = None
        """Running mean of accepted swaps of each pair of neighbours, ``(num_temperatures - 1,)``; None at first."""

    def __call__(self, machine: Machine, data: State, keep: bool) -> State:
        if not isinstance(machine, Tempered):
            raise TypeError(
                f"parallel tempering needs a machine that can be heated, and {type(machine).__name__} is none; use"
                " PersistentContrastiveDivergence, or give it annealed_path"
            )
        visible = self.chains if self.chains is not None else first(data[:1], self.num_chains) * len(self.betas)
        path = machine.annealed_path()
        states = [path.state(part.to(data[0])) for part in visible]
        rates = []
        for step in range(self.steps):
            rates.append(self._swap(path, states))
            states[:-1] = [path.transition(state, beta) for state, beta in zip(states, self.betas[:-1], strict=False)]
            # The coldest is the machine itself: its own Gibbs step gives hidden units too.
            cold = machine.gibbs(states[-1][:1], 1)
            states[-1] = cold if step == self.steps - 1 else path.state(cold[0])
        if keep:
            self.chains = tuple(state[0] for state in states)
            now = torch.stack(rates).mean(0)
            self.swap_rates = now if self.swap_rates is None else 0.99 * self.swap_rates.to(now) + 0.01 * now
        return states[-1]

    def _swap(self, path: RestartablePath, states: list[State]) -> Tensor:
        """Offer each chain a swap with its colder neighbour, in place; which share of each pair did, ``(pairs,)``."""
        rates = []
        for number, (beta, colder) in enumerate(pairwise(self.betas)):
            hot, cold = states[number], states[number + 1]
            accepted = torch.rand_like(hot[0][:, 0]) < swap_probability(path, hot, cold, beta, colder)
            states[number] = tuple(torch.where(accepted[:, None], b, a) for a, b in zip(hot, cold, strict=True))
            states[number + 1] = tuple(torch.where(accepted[:, None], a, b) for a, b in zip(hot, cold, strict=True))
            rates.append(accepted.float().mean())
        return torch.stack(rates)

    def model_chains(self) -> Tensor | None:
        return None if self.chains is None else self.chains[-1]

    def values(self) -> dict[str, Tensor]:
        return {} if self.swap_rates is None else {"swap_rate": self.swap_rates.min()}

    def state(self) -> dict[str, Any]:
        return super().state() if self.swap_rates is None else {**super().state(), "swap_rates": self.swap_rates}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.swap_rates = state.get("swap_rates")


def swap_probability(path: AnnealedPath[State], hot: State, cold: State, beta: float, colder: float) -> Tensor:
    """Metropolis: min(1, f_beta(cold) f_colder(hot) / (f_beta(hot) f_colder(cold))), ``(num_chains,)``.

    Args:
        path: the densities f.
        hot: states at ``beta``.
        cold: states at ``colder``.
        beta: inverse temperature of the hot ones.
        colder: inverse temperature of the cold ones.
    """
    return torch.exp(path.log_ratio(hot, beta, colder) - path.log_ratio(cold, beta, colder)).clamp(max=1)


NegativePhaseFactory = Callable[[], NegativePhase]


def states_of_all_processes(phase: NegativePhase, model: pl.LightningModule) -> list[dict[str, Any]]:
    """What the negative phase of each process must remember, for the checkpoint; every process has to call this."""
    own = move_data_to_device(phase.state(), "cpu")
    gathered = [own]
    if model._trainer is not None and model.trainer.world_size > 1:
        gathered = [own] * model.trainer.world_size
        torch.distributed.all_gather_object(gathered, own)
    return gathered


def load_own_state(phase: NegativePhase, model: pl.LightningModule, gathered: list[dict[str, Any]] | None) -> None:
    """Go on from the part of this process in what :func:`states_of_all_processes` gave, if there is any."""
    if gathered:
        # With more processes than before, some start from equal chains and part at once by their own noise.
        phase.load_state(move_data_to_device(gathered[model.global_rank % len(gathered)], model.device))
