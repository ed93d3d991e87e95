"""What the command line says to a mistake: one message, with the nearest name there is."""

import difflib
import inspect
import re
import sys
from collections.abc import Iterable
from typing import NoReturn

import lightning.pytorch as pl
from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningArgumentParser

from lit_gen.data import ImageDataModule
from lit_gen.models.base import LitGenModule
from lit_gen.models.checkpoint import resolve_class
from lit_gen.networks import Recorded


class Parser(LightningArgumentParser):
    """Answers a wrong command line with one message that names the nearest class or option."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:
            super().error(message, ex)
        options = [option for parser in (self, *_subparsers(self)) for option in parser._option_string_actions]
        sys.stderr.write(f"lit-gen: error: {explain(message, options)}\n")
        sys.exit(2)


def _subparsers(parser: ArgumentParser) -> list[ArgumentParser]:
    action = getattr(parser, "_subcommands_action", None)
    return list(action.choices.values()) if action is not None else []


def subclasses(base: type) -> set[str]:
    """Short names of all imported classes below ``base``."""
    children: list[type] = base.__subclasses__()
    return {child.__name__ for child in children}.union(*map(subclasses, children))


def options_of(kind: type) -> set[str]:
    """Names of a constructor's arguments, with those of its parents where it hands on ``**kwargs``."""
    parameters = inspect.signature(kind).parameters
    names = {name for name, one in parameters.items() if one.kind is not inspect.Parameter.VAR_KEYWORD}
    return names if len(names) == len(parameters) else names.union(*map(options_of, kind.__bases__))


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean X?`` if there is a name like it, else a full stop."""
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else "."


def class_first(key: str, name: str = "...") -> str:
    """What to do about an option of a class that has not been named yet."""
    return (
        f"--{key}.{name} stands before the class that it belongs to: give --{key}=CLASS first, or a config that names"
        " it, such as -c vae/digits; `lit-gen list` shows what there is"
    )


def explain(message: str, options: Iterable[str] = ()) -> str:
    """What a parser says, without its inner workings, and with the nearest known name.

    Args:
        message: of jsonargparse.
        options: the options there are.
    """
    unknown_class = re.search(r"Expected a dot import path string: (\S+)", message)
    if unknown_class:
        name = unknown_class.group(1).rstrip(".")
        known = subclasses(LitGenModule) | subclasses(ImageDataModule) | subclasses(pl.Callback) | subclasses(Recorded)
        more = "`lit-gen list` shows all; a class of your own is given as module.Class"
        if name in known:
            key = re.search(r'Parser key "([\w.]+)"', message)
            return f"{name} cannot be used for --{key.group(1) if key else '...'}: it is of another kind. {more}"
        return f"unknown class {name!r}{nearest(name, known)} {more}"
    abstract = re.search(r'Parser key "([\w.]+)".+Expected an instantiatable class', message, re.DOTALL)
    if abstract:
        return class_first(abstract.group(1))
    unknown_argument = re.search(
        r"Problem with given class_path '([\w.]+)':\s+Option '([\w.]+)' is not accepted", message
    )
    if unknown_argument:
        class_path, name = unknown_argument.groups()
        kind = resolve_class(class_path, object)
        if kind is LitGenModule:
            return class_first("model", name)
        known = options_of(kind)
        hint = f"{nearest(name, known)} It takes {', '.join(sorted(known))}"
        return f"{class_path.rpartition('.')[2]} has no option {name!r}{hint}"
    required = re.match(r"the following arguments are required: (.+)", message)
    if required:
        names = " and ".join(sorted(f"--{name.rpartition('.')[2]}" for name in required.group(1).split(", ")))
        return (
            f"{names} must be given, or a config that has it, such as -c vae/digits; `lit-gen list` shows what there is"
        )
    unrecognized = re.match(r"unrecognized arguments: (--[\w.]+)", message)
    if unrecognized:
        return f"unknown option {unrecognized.group(1)}{nearest(unrecognized.group(1), options)}"
    noise = r"Does not validate against any of|Subtypes:|Errors:|- Expected a <class 'NoneType'>|Given value|^\s*$"
    return "\n".join(line for line in message.splitlines() if not re.search(noise, line))
