"""A changed class starts from its own defaults.

When a class is replaced on the command line (``--model.encoder ConvEncoder`` where the default is an MLP), jsonargparse
keeps every argument of the former class that the new one accepts too, also those that nobody set: a ConvEncoder would
silently get the MLP's activation, an AdamW the weight decay of Adam. What a user or a config set is still kept.
"""

import inspect
from typing import Any

from jsonargparse import Namespace, _typehints

__all__ = ["keep_no_foreign_defaults"]

_discard = _typehints.discard_init_args_on_class_path_change


def _discard_foreign_defaults(parser_or_action: Any, previous: Any, value: Any) -> None:
    if previous and "init_args" in previous and previous["class_path"] != value["class_path"]:
        parameters = inspect.signature(_typehints.import_object(previous["class_path"])).parameters
        for name, argument in list(previous["init_args"].items(branches=True, nested=False)):
            if name in parameters and _comparable(argument) == _comparable(parameters[name].default):
                previous["init_args"].pop(name, None)
    _discard(parser_or_action, previous, value)


def _comparable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_comparable(item) for item in value]
    return value.as_dict() if isinstance(value, Namespace) else value


def keep_no_foreign_defaults() -> None:
    """Make the parsers of this process behave so; a test holds it, because the name is private."""
    _typehints.discard_init_args_on_class_path_change = _discard_foreign_defaults
