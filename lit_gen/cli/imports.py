"""Modules that a command line names."""

import importlib


def import_module(name: str) -> None:
    """Import a module of the user's.

    Raises:
        ValueError: there is none of this name, or it fails to import.
    """
    try:
        importlib.import_module(name)
    except Exception as error:
        raise ValueError(
            f"--import {name} failed: {type(error).__name__}: {error}; it is looked for here and on PYTHONPATH"
        ) from error
