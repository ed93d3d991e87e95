"""The objective of models known up to their partition function.

Hinton 2002, Training products of experts by minimizing contrastive divergence; Tieleman 2008, Training restricted
Boltzmann machines using approximations to the likelihood gradient.
"""

from typing import NamedTuple

from torch import Tensor


class EnergyTerms(NamedTuple):
    """What an energy model says of a batch."""

    loss: Tensor
    """() what training minimises."""
    data_energy: Tensor
    """(B,) energy of the images, nats."""
    model_energy: Tensor
    """(M,) energy of states drawn from the model, nats."""


def energy_difference(data_energy: Tensor, model_energy: Tensor) -> EnergyTerms:
    """Energy of data less that of states of the model, whose gradient is that of -log p(x) when these are exact draws.

    d(-log p)/d theta = E_data[dF/d theta] - E_model[dF/d theta]: the states are constants, so whoever draws them leaves
    no gradient in them. The value is no likelihood and need not fall.

    Args:
        data_energy: ``(B,)`` nats, differentiable.
        model_energy: ``(M,)`` nats, differentiable in the parameters only.
    """
    return EnergyTerms(data_energy.mean() - model_energy.mean(), data_energy, model_energy)
