"""Checkpoint files that a failed save cannot harm."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lit_gen.callbacks.files import write_whole
from lit_gen.models.checkpoint import read_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its target and renames it once it is whole; a plugin of the trainer.

    Lightning's own stages the file in the folder for temporary files, often another and smaller disk, and moves it from
    there, which is no atomic step between disks. Paths with a protocol (``s3://...``) are left to it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: it cannot be written, for want of space say; the checkpoint that was there before is untouched.
        """
        if "://" in str(path) or storage_options is not None:
            return super().save_checkpoint(checkpoint, path, storage_options)

        def write(partial: Path) -> None:
            try:
                torch.save(checkpoint, partial)
            except RuntimeError as error:
                # torch's own writer reports a full disk so, without errno.
                raise OSError(errno.EIO, f"torch could not write the file ({str(error).splitlines()[0]})") from error

        write_whole(Path(path), write)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, location: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint, without running code from it unless ``weights_only=False`` asks for that.

        Raises:
            FileNotFoundError: no such file.
            ValueError: truncated, empty, or no checkpoint.
        """
        if "://" in str(path) or weights_only is False:
            return super().load_checkpoint(path, map_location, weights_only)
        return read_checkpoint(path)
