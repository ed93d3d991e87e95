"""Modules that a command line names."""

import importlib
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from lit_gen.models.checkpoint import nested_class_paths


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


def named_classes(words: Sequence[str]) -> list[str]:
    """Dotted paths of the classes that options and configs of a command line name: their modules are trusted.

    Args:
        words: the command line, configs as ``--config FILE``.
    """
    named: list[str] = []
    flag = ""
    for word in words:
        if flag == "--config":
            named += nested_class_paths(yaml.safe_load(Path(word).read_text()))
        option, _, value = word.partition("=")
        if (option if value else flag).startswith(("--model", "--data", "--trainer")):
            named.append(value or word)
        flag = word
    dotted = [name for name in named if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name)]
    return [name for name in dotted if importlib.util.find_spec(name.partition(".")[0]) is not None]
