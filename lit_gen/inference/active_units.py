"""Active units: latent units that tell one image from another.

Burda, Grosse & Salakhutdinov 2015, Importance weighted autoencoders, section 5.2 (https://arxiv.org/abs/1509.00519).
"""

import torch
from torch import Tensor

ACTIVE_VARIANCE = 0.01
"""A latent unit u is active if the variance over images of E_q[u | x] exceeds this."""


def posterior_moments(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Estimates of E_q[u given x] of each image, and the variance by which each is off.

    Args:
        draws: ``(n, B, *latent_shape)``, their expectation that of q(u given x); one, if it is known exactly.

    Returns:
        Two of ``(B, units)``, in float64.
    """
    flat = draws.flatten(2).cpu().double()
    error = flat.var(0) / len(flat) if len(flat) > 1 else torch.zeros_like(flat[0])
    return flat.mean(0), error


def activity(variance: Tensor, error: Tensor) -> Tensor:
    r"""The statistic :math:`A_u = \mathrm{Cov}_x(E_{q(u \mid x)}[u])` of each unit, ``(units,)``, without bias.

    Args:
        variance: over images, of the estimates of E_q[u given x].
        error: mean over images of the variance by which these are off, which adds to the former.
    """
    return (variance - error).clamp(min=0)
