"""Negative phases: where the states come from by which an energy model knows what it believes."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import torch

from lit_gen.networks import Recorded, State


class Machine(Protocol):
    """What a negative phase needs: an energy model, or a layer of a stack of machines."""

    def gibbs(self, state: State, steps: int) -> State:
        """The state after ``steps`` sweeps over all units, without gradient."""


class NegativePhase(Recorded, ABC):
    """Draws (about) from the model, for the second term of the gradient.

    A subclass whose draws depend on more than :attr:`chains` overrides :meth:`state` and :meth:`load_state`, which
    checkpoints call in every process, and one that learns from the gradient :meth:`on_gradient`.

    Args:
        steps: Gibbs steps in each training step.
    """

    def __init__(self, steps: int = 1) -> None:
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        self.steps = steps
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

    def on_gradient(self, machine: Machine) -> None:
        """Called before each step of the optimizer, when the parameters hold the gradient of the loss."""

    def state(self) -> dict[str, Any]:
        """What outlives a training step, made of tensors; empty if nothing does."""
        return {} if self.chains is None else {"chains": list(self.chains)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self.chains = tuple(state["chains"]) if "chains" in state else None


class ContrastiveDivergence(NegativePhase):
    """CD-k: ``steps`` Gibbs steps from the batch itself (Hinton 2002)."""

    def __call__(self, machine: Machine, data: State, keep: bool) -> State:
        return machine.gibbs(data, self.steps)


class PersistentContrastiveDivergence(NegativePhase):
    """PCD: chains that go on from one training step to the next (Tieleman 2008; Younes 1989).

    They begin at images of the first batch, are stored in checkpoints for each process, and go on exactly when resumed.

    Args:
        steps: Gibbs steps in each training step.
        num_chains: chains of each process.
    """

    def __init__(self, steps: int = 1, num_chains: int = 100) -> None:
        super().__init__(steps)
        if num_chains < 1:
            raise ValueError(f"num_chains must be at least 1, got {num_chains}")
        self.num_chains = num_chains

    def __call__(self, machine: Machine, data: State, keep: bool) -> State:
        if self.chains is None:
            chosen = torch.arange(self.num_chains, device=data[0].device) % len(data[0])
            chains: State = tuple(part[chosen] for part in data)
        else:
            chains = tuple(part.to(data[0]) for part in self.chains)
        chains = machine.gibbs(chains, self.steps)
        if keep:
            self.chains = chains
        return chains


NegativePhaseFactory = Callable[[], NegativePhase]
