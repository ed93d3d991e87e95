"""Importance-weighted bounds (Burda, Grosse & Salakhutdinov 2015, https://arxiv.org/abs/1509.00519)."""

import math

import torch
from torch import Tensor


def log_mean_exp(log_weights: Tensor, dim: int = 0) -> Tensor:
    """log of the mean (not the mean of the log) of importance weights, without overflow.

    Example:
        >>> log_mean_exp(torch.tensor([[1000.0], [1000.0]]))
        tensor([1000.])

    Args:
        log_weights: log w, in nats, with samples along ``dim``.
        dim: the axis of samples.
    """
    return torch.logsumexp(log_weights, dim) - math.log(log_weights.shape[dim])
