"""``lit-gen sample``: pictures from a checkpoint file alone."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_gen.cli.command import find_prompts

if TYPE_CHECKING:
    from lit_gen.models.base import GenerativeModel

STORYBOARD_PROMPTS = 16
"""At most so many prompts are shown in the storyboard."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lit-gen sample",
        description="Draw samples from a checkpoint: one PNG a sample, a grid, and the array on request.",
        allow_abbrev=False,
    )
    parser.add_argument("checkpoint", help="a .ckpt file, or a run folder (its best checkpoint)")
    parser.add_argument(
        "-n", "--num_samples", type=int, default=None, help="how many (64); with prompts, of each of them (8)"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="folder for the pictures (out)")
    parser.add_argument(
        "--condition", nargs="+", default=[], metavar="NAME=VALUE", help="what to generate, for a conditional model"
    )
    parser.add_argument(
        "--prompt",
        action="append",
        default=[],
        metavar="TEXT",
        help="a caption to draw images of, for a model of captions; repeat it for several",
    )
    parser.add_argument(
        "--prompts", default=None, metavar="FILE", help="a text file with a caption in each line, or a ready one: coco"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random numbers (0)")
    parser.add_argument("--npz", action="store_true", help="also write samples.npz, float32 (N, C, H, W) in [0, 1]")
    parser.add_argument("--batch_size", type=int, default=256, help="samples drawn at a time (256)")
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, mps, ...; auto takes an accelerator if there is one"
    )
    parser.add_argument(
        "--import", dest="imports", action="append", default=[], metavar="MODULE", help="your own module"
    )
    return parser


def run_sample(words: Sequence[str]) -> int:
    """Run ``lit-gen sample``.

    Args:
        words: the command line after ``sample``.

    Returns:
        Exit code 0.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: a checkpoint that cannot be read, or a condition that the model cannot take.
    """
    arguments = _parser().parse_args(list(words))
    prompts = [*arguments.prompt, *(read_prompts(arguments.prompts) if arguments.prompts is not None else [])]
    num_samples = (8 if prompts else 64) if arguments.num_samples is None else arguments.num_samples
    if num_samples < 1 or arguments.batch_size < 1:
        raise ValueError("-n and --batch_size must be at least 1")
    if prompts and arguments.condition:
        raise ValueError("--prompt and --condition both say what to generate; give one of them")

    import torch  # after the arguments: a mistyped option is answered at once

    from lit_gen.callbacks import refuse_leftovers, write_images
    from lit_gen.cli.imports import import_module
    from lit_gen.models.base import Conditional, GenerativeModel
    from lit_gen.models.checkpoint import find_checkpoint, load_model

    for name in arguments.imports:
        import_module(name)
    device = arguments.device
    if device == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        device = accelerator.type if accelerator is not None else "cpu"
    path = find_checkpoint(arguments.checkpoint)
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device} is not to be had here ({error}); use cpu, or leave it out") from error
    model = load_model(path, map_location=device)
    if not isinstance(model, GenerativeModel):
        raise ValueError(f"{str(path)!r} holds a {type(model).__name__}, which generates no images")
    if prompts:
        return sample_prompts(model, prompts, num_samples, arguments)
    refuse_leftovers(arguments.output, num_samples, arguments.npz)
    torch.manual_seed(arguments.seed)
    fields = parse_condition(arguments.condition, model)
    images = []
    for start in range(0, num_samples, arguments.batch_size):
        size = min(arguments.batch_size, num_samples - start)
        condition = made_condition(model, fields, size) if fields and isinstance(model, Conditional) else None
        images.append(model.sample(size, condition).cpu())
    grid = write_images(torch.cat(images), arguments.output, npz=arguments.npz)
    print(f"{num_samples} samples of {path} in {arguments.output}, grid: {grid}")
    return 0


def read_prompts(name: str) -> list[str]:
    """The captions in a text file, one in each line; empty lines and those that begin with ``#`` are left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no text, or no captions in it.
    """
    path = find_prompts(name)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}): save it as UTF-8") from error
    prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts:
        raise ValueError(f"{path} holds no prompts: write one in each line")
    return prompts


