"""A machine in two processes: statistics of all images, equal weights, chains of its own for each process."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lit_gen.cli import main
from lit_gen.data import Synthetic
from lit_gen.models import RBM, ContrastiveDivergence
from lit_gen.networks import State


class Written(RBM):
    """Writes what each process ends with, and the weights that it began with."""

    def on_train_start(self) -> None:
        super().on_train_start()
        self.start = self.weight.detach().clone()

    def on_train_end(self) -> None:
        torch.save({"start": self.start, **self.state_dict()}, Path(f"process{self.global_rank}.pt"))


class Noiseless(ContrastiveDivergence):
    """CD-1 in which every unit takes the likelier state, so that runs differ by nothing but their arithmetic."""

    def __call__(self, machine: RBM, data: State, keep: bool) -> State:  # type: ignore[override]
        hidden = machine.machine.hidden_mean(data[0]).round()
        return machine.machine.visible_mean(hidden).round(), hidden


MODEL = """fit --model tests.models.test_rbm_ddp.Written --model.num_hidden 6 --model.sample_steps 2
--model.optimizer.lr 0.1 --model.centering 0.2 --model.sparsity_target 0.2"""
DATA = """--data Synthetic --data.image_shape [1,8,8] --data.num_train 60 --data.num_val 0 --data.num_test 20
--data.batch_size 10 --data.binarization threshold --trainer.max_epochs 2 --trainer.accelerator cpu
--trainer.enable_progress_bar false --trainer.enable_model_summary false"""
CHAINS = "--model.negative_phase PersistentContrastiveDivergence --model.negative_phase.num_chains 5"
WORDS = f"{MODEL} {CHAINS} {DATA} --trainer.devices 2"


def run(words: str, folder: Path) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "lit_gen", *words.split()]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes(tmp_path: Path) -> None:
    run(WORDS, tmp_path)
    first, second = (torch.load(tmp_path / f"process{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, value in first.items():
        assert torch.equal(value, second[name]), f"{name} differs between processes"
    run(f"{WORDS} --ckpt_path last --trainer.max_epochs 3", tmp_path)
    for version, epochs in ((0, 2), (1, 3)):
        stored = torch.load(tmp_path / "runs" / f"version_{version}" / "checkpoints" / "last.ckpt", weights_only=True)
        assert stored["global_step"] == 3 * epochs, "each process took every second batch"
        first, second = (rank["chains"] for rank in stored["negative_phase"])
        assert first[0].shape == second[0].shape == (5, 64)
        assert not torch.equal(first[0], second[0])
        source = Synthetic((1, 8, 8), num_train=60, num_val=0, num_test=20, binarization="threshold")
        pixels = torch.cat([batch for batch, _ in source.train_dataloader()]).flatten(1)
        torch.testing.assert_close(stored["state_dict"]["machine.data_mean"], pixels.mean(0))


def test_two_processes_take_the_step_of_one_with_both_their_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = f"{MODEL} --model.negative_phase tests.models.test_rbm_ddp.Noiseless --model.initial_weight_std 0.5 {DATA}"
    words += " --data.num_val 10"  # none would be a warning, which is an error in this process
    run(f"{words} --trainer.devices 2", tmp_path)
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    # Weights start from the same seed, and two batches of 10 hold the images of one of 20.
    assert main([*words.split(), "--data.batch_size", "20", "--trainer.devices", "1"]) == 0
    two = torch.load(tmp_path / "process0.pt", weights_only=True)
    for name, value in torch.load(tmp_path / "one" / "process0.pt", weights_only=True).items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-6)
    moved = (two["machine.weight"] - two["start"]).abs().mean().item()
    assert moved > 1e-3, "weights that hardly moved would prove little"
