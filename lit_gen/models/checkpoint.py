"""Checkpoints that rebuild their model: plain hyper-parameters in, the right class out."""

import importlib
import sys
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jsonargparse import ArgumentError
from lightning.pytorch.cli import instantiate_module
from torch import Tensor, nn

from lit_gen.networks import Recorded

if TYPE_CHECKING:
    from lit_gen.models.base import LitGenModule

INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"


def plain(value: Any, strict: bool = True) -> Any:
    """The value made of what ``torch.load(weights_only=True)`` reads: numbers, strings, lists, dicts and tensors.

    Args:
        value: what a constructor was given.
        strict: raise for a value that has no plain form; otherwise describe it by a string (for loggers).

    Raises:
        TypeError: no plain form.
    """
    if value is None or (isinstance(value, bool | int | float | str | Tensor) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Enum):
        return plain(value.value, strict)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item, strict) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item, strict) for item in value]
    if isinstance(value, Recorded):
        return plain(value.specification(skip=value.sizes), strict)
    if isinstance(value, type):
        return {"class_path": f"{value.__module__}.{value.__qualname__}"}
    try:
        return value.item()  # a numpy scalar
    except AttributeError:
        if strict:
            raise TypeError(f"{value!r} of type {type(value).__name__} cannot be stored in a checkpoint") from None
        return getattr(value, "__qualname__", type(value).__name__)


def check_storable(module: "LitGenModule") -> None:
    """Refuse, when a module is built and not hours later, what its checkpoint could not hold.

    Raises:
        TypeError: names the argument.
    """
    for name, value in module.specification()["init_args"].items():
        if isinstance(value, nn.Module) and not isinstance(value, Recorded):
            raise TypeError(
                f"the argument {name} of {type(module).__name__} is a {type(value).__name__}, which a checkpoint cannot"
                f" rebuild; take a factory of networks instead, or make it a subclass of lit_gen.networks.Network"
            )
        if not callable(value) or isinstance(value, Recorded):
            _plain_argument(module, name, value)


def _plain_argument(module: "LitGenModule", name: str, value: Any) -> Any:
    try:
        return plain(value)
    except TypeError as error:
        raise TypeError(
            f"the argument {name} of {type(module).__name__}: {error}; allowed are numbers, strings, lists, dicts,"
            " tensors and networks"
        ) from error