def sample_prompts(model: "GenerativeModel", prompts: Sequence[str], each: int, arguments: argparse.Namespace) -> int:
    """Draw and write images of captions, and how such images come to be.

    Args:
        model: a model of captions.
        prompts: the captions.
        each: images of every one.
        arguments: of the command line.

    Returns:
        Exit code 0.

    Raises:
        ValueError: a model of something else, or words that it does not know.
    """
    import torch
    from lightning.fabric.utilities import move_data_to_device

    from lit_gen.callbacks import alignment_picture, prompted_names, refuse_leftovers, write_prompted
    from lit_gen.callbacks.evaluation import chosen, first
    from lit_gen.models.base import CaptionConditional, Conditional, HasTrajectory

    if not isinstance(model, CaptionConditional):
        fields = model.condition_fields if isinstance(model, Conditional) else {}
        takes = ", ".join(f"--condition {name}=<{kind.__name__}>" for name, kind in fields.items())
        raise ValueError(
            f"{type(model).__name__} takes no captions; leave --prompt out{f', it takes {takes}' if takes else ''}"
        )
    condition = model.make_captions(prompts)
    refuse_leftovers(
        arguments.output,
        each * len(prompts),
        arguments.npz,
        names=prompted_names(prompts, each),
        storyboard=isinstance(model, HasTrajectory),
    )
    torch.manual_seed(arguments.seed)
    numbers = torch.arange(len(prompts)).repeat_interleave(each)
    images = [
        model.sample(len(some), chosen(condition, some)).cpu() for some in torch.split(numbers, arguments.batch_size)
    ]
    storyboard = None
    if isinstance(model, HasTrajectory):
        shown = move_data_to_device(first(condition, STORYBOARD_PROMPTS), model.device)
        words = model.vocabulary.decode(shown)
        with torch.no_grad():
            storyboard = alignment_picture(model.trajectory(len(words), shown), words)
    grid = write_prompted(
        torch.cat(images).unflatten(0, (len(prompts), each)), prompts, arguments.output, arguments.npz, storyboard
    )
    board = f", how such images come to be: {grid.parent / 'storyboard.png'}" if storyboard is not None else ""
    print(f"{each} samples of each of {len(prompts)} prompts in {arguments.output}, grid: {grid}{board}")
    return 0


def made_condition(model: Any, fields: dict[str, Any], size: int) -> Any:
    """The model's condition for what the user wrote.

    Raises:
        ValueError: the model has no such condition.
    """
    try:
        return model.make_condition(fields, size)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        wanted = " ".join(f"{name}={value}" for name, value in fields.items())
        raise ValueError(f"{type(model).__name__} cannot be conditioned on {wanted}: {error}") from error


def parse_condition(words: Sequence[str], model: Any) -> dict[str, Any]:
    """The condition that words or comma-separated parts ``NAME=VALUE`` say, checked against what the model takes.

    Raises:
        ValueError: the model takes none, an unknown name, or a value of another type.
    """
    from lit_gen.models.base import Conditional

    if not words:
        return {}
    if not isinstance(model, Conditional):
        raise ValueError(f"{type(model).__name__} takes no condition, got {' '.join(words)}; leave --condition out")
    fields: dict[str, Any] = {}
    for word in ",".join(words).split(","):
        name, equals, value = word.partition("=")
        if not equals or name not in model.condition_fields:
            known = ", ".join(f"{field}=<{kind.__name__}>" for field, kind in model.condition_fields.items())
            raise ValueError(f"--condition got {word!r}; {type(model).__name__} takes {known}")
        if name in fields:
            raise ValueError(f"--condition got {name} twice: {fields[name]} and {value}; samples have one condition")
        kind = model.condition_fields[name]
        try:
            fields[name] = kind(value)
        except ValueError as error:
            raise ValueError(f"--condition {name} wants a value of type {kind.__name__}, got {value!r}") from error
    return fields
