"""Exact sums over all binary states, for machines with one small side."""

from collections.abc import Callable

import torch
from torch import Tensor

MAX_UNITS = 25
"""2^25 states take minutes; every further unit doubles that."""


def binary_states(num_units: int, start: int = 0, stop: int | None = None) -> Tensor:
    """States number ``start`` to ``stop`` of binary units, ``(stop - start, num_units)`` in float64.

    >>> binary_states(2)
    tensor([[0., 0.],
            [0., 1.],
            [1., 0.],
            [1., 1.]], dtype=torch.float64)
    """
    numbers = torch.arange(start, 2**num_units if stop is None else stop)
    places = torch.arange(num_units - 1, -1, -1)
    return ((numbers[:, None] >> places) & 1).double()


@torch.no_grad()
def enumerated_log_partition(log_density: Callable[[Tensor], Tensor], num_units: int, chunk: int = 2**14) -> Tensor:
    """Exact log of the sum of an unnormalised density over all states of binary units.

    Args:
        log_density: ``(N, num_units)`` of zeros and ones in float64 -> ``(N,)`` nats.
        num_units: number of units.
        chunk: states at a time; the memory bound.

    Returns:
        log Z, a float64 scalar.

    Raises:
        ValueError: more units than can be enumerated.
    """
    if num_units > MAX_UNITS:
        raise ValueError(
            f"2^{num_units} states are too many to add up, at most 2^{MAX_UNITS} are; estimate log Z by annealed"
            " importance sampling instead"
        )
    total = torch.tensor(-torch.inf, dtype=torch.float64)
    for start in range(0, 2**num_units, chunk):
        states = binary_states(num_units, start, min(start + chunk, 2**num_units))
        total = torch.logaddexp(total, torch.logsumexp(log_density(states).cpu().double(), 0))
    return total
