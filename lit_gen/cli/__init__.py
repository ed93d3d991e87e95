"""The command line: ``lit-gen`` and the LightningCLI behind it."""

import importlib
from typing import TYPE_CHECKING, Any

from lit_gen.cli.command import main

if TYPE_CHECKING:
    from lit_gen.cli.app import LitGenCLI

__all__ = ["LitGenCLI", "main"]


def __getattr__(name: str) -> Any:
    # LitGenCLI imports Lightning: `lit-gen --help` must not wait for it.
    if name == "LitGenCLI":
        return importlib.import_module("lit_gen.cli.app").LitGenCLI
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
