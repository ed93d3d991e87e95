"""Files that are whole or not there at all."""

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file beside ``path`` and put it in place once it is whole.

    A failure, a full disk or a kill at any moment leave the file that was there before as it was.

    Args:
        path: where the file shall be; missing folders are made.
        write: writes the file whose path it is given.

    Raises:
        OSError: the file cannot be written; names it and the reason.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut may leave an empty file under the final name
        os.replace(partial, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> OSError:
    """The error a user reads: which file, why, and what to do."""
    reason = error.strerror or str(error)
    return OSError(error.errno, f"cannot write {str(path)!r}: {reason}; free some space or choose another folder")
