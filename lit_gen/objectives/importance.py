"""The importance-weighted bound of k samples, and surrogates whose gradients are those that estimators of it define.

Burda, Grosse & Salakhutdinov 2015, Importance weighted autoencoders (https://arxiv.org/abs/1509.00519).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

FLOOR = 1e-12
"""Weight of a sample below which it cannot be told from none: far under the rounding of a sum of weights."""


class SampleWeights(NamedTuple):
    """What an estimator says of k samples: the bound, and how much the gradient of each log w counts."""

    bound: Tensor
    """(B,) what training maximises, nats."""
    generative: Tensor
    """(k, B) weights of the gradients in the parameters of p."""
    inference: Tensor
    """(k, B) weights of the gradients in the parameters of q."""


def importance_weighted_bound(log_weights: Tensor, groups: int = 1) -> Tensor:
    r"""The bound :math:`L_k = \log \frac1k \sum_i w_i` (equation 8), averaged over groups of equal size.

    Args:
        log_weights: ``(k, B)``, log p(x, z_i) - log q(z_i given x), nats.
        groups: 1 gives L_k; k gives the evidence lower bound, averaged over k samples.

    Returns:
        ``(B,)`` nats.

    Raises:
        ValueError: samples that groups of equal size cannot share.
    """
    parts = _grouped(log_weights, groups)
    return (torch.logsumexp(parts, 1) - math.log(parts.shape[1])).mean(0)


def normalized_weights(log_weights: Tensor, groups: int = 1) -> Tensor:
    """The derivatives of :func:`importance_weighted_bound` in its log-weights: ``(k, B)``, with sums of 1 over k."""
    return (torch.softmax(_grouped(log_weights, groups), 1) / groups).flatten(0, 1)


def weighted_surrogate(
    log_joint: Tensor, log_posterior: Tensor, latents: Sequence[Tensor], weights: SampleWeights
) -> Tensor:
    """A sum whose gradient counts each sample by its weight, which may differ between the parameters of p and of q.

    Those of q are reached through the samples and through log q, those of p through log p(x, z) alone. What comes back
    from log p(x, z) to a sample was counted by its generative weight, and is counted anew on its way.

    Args:
        log_joint: ``(k, B)``, log p(x, z_i), nats.
        log_posterior: ``(k, B)``, log q(z_i given x), nats.
        latents: the tensors ``(k B, latent)`` that ``log_joint`` was computed from, used nowhere else.
        weights: without gradient.

    Returns:
        ``(B,)``; only its gradient means anything.
    """
    generative, inference = weights.generative, weights.inference
    if inference is not generative:
        generative = generative.clamp(min=FLOOR)
        recount = (inference / generative).flatten()[:, None]
        for latent in latents:
            if latent.requires_grad:
                latent.register_hook(lambda gradient: gradient * recount)
    return (generative * log_joint - inference * log_posterior).sum(0)


def _grouped(log_weights: Tensor, groups: int) -> Tensor:
    if groups < 1 or len(log_weights) % groups:
        raise ValueError(
            f"{len(log_weights)} samples cannot be shared evenly by {groups} groups; take a number of samples that is a"
            " multiple of the number of groups"
        )
    return log_weights.unflatten(0, (groups, -1))
