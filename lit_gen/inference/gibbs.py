"""Markov chains from any transition that leaves a distribution invariant."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

State = TypeVar("State")


@torch.no_grad()
def run_chain(transition: Callable[[State], State], state: State, steps: int) -> State:
    """The state after ``steps`` transitions.

    Raises:
        ValueError: steps is negative.
    """
    if steps < 0:
        raise ValueError(f"steps must not be negative, got {steps}")
    for _ in range(steps):
        state = transition(state)
    return state


def chain(transition: Callable[[State], State], state: State, steps: int) -> Iterator[State]:
    """The states after each of ``steps`` transitions, in order."""
    for _ in range(steps):
        # Within the loop: a generator must not change the caller's mode between its values.
        with torch.no_grad():
            state = transition(state)
        yield state
