"""A machine in two processes: statistics of all images, equal weights, chains of its own for each process."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from lit_gen.data import Synthetic

WORDS = """fit --model RBM --model.num_hidden 6 --model.sample_steps 2 --model.optimizer.lr 0.1
--model.negative_phase PersistentContrastiveDivergence --model.negative_phase.num_chains 5
--data Synthetic --data.image_shape [1,8,8] --data.num_train 60 --data.num_val 0 --data.num_test 20 --data.batch_size 10
--data.binarization threshold --trainer.max_epochs 2 --trainer.accelerator cpu --trainer.devices 2
--trainer.enable_progress_bar false --trainer.enable_model_summary false"""


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
