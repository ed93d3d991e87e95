"""Two processes on the CPU: sharded data, noise of their own, equal weights, one picture for each sample."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

RECORDER = '''
"""A VAE that writes down what each process sees and draws."""
from pathlib import Path

import torch

from lit_gen.models import VAE


class Recorder(VAE):
    """Writes images, noise and the last weights of its rank."""

    def __init__(self, image_shape: tuple[int, ...]) -> None:
        super().__init__(image_shape, latent_dim=2)
        self.seen, self.noise, self.tested = [], [], []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[0].mean((1, 2, 3)))
        self.noise.append(torch.rand(1))
        return super().training_step(batch, batch_idx)

    def test_step(self, batch, batch_idx):
        self.tested.append(batch[0].mean((1, 2, 3)))
        return super().test_step(batch, batch_idx)

    def on_train_end(self):
        record = {"seen": torch.cat(self.seen), "noise": torch.cat(self.noise), "weights": self.state_dict()}
        torch.save(record, Path(f"fit{self.global_rank}.pt"))

    def on_test_end(self):
        torch.save({"tested": torch.cat(self.tested)}, Path(f"test{self.global_rank}.pt"))
'''
TWO = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.enable_progress_bar=false"]
TWO += ["--trainer.enable_model_summary=false"]
ESTIMATORS = "--trainer.callbacks.estimators"
DESK = ["--trainer.callbacks+=LikelihoodDesk", f"{ESTIMATORS}+=Annealing", f"{ESTIMATORS}.num_temperatures=2"]
DESK += [f"{ESTIMATORS}.num_images=5", f"{ESTIMATORS}.num_simulated=3", f"{ESTIMATORS}+=ImportanceSampling"]
DESK += [f"{ESTIMATORS}.num_samples=10", f"{ESTIMATORS}+=ParzenWindow", f"{ESTIMATORS}.num_samples=20"]
DESK += [f"{ESTIMATORS}+=ActiveUnits"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fit, test and predict with two processes each, in one folder."""
    folder = tmp_path_factory.mktemp("ddp")
    (folder / "ddp_recorder.py").write_text(RECORDER)
    # 61 images that their mean tells apart, an odd number.
    images = np.broadcast_to((np.arange(61) * 4).astype(np.uint8)[:, None, None, None], (61, 1, 8, 8))
    np.save(folder / "images.npy", images)
    data = ["--data", "Arrays", "--data.images=images.npy", "--data.batch_size=5", "--data.val_size=10"]
    fit = ["fit", "--model", "ddp_recorder.Recorder", *data, "--trainer.max_epochs=1"]
    checkpoint = ["--import", "ddp_recorder", "--ckpt_path", "runs/version_0/checkpoints/last.ckpt"]
    for words in (fit, ["test", *checkpoint, *DESK], ["predict", *checkpoint]):
        done = subprocess.run(
            [sys.executable, "-m", "lit_gen", *words, *TWO],
            cwd=folder,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "MASTER_PORT": str(_free_port())},
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        (folder / f"{words[0]}.txt").write_text(done.stdout)
    return folder


def _free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_training_images_are_shared_out(folder: Path) -> None:
    first, second = (torch.load(folder / f"fit{rank}.pt")["seen"] for rank in (0, 1))
    assert len(first) == len(second), "unequal numbers of batches would hang"
    together = torch.cat([first, second])
    # One image may come twice, so that both have equally many.
    assert len(together) - len(together.unique()) <= 1


def test_ranks_draw_noise_of_their_own_and_keep_equal_weights(folder: Path) -> None:
    first, second = (torch.load(folder / f"fit{rank}.pt") for rank in (0, 1))
    assert not torch.equal(first["noise"], second["noise"])
    for key, value in first["weights"].items():
        assert torch.equal(value, second["weights"][key]), key


def test_test_images_are_seen_once(folder: Path) -> None:
    first, second = (torch.load(folder / f"test{rank}.pt")["tested"] for rank in (0, 1))
    together = torch.cat([first, second])
    assert len(together) == len(together.unique())
    assert min(len(first), len(second)) > 0


def test_the_desk_shares_the_images(folder: Path) -> None:
    """Each measured once, and the means those of what both processes keep."""
    (path,) = folder.rglob("test_likelihood.json")
    found = {score["metric"]: score for score in json.loads(path.read_text())["scores"]}
    tested = sum(len(torch.load(folder / f"test{rank}.pt")["tested"]) for rank in (0, 1))
    for name, count in (("iw10", tested), ("parzen", tested), ("ais", 5)):
        assert found[f"log_likelihood_{name}"]["num_real"] == count
    assert found["bdmc_gap"]["num_generated"] == 3
    kept = folder / "runs" / "version_0" / "likelihood_desk" / "ImportanceSampling"
    rows = torch.cat([torch.load(file) for file in kept.rglob("*.pt")])
    assert len(rows) == tested
    assert found["log_likelihood_iw10"]["value"] == pytest.approx(rows.mean().item())


def test_one_picture_for_each_sample(folder: Path) -> None:
    pictures = sorted((folder / "runs" / "version_0" / "predict").rglob("0*.png"))
    tested = sum(len(torch.load(folder / f"test{rank}.pt")["tested"]) for rank in (0, 1))
    assert len(pictures) == tested
    contents = {np.asarray(Image.open(path)).tobytes() for path in pictures}
    assert len(contents) == len(pictures), "ranks wrote the same samples"
