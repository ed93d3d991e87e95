"""The command ``lit-gen``: answers what it can without importing Lightning, which takes seconds."""

import ast
import difflib
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

COMMANDS = {
    "fit": "train a model",
    "validate": "measure a checkpoint on the validation data",
    "test": "measure a checkpoint on the test data",
    "predict": "draw samples inside a run, on one or several devices",
    "sample": "draw samples from a checkpoint file alone",
    "list": "models, networks, data sets, callbacks and configs, a line each",
}
FOUNDATIONS = (
    "base.py",
    "network.py",
    "boltzmann.py",
    "optimizers.py",
    "negative_phase.py",
    "gradient_estimators.py",
    "schedules.py",
    "loader.py",
    "checkpoint_io.py",
    "config.py",
    "evaluation.py",
    "profiler.py",
)
"""Files of what is built upon, or chosen under a heading of its own."""
USAGE = """usage: lit-gen COMMAND [options]

{commands}

examples:
  lit-gen fit -c vae/digits
  lit-gen fit --model VAE --data MNIST --trainer.max_epochs 20
  lit-gen test --ckpt_path runs/vae/digits/version_0/checkpoints/last.ckpt
  lit-gen sample runs/vae/digits -n 64 -o out/

`lit-gen COMMAND --help` shows the options of a command, `lit-gen fit --model.help VAE` those of a class."""


def config_folder() -> Path:
    """Where the ready configs lie: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    return next(folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir())


def find_config(name: str) -> Path:
    """The config file that ``-c NAME`` means: a path, or the name of a ready config such as ``vae/digits``.

    Raises:
        FileNotFoundError: there is none; names the nearest.
    """
    folder = config_folder()
    short = name.removeprefix("configs/").removesuffix(".yaml")
    for candidate in (Path(name), folder / f"{short}.yaml"):
        if candidate.is_file():
            return candidate
    known = [path.relative_to(folder).with_suffix("").as_posix() for path in folder.glob("*/*.yaml")]
    near = difflib.get_close_matches(short, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "`lit-gen list` shows the ready ones"
    raise FileNotFoundError(f"there is no config {name!r}; {hint}")


def find_prompts(name: str) -> Path:
    """The file that ``--prompts NAME`` means: a path, or the name of a ready one such as ``coco``.

    Raises:
        FileNotFoundError: there is none; names the ready ones.
    """
    folder = config_folder()
    short = name.removeprefix("configs/").removeprefix("prompts/").removesuffix(".txt")
    for candidate in (Path(name), folder / "prompts" / f"{short}.txt"):
        if candidate.is_file():
            return candidate
    known = ", ".join(sorted(path.stem for path in folder.glob("prompts/*.txt")))
    raise FileNotFoundError(f"there is no file of prompts {name!r}; name a text file with one in each line, or {known}")


def _exported_classes(package: Path, files: str) -> Iterator[tuple[str, str]]:
    """Name and first docstring line of every class to choose that a package exports, read without importing it.

    Args:
        package: its folder.
        files: which of its files: one by name, or all but the foundations by a pattern.
    """
    exported = {
        alias.name
        for node in ast.parse((package / "__init__.py").read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for path in sorted(set(package.glob(files)) - {package / name for name in FOUNDATIONS if name != files}):
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.ClassDef) or node.name not in exported:
                continue
            raised = [ast.unparse(part) for part in ast.walk(node) if isinstance(part, ast.Raise)]
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            decorators = {ast.unparse(part) for method in methods for part in method.decorator_list}
            to_be_subclassed = any("NotImplementedError" in text for text in raised) or "abstractmethod" in decorators
            if not to_be_subclassed:
                line = (ast.get_docstring(node) or "").partition("\n")[0]
                yield node.name, line.replace("``", "").replace(":class:", "").replace("`", "")


def list_parts() -> None:
    """Print what there is to combine, a line each."""
    parts = "networks, likelihoods, visible units (--model.encoder, .decoder, .likelihood, .visible)"
    for heading, package, files in (
        ("models (--model)", "models", "*.py"),
        ("negative phases (--model.negative_phase)", "models", "negative_phase.py"),
        ("gradient estimators (--model.estimator)", "models", "gradient_estimators.py"),
        ("schedules (--model.lr_scheduler, --model.negative_phase.steps)", "models", "schedules.py"),
        ("optimizers beside those of torch.optim (--model.optimizer)", "models", "optimizers.py"),
        ("data sets (--data)", "data", "*.py"),
        (parts, "networks", "*.py"),
        ("callbacks (--trainer.callbacks+=)", "callbacks", "*.py"),
    ):
        print(f"{heading}:")
        for name, line in sorted(_exported_classes(Path(__file__).parents[1] / package, files)):
            print(f"  {name:<30} {line}")
        print()
    print("configs (-c):")
    for path in sorted(config_folder().glob("*/*.yaml")):
        first = path.read_text().partition("\n")[0].lstrip("# ")
        print(f"  {path.relative_to(config_folder()).with_suffix('').as_posix():<30} {first}")


def users_mistake(error: BaseException) -> BaseException | None:
    """The error that this package raised on purpose, alone or wrapped by a parser; its message says everything."""
    cause: BaseException | None = error
    while cause is not None:
        trace = cause.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        package = (trace.tb_frame.f_globals.get("__package__") or "") if trace is not None else ""
        if package.split(".")[0] == "lit_gen" or type(cause).__name__ == "MisconfigurationException":
            return cause
        cause = cause.__cause__
    return None


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        args: the words after ``lit-gen``; None takes them from the process.

    Returns:
        Exit code: 0 done, 1 a mistake told in one message, 2 a wrong command line, 130 and 143 interrupted.
    """
    words = list(sys.argv[1:] if args is None else args)
    # A console script does not look for modules where it is called, and a user's own model lies there.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if not words or words[0] in ("-h", "--help"):
        print(USAGE.format(commands="\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items())))
        return 0 if words else 2
    command = words[0]
    if command == "--version":
        from lit_gen import __version__

        print(__version__)
        return 0
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        print(f"lit-gen: error: unknown command {command!r}; {hint}known: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        if command == "list":
            list_parts()
            return 0
        if command == "sample":
            from lit_gen.cli.sample import run_sample

            return run_sample(words[1:])
        # A mistyped config is found before the imports, which take seconds.
        for flag, value in pairwise(words):
            if flag in ("-c", "--config"):
                find_config(value)
        from lit_gen.cli.app import run

        return run(words)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        mistake = users_mistake(error)
        if mistake is None:
            raise
        print(f"lit-gen: error: {mistake}", file=sys.stderr)
        return 1
