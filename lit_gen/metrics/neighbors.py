"""Nearest neighbours of features, in float64 and within a memory budget."""

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK_BYTES = 2**26
"""Memory budget of one block of a distance matrix, in bytes; a few temporaries of its size come on top."""


def distance_blocks(rows: Tensor, columns: Tensor, block_bytes: int = BLOCK_BYTES) -> Iterator[Tensor]:
    """Yield the squared Euclidean distances of ``rows`` to ``columns``, a few rows at a time.

    Args:
        rows: ``(N, D)``, float64.
        columns: ``(M, D)``, float64.
        block_bytes: memory budget of a block; a block has at least one row.

    Yields:
        Blocks ``(n, M)`` whose n add up to N, in order.
    """
    rows_per_block = max(1, block_bytes // (columns.element_size() * max(1, len(columns))))
    column_norms = columns.square().sum(dim=1)
    for block in rows.split(rows_per_block):
        norms = block.square().sum(dim=1, keepdim=True) + column_norms
        distances = torch.addmm(norms, block, columns.mT, alpha=-2)
        # |x|² + |y|² - 2 xᵀy of two equal rows is rounding, not zero, but a duplicate lies in a ball of radius zero.
        yield distances.masked_fill_(distances < 1e-13 * norms, 0.0)


def neighbor_distances(features: Tensor, k: int, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """Return the squared distance ``(N,)`` of every row to its k-th nearest neighbour among the other rows.

    Args:
        features: ``(N, D)``, float64, with N above k.
        k: which neighbour, 1 for the nearest.
        block_bytes: memory budget of one block of distances.
    """
    # The nearest "neighbour" of a row is the row itself, at distance zero.
    blocks = [block.kthvalue(k + 1, dim=1).values for block in distance_blocks(features, features, block_bytes)]
    return torch.cat(blocks)
