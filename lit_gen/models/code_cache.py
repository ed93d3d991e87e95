"""Codes that frozen layers give images, kept so that each image is encoded once."""

from collections.abc import Callable
from hashlib import sha256

import torch
from torch import Tensor


class CodeCache:
    """Rows that were computed for images, found again by the voxels or pixels of the images.

    A row is what ``encode`` gave when the image came for the first time: :meth:`clear` when the encoder changes.

    Args:
        limit: bytes of rows to keep; images beyond that are encoded each time.

    Raises:
        ValueError: limit is negative.
    """

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"limit must be a number of bytes, 0 to keep none; got {limit}")
        self.limit = limit
        self.clear()

    def __len__(self) -> int:
        return len(self._rows)

    def clear(self) -> None:
        """Forget all rows."""
        self._rows: dict[bytes, Tensor] = {}
        self._bytes = 0

    def __call__(self, images: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """The codes of images, ``(B, ...)``, without gradient.

        Args:
            images: ``(B, ...)``.
            encode: gives each image its code, whatever the other images of the batch.
        """
        if self.limit == 0:
            return encode(images)
        keys = [sha256(image).digest() for image in images.detach().cpu().contiguous().numpy()]
        missing = [number for number, key in enumerate(keys) if key not in self._rows]
        new = dict(zip(missing, encode(images[missing]))) if missing else {}
        codes = torch.stack([new[number] if number in new else self._rows[key] for number, key in enumerate(keys)])
        for number in missing:
            if self._bytes + codes[number].nbytes <= self.limit and keys[number] not in self._rows:
                self._rows[keys[number]] = codes[number].clone()
                self._bytes += codes[number].nbytes
        return codes
