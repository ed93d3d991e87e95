"""Equal conditions for all contestants of a speed comparison."""

import contextlib
import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

BATCH = 100


def write_random_idx(root: Path, images: int) -> None:
    """Random bytes in the layout of MNIST's four files, for machines without MNIST: pixels do not change the speed."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, count in (("train", images), ("t10k", 100)):
        for kind, shape, high in (("images-idx3", (count, 28, 28), 256), ("labels-idx1", (count,), 10)):
            header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
            data = random.integers(0, high, shape, dtype=np.uint8)
            (folder / f"{part}-{kind}-ubyte").write_bytes(header + data.tobytes())


def readable_root(root: Path, folder: Path, images: int) -> tuple[Path, str]:
    """A root from which torchvision too can read, and what the data there is.

    torchvision reads only files that are not gzipped and would unpack them beside, which may not be allowed.

    Args:
        root: what the user gave.
        folder: an empty folder, for unpacked or random files.
        images: number of training images, if random ones must do.
    """
    raw = root / "MNIST" / "raw"
    if (raw / "train-images-idx3-ubyte").is_file():
        return root, "MNIST"
    if not (raw / "train-images-idx3-ubyte.gz").is_file():
        write_random_idx(folder, images)
        return folder, "random bytes in the layout of MNIST's files"
    (folder / "MNIST" / "raw").mkdir(parents=True)
    for path in raw.glob("*-ubyte.gz"):
        (folder / "MNIST" / "raw" / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    return folder, "MNIST"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Draw progress bars, whose cost belongs to the measurement, where nobody sees them."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


@contextlib.contextmanager
def without_lightning_settings() -> Iterator[None]:
    """A process that never imported Lightning, which makes torch ask NVML for GPUs at every optimizer step."""
    name = "PYTORCH_NVML_BASED_CUDA_CHECK"
    value = os.environ.pop(name, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[name] = value
