"""Equal conditions for all contestants of a speed comparison."""

import contextlib
import gc
import gzip
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lit_gen.cli import LitGenCLI

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


def lit_gen_epoch(model: Sequence[str], root: str, images: int) -> float:
    """An epoch on MNIST as ``lit-gen fit`` runs it, from the first batch to the last, in seconds of the processor.

    With the bar, loggers, checkpoints and default callbacks.

    Args:
        model: words of the command line that name the model, and what else is special.
        root: folder that holds MNIST.
        images: images of the epoch.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = ["--data=MNIST", *model, f"--data.root={root}", f"--data.batch_size={BATCH}", "--data.val_size=0"]
        words += [f"--data.subset={images}", f"--trainer.default_root_dir={folder}", "--trainer.accelerator=cpu"]
        words += ["--trainer.max_epochs=1", "--trainer.limit_val_batches=0", "--trainer.enable_model_summary=false"]
        words += ["--trainer.callbacks+=benchmarks.clock.BatchTime", "--trainer.callbacks.clock=process"]
        cli: Any = LitGenCLI(words, run=False)
        with quiet():
            cli.trainer.fit(cli.model, cli.datamodule)
    return next(callback.seconds for callback in cli.trainer.callbacks if type(callback).__name__ == "BatchTime")


def take_turns(
    contestants: Mapping[str, Callable[[], float]], counts: Mapping[str, int], repeats: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """All contestants one after the other, several times: images per second of the best turn, and seconds of each.

    Args:
        contestants: each gives the seconds that it took.
        counts: images that it went through.
        repeats: turns of each, the n-th of all with the same seed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(repeats):
        for name, run in contestants.items():
            torch.manual_seed(repeat)
            gc.collect()  # or a contestant pays for the litter of the one before
            seconds[name].append(run())
            print(f"{name:<24} {counts[name] / seconds[name][-1]:>8,.1f} images/s", flush=True)
    return {name: counts[name] / min(times) for name, times in seconds.items()}, seconds