def stored_hyperparameters(module: "LitGenModule") -> dict[str, Any]:
    """What a checkpoint stores of a module's construction, the same whether the command line or Python built it.

    Factories of networks and other parts are stored as what they made, which may differ from what was asked for: a part
    that began at a file does not name it. Other callables (an optimizer given as a lambda) have no plain form and are
    left out: loading uses the default of their argument.
    """
    if "_class_path" in module.hparams:
        parsed = plain(dict(module.hparams), strict=False)
        made = {name: part for name in parsed if isinstance(part := getattr(module, name, None), Recorded)}
        return {**parsed, **plain(made), "_instantiator": INSTANTIATOR}
    specification = module.specification()
    arguments = {}
    for name, value in specification["init_args"].items():
        built = getattr(module, name, None)
        if isinstance(value, type) or not callable(value) or isinstance(value, Recorded):
            arguments[name] = _plain_argument(module, name, value)
        if callable(value) and isinstance(built, Recorded):
            arguments[name] = plain(built)
    return {"_class_path": specification["class_path"], **arguments, "_instantiator": INSTANTIATOR}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file without running code from it.

    Raises:
        FileNotFoundError: no such file; names the checkpoints that lie nearby.
        ValueError: not a readable checkpoint, truncated or empty, or one that needs pickled classes.
    """
    path = Path(path)
    if not path.is_file():
        folder = next((parent for parent in path.parents if parent.is_dir()), Path())
        nearby = sorted(str(found) for found in folder.glob("**/*.ckpt"))[:5] if folder != Path() else []
        hint = f"; checkpoints nearby: {', '.join(nearby)}" if nearby else ""
        raise FileNotFoundError(f"there is no checkpoint {str(path)!r}{hint}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if "weights_only" in str(error) or "Unsupported" in str(error):
            reason = "it holds Python objects, which are not loaded because they could run code"
        else:
            reason = f"it is truncated or no checkpoint at all ({type(error).__name__})"
        raise ValueError(f"cannot read {str(path)!r}: {reason}; use another checkpoint of the run") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{str(path)!r} is no checkpoint of a Lightning run: it has no state_dict")
    return checkpoint


def find_checkpoint(value: str | Path, root: str | Path = "runs") -> Path:
    """The file that a path, a folder of runs, ``last`` or ``best`` means.

    Args:
        value: a file; a folder, meaning the best checkpoint of the newest run in it; or ``last`` or ``best`` of the
            newest run below ``root``.
        root: where ``last`` and ``best`` are looked for.

    Raises:
        FileNotFoundError: there is no run. A file is not looked at.
    """
    word = str(value)
    if word not in ("last", "best") and not Path(value).is_dir():
        return Path(value)
    folder = Path(root) if word in ("last", "best") else Path(value)
    found = sorted(folder.rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(
            f"there is no last.ckpt below {str(folder)!r}, so {word!r} means no checkpoint; train first, or name the"
            " folder of runs (--trainer.default_root_dir, or the config of the run) or the file itself"
        )
    if word == "last":
        return found[-1]
    for state in read_checkpoint(found[-1]).get("callbacks", {}).values():
        if isinstance(state, dict) and state.get("best_model_path"):
            best = Path(state["best_model_path"])
            return next((path for path in (best, found[-1].parent / best.name) if path.is_file()), found[-1])
    return found[-1]


def resolve_class(class_path: str, base: type) -> type:
    """The class that a checkpoint names, without importing code that the user has not named.

    Args:
        class_path: dotted path.
        base: what it must be a subclass of.

    Raises:
        ValueError: a class outside lit_gen whose module nobody imported, or not a subclass of ``base``.
    """
    module_name, _, name = class_path.rpartition(".")
    if module_name.split(".")[0] == "lit_gen":
        importlib.import_module(module_name)
    module = sys.modules.get(module_name)
    found = vars(module).get(name) if module else None
    if found is None:
        raise ValueError(
            f"the checkpoint needs {class_path}, which is not part of lit_gen; if you trust it, import its module"
            f" first: --import {module_name} on the command line, `import {module_name}` in Python"
        )
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"the checkpoint names {class_path}, which is no {base.__name__}")
    return found


def nested_class_paths(value: Any) -> list[str]:
    """Every class path inside hyper-parameters, at any depth."""
    if isinstance(value, Mapping):
        own = [value[key] for key in ("class_path", "_class_path") if isinstance(value.get(key), str)]
        return own + [path for item in value.values() for path in nested_class_paths(item)]
    if isinstance(value, list | tuple):
        return [path for item in value for path in nested_class_paths(item)]
    return []


def check_trusted(hyperparameters: Mapping[str, Any]) -> None:
    """Refuse hyper-parameters that would import modules which are neither trusted nor imported already.

    Raises:
        ValueError: names the first such class.
    """
    for class_path in nested_class_paths(hyperparameters):
        root = class_path.split(".")[0]
        if root not in {"lit_gen", "torch", "torchvision", "torchmetrics", "lightning"}:
            resolve_class(class_path, object)


def build_model(specification: Mapping[str, Any], source: str = "the specification") -> "LitGenModule":
    """A model as a checkpoint specifies it, with weights that have not been trained.

    Args:
        specification: what :func:`stored_hyperparameters` gives.
        source: where it was found, for messages.

    Raises:
        ValueError: it is not of this package, of a class that nobody imported, or does not fit that class.
    """
    from lit_gen.models.base import LitGenModule  # the contract imports this file

    stored = {name: value for name, value in specification.items() if name != "_instantiator"}
    if "_class_path" not in stored:
        raise ValueError(f"{source} does not name its model; it was not written by a model of lit_gen")
    check_trusted(stored)
    model_class = resolve_class(stored["_class_path"], LitGenModule)
    try:
        model: LitGenModule = instantiate_module(model_class, stored)
    except (ArgumentError, TypeError, ValueError) as error:
        raise ValueError(f"{model_class.__name__} cannot be rebuilt from {source}: {error}") from error
    model.hparams.clear()
    model.hparams.update(stored)
    return model


def load_model(path: str | Path, map_location: str | torch.device = "cpu", **overrides: Any) -> "LitGenModule":
    """Rebuild a model from its checkpoint file alone, in eval mode.

    Example:
        ``load_model("runs/vae/digits").sample(16)``

    Args:
        path: a checkpoint written by a fit, from the command line or from Python, or the folder of its run.
        map_location: where the weights go.
        overrides: constructor arguments that replace the stored ones.

    Returns:
        The model, in eval mode. With averaged weights (EMA) in the run, these.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, not of this package, of a class that nobody imported, or weights that do not fit.
    """
    path = find_checkpoint(path)
    checkpoint = read_checkpoint(path)
    model = build_model({**checkpoint.get("hyper_parameters", {}), **plain(overrides)}, source=repr(str(path)))
    model.on_load_checkpoint(checkpoint)
    try:
        model.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise ValueError(f"the weights in {str(path)!r} do not fit {type(model).__name__}: {error}") from error
    return model.to(map_location).eval()
