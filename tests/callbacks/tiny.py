"""A model, data and trainer small enough for callbacks to be tried in a second."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from lit_gen.callbacks import AtomicCheckpointIO
from lit_gen.data import Synthetic
from lit_gen.models import VAE
from lit_gen.networks import MLP, Shape

SHAPE = (1, 8, 8)


def small(input_shape: Shape, output_shape: Shape) -> MLP:
    return MLP(input_shape, output_shape, hidden_dims=[16])


def vae(latent_dim: int = 2, **arguments: Any) -> VAE:
    return VAE(SHAPE, latent_dim, small, small, **arguments)


def data(**arguments: Any) -> Synthetic:
    options = {"num_train": 60, "num_val": 20, "num_test": 20, "batch_size": 10, "binarization": "threshold"}
    return Synthetic(image_shape=SHAPE, num_classes=3, **{**options, **arguments})


def trainer(folder: Path, *callbacks: pl.Callback, **arguments: Any) -> pl.Trainer:
    options: dict[str, Any] = {
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": any(isinstance(callback, pl.callbacks.Checkpoint) for callback in callbacks),
        "plugins": [AtomicCheckpointIO()],
        "enable_progress_bar": False,
        "inference_mode": False,
    }
    return pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **{**options, **arguments},
    )


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let writing fail in mid-file, as on a full disk: no file may grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
