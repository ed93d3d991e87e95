"""lit_gen: the deep generative image models that made the field, as PyTorch Lightning modules."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lit_gen.models import load_model

__all__ = ["__version__", "load_model"]


def __getattr__(name: str) -> Any:
    # Importing Lightning takes seconds: `lit-gen --help` and `lit-gen list` must not wait for it.
    if name == "load_model":
        return importlib.import_module("lit_gen.models").load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
