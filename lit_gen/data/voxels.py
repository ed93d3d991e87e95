"""Voxel grids in memory, one bit a voxel."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from lit_gen.data.loader import InMemory


class PackedVoxels(InMemory):
    """Binary voxel grids, eight voxels a byte: ten thousand of 30x30x30 take 34 MB, and an eighth of the bandwidth.

    Args:
        packed: uint8 ``(N, ceil(D H W / 8))``, as :func:`pack` gives it.
        shape: ``(D, H, W)``.
    """

    def __init__(self, packed: Tensor, shape: Sequence[int]) -> None:
        width = math.ceil(math.prod(shape) / 8)
        if packed.dtype != torch.uint8 or packed.ndim != 2 or packed.shape[1] != width:
            raise ValueError(
                f"voxels of {tuple(shape)} must be uint8 (N, {width}), eight to a byte; got {packed.dtype}"
                f" {tuple(packed.shape)}"
            )
        self.packed = packed
        self.shape = tuple(shape)

    def __len__(self) -> int:
        return len(self.packed)

    @property
    def device(self) -> torch.device:
        return self.packed.device

    @property
    def nbytes(self) -> int:
        return self.packed.nbytes

    def take(self, indices: Tensor) -> "PackedVoxels":
        return PackedVoxels(self.packed[indices], self.shape)

    def to(self, device: torch.device) -> "PackedVoxels":
        return PackedVoxels(self.packed.to(device), self.shape)

    def fetch(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        # The eight voxels of each byte, looked up: four times as fast as shifting bits.
        table = 255 * torch.from_numpy(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)).to(self.device)
        for indices in batches:
            voxels = table.index_select(0, self.packed[indices].flatten().int()).view(len(indices), -1)
            yield voxels[:, : math.prod(self.shape)].reshape(-1, 1, *self.shape)


def pack(voxels: np.ndarray) -> np.ndarray:
    """Grids ``(N, D, H, W)`` of bool as uint8 ``(N, ceil(D H W / 8))``, the first voxel in the highest bit."""
    return np.packbits(voxels.reshape(len(voxels), -1), axis=1)


def padding(size: int) -> int:
    """Empty voxels on each side of a grid of ``size``: 3 of 30 (Wu et al. 2015), a tenth of others.

    Raises:
        ValueError: nothing would be left to hold a shape.
    """
    if size < 8:
        raise ValueError(f"size must be at least 8 voxels, for a shape to be seen; got {size}")
    return size // 10


def chosen_classes(classes: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """The classes in the order of their targets: those asked for, or all.

    Raises:
        ValueError: an unknown class, or one that is named twice.
    """
    chosen = tuple(known if classes is None else classes)
    unknown = sorted(set(chosen) - set(known))
    if unknown or not chosen or len(set(chosen)) < len(chosen):
        wrong = f"{', '.join(unknown)} is unknown" if unknown else f"got {list(chosen)}"
        raise ValueError(f"classes must be different ones of {', '.join(known)}; {wrong}")
    return chosen
