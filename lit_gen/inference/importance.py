"""The k-sample lower bound on log p(x), streamed in chunks (Burda et al. 2015, equation 8)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def importance_bound(
    log_weights: Callable[[int], Tensor], num_samples: int, batch_size: int, max_rows: int = 1000
) -> Tensor:
    r"""Estimate :math:`\log \frac1k \sum_i w_i` for a whole batch with bounded memory.

    Args:
        log_weights: draws ``n`` posterior samples for every image and gives log w, ``(n, B)`` in nats.
        num_samples: k.
        batch_size: B.
        max_rows: largest number of decoded images at a time; the memory bound.

    Returns:
        ``(B,)`` nats: one draw of the bound; its expectation rises with k towards log p(x).

    Raises:
        ValueError: k is below 1.
    """
    if num_samples < 1:
        raise ValueError(f"the importance-weighted bound needs at least 1 sample, got {num_samples}")
    chunk = max(1, max_rows // batch_size)
    total: Tensor | None = None
    done = 0
    while done < num_samples:
        size = min(chunk, num_samples - done)
        part = torch.logsumexp(log_weights(size).float(), 0)
        total = part if total is None else torch.logaddexp(total, part)
        done += size
    assert total is not None
    return total - math.log(num_samples)
