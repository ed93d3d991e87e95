"""Every command and every example of README runs."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._dynamo
from PIL import Image

from lit_gen.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.partition("#")[0].strip() for kind, block in BLOCKS if kind == "bash" for line in block.splitlines() if line
]
LIT_GEN = [command for command in COMMANDS if command.startswith("lit-gen ")]
FAST = ["--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


def run(words: list[str], folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_every_command_is_known() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in COMMANDS:
        if command.startswith("make "):
            assert command.split()[1] in targets, command
        else:
            assert command in LIT_GEN, f"{command!r} is not run by a test"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: the variant of README, images, and small stand-ins for downloads."""
    folder = tmp_path_factory.mktemp("readme")
    variant = next(block for kind, block in BLOCKS if kind == "python" and "BetaVAE" in block)
    assert len(variant.strip().splitlines()) <= 18, "a variant takes about fifteen lines"
    (folder / "my_variants.py").write_text(variant)
    random = np.random.default_rng(0)
    images = folder / "path" / "to" / "images"
    images.mkdir(parents=True)
    for number in range(30):
        Image.fromarray(random.integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(images / f"{number}.png")
    return folder


@pytest.mark.parametrize("command", LIT_GEN)
def test_command(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command)[1:]
    if "MNIST" in words:
        # The same words on synthetic images of MNIST's size: tests download nothing.
        words = [word.replace("MNIST", "Synthetic") for word in words] + ["--data.image_shape=[1,28,28]"]
        words += ["--data.num_train=100", "--data.num_val=20", "--data.num_test=20"]
    if words[0] in ("fit", "test"):
        words += FAST if words[0] == "fit" else FAST[1:]
    if "--trainer.callbacks+=LikelihoodDesk" in words:
        # What it estimates by default is worth minutes.
        words += ["--trainer.callbacks.estimators+=Annealing", "--trainer.callbacks.estimators.num_temperatures=2"]
        words += ["--trainer.callbacks.estimators.num_leapfrogs=1", "--trainer.callbacks.estimators+=ParzenWindow"]
        words += ["--trainer.callbacks.estimators.num_samples=100"]
    if words[0] == "fit" and "vae/folder" in words:
        words += ["--data.val_size=10"]
    if "--trainer.devices" not in words:
        monkeypatch.chdir(folder)
        # Compiling takes half a minute, and has a test of its own.
        with torch._dynamo.config.patch(disable=True):
            assert main(words) == 0
        return
    # Further processes are started with the command line of this one.
    run([sys.executable, "-m", "lit_gen", *words], folder)


def test_python_example(folder: Path) -> None:
    example = next(block for kind, block in BLOCKS if kind == "python" and "pl.Trainer" in block)
    example += "\nassert images.shape == (16, 1, 8, 8)\n"
    run([sys.executable, "-c", example], folder)
