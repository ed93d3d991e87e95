"""Pseudo-likelihood of binary states: each unit predicted from all others.

Besag 1975, Statistical analysis of non-lattice data. Needs no partition function: log p(v_i given the others) is the
log-sigmoid of the free energy that flipping unit i would cost.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

FreeEnergy = Callable[[Tensor], Tensor]
"""``(N, V)`` of zeros and ones -> ``(N,)`` nats."""


@torch.no_grad()
def pseudo_log_likelihood(free_energy: FreeEnergy, states: Tensor, max_rows: int = 10_000) -> Tensor:
    """Sum over all units of log p(v_i given the other units): exact, and V + 1 free energies for each state.

    Args:
        free_energy: of the model.
        states: ``(B, V)`` of zeros and ones.
        max_rows: largest number of states at a time; the memory bound.

    Returns:
        ``(B,)`` nats, in float64. No bound on the log-likelihood in either direction.
    """
    batch, units = states.shape
    now, total = free_energy(states).double(), torch.zeros(batch, dtype=torch.float64, device=states.device)
    for chosen in torch.arange(units, device=states.device).split(max(1, max_rows // batch)):
        flipped = states.repeat(len(chosen), 1, 1)  # (chosen, B, V)
        place = torch.arange(len(chosen), device=states.device)
        flipped[place, :, chosen] = 1 - flipped[place, :, chosen]
        cost = free_energy(flipped.flatten(0, 1)).double().view(len(chosen), batch) - now
        total += logsigmoid(cost).sum(0)
    return total


@torch.no_grad()
def stochastic_pseudo_log_likelihood(free_energy: FreeEnergy, states: Tensor) -> Tensor:
    """An unbiased estimate of :func:`pseudo_log_likelihood` at two free energies for each state.

    V log p(v_i given the other units) of one unit i, drawn for each state by itself.

    Args:
        free_energy: of the model.
        states: ``(B, V)`` of zeros and ones.

    Returns:
        ``(B,)`` nats, in float64.
    """
    batch, units = states.shape
    chosen = torch.randint(units, (batch, 1), device=states.device)
    flipped = states.scatter(1, chosen, 1 - states.gather(1, chosen))
    return units * logsigmoid(free_energy(flipped).double() - free_energy(states).double())
