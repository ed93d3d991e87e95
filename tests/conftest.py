"""Fixtures of all tests."""

import os
import sys
from collections.abc import Iterator

# Before torch is imported: tests run in several processes, and one thread each is faster and repeatable.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_open_wandb_run() -> Iterator[None]:
    """A run that a command left open would be taken up by the next test of the same process."""
    yield
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()
