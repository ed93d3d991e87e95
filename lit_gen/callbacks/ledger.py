"""Results that outlive the process that measured them, kept under the name of what was measured."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lit_gen.callbacks.files import write_whole
from lit_gen.models.base import LitGenModule
from lit_gen.models.checkpoint import plain


def digest(*parts: Any) -> str:
    """The same for equal strings, numbers, dicts and tensors, on every machine and in every process."""
    found = hashlib.blake2b(digest_size=16)

    def tensor(part: Tensor) -> str:
        content = part.detach().cpu().contiguous().flatten()
        return f"{part.dtype} {tuple(part.shape)} {hashlib.blake2b(content.view(torch.uint8).numpy()).hexdigest()}"

    for part in parts:
        found.update(json.dumps(apply_to_collection(part, Tensor, tensor), sort_keys=True, default=repr).encode())
    return found.hexdigest()


def model_digest(module: LitGenModule) -> str:
    """Of class, hyper-parameters and the weights as they are now: averaged ones, if they are swapped in."""
    name = f"{type(module).__module__}.{type(module).__qualname__}"
    return digest(name, plain(dict(module.hparams), strict=False), dict(module.state_dict()))


class Ledger:
    """Rows of numbers, image after image, in one small file for each batch.

    A file that was written for another model, other options or other images is not read: its name is a digest of all
    of these. What is asked for under the same ones is taken from it, and only the rest is measured.

    Args:
        folder: of the files, or None, to keep nothing.
        identity: what was measured, and how; a file ``measured.json`` tells it to a reader.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, Any]) -> None:
        self.identity = dict(identity)
        self.folder = None if folder is None else folder / digest(self.identity)

    def read(self, batch: Any) -> Tensor | None:
        """The rows ``(n, columns)`` of the first n images of a batch, float64; None where there are none.

        Args:
            batch: plain values that tell the batch, its pixels too, from any other.
        """
        if self.folder is None or not self._path(batch).is_file():
            return None
        return torch.load(self._path(batch), weights_only=True)

    def write(self, batch: Any, rows: Tensor) -> None:
        """Keep the rows of the first images of a batch, in place of fewer."""
        if self.folder is None:
            return
        described = self.folder / "measured.json"
        if not described.is_file():
            text = json.dumps(self.identity, indent=2) + "\n"
            write_whole(described, lambda path: Path(path).write_text(text))
        write_whole(self._path(batch), lambda path: torch.save(rows, path))

    def _path(self, batch: Any) -> Path:
        assert self.folder is not None
        return self.folder / f"{digest(batch)}.pt"
