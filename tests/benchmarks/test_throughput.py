"""The contestants of the speed comparison run, and train the same thing."""

import gzip
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from benchmarks import adversarial_speed, diffusion_speed
from benchmarks.conditions import readable_root, write_random_idx
from benchmarks.throughput import bare_epoch, lit_gen_epoch
from lit_gen.data import MNIST


def test_random_files_are_read_as_mnist(tmp_path: Path) -> None:
    write_random_idx(tmp_path, 50)
    theirs = datasets.MNIST(str(tmp_path), train=True)
    ours = MNIST(str(tmp_path), val_size=0).load("train")
    assert torch.equal(theirs.data, ours.images[:, 0])
    assert torch.equal(theirs.targets, ours.targets)
    assert 100 < theirs.data.float().mean() < 155


def test_gzipped_files_are_unpacked_elsewhere(tmp_path: Path) -> None:
    plain, zipped, folder = tmp_path / "plain", tmp_path / "zipped", tmp_path / "folder"
    write_random_idx(plain, 20)
    (zipped / "MNIST" / "raw").mkdir(parents=True)
    for path in (plain / "MNIST" / "raw").iterdir():
        (zipped / "MNIST" / "raw" / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    before = sorted(zipped.rglob("*"))
    assert readable_root(plain, folder, 20) == (plain, "MNIST")
    assert readable_root(zipped, folder, 20) == (folder, "MNIST")
    assert sorted(zipped.rglob("*")) == before
    assert torch.equal(datasets.MNIST(str(folder)).data, datasets.MNIST(str(plain)).data)
    root, data = readable_root(tmp_path / "nothing", tmp_path / "other", 20)
    assert root == tmp_path / "other"
    assert "random" in data


@pytest.mark.filterwarnings(
    # What the command line says of a plain loader that is not lit_gen's.
    "ignore:The number of training batches .* is smaller than the logging interval:UserWarning"
)
def test_every_contestant_without_extras_runs(tmp_path: Path) -> None:
    write_random_idx(tmp_path, 300)
    root = str(tmp_path)
    times = [
        bare_epoch(MNIST(root, val_size=0).load("train").images.flatten(1)),
        lit_gen_epoch(root, 300, bar=True),
        lit_gen_epoch(root, 300, bar=False),
        lit_gen_epoch(root, 300, bar=False, workers=0),
    ]
    assert np.all(np.array(times) > 0)


def test_stand_ins_are_gone_after_the_import() -> None:
    with adversarial_speed.stand_ins():
        from torch._six import string_classes  # type: ignore[import-not-found]

        assert string_classes == (str,)
    assert "torch._six" not in sys.modules


def test_contestants_of_the_adversarial_comparison_run(tmp_path: Path) -> None:
    write_random_idx(tmp_path, 100)
    result = adversarial_speed.measure(str(tmp_path), 100, 1)
    assert result["ratios"]["lit_gen / bare"] > 0


def test_diffusion_is_timed_in_training_and_sampling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusion_speed, "CHANNELS", 8)
    write_random_idx(tmp_path, 100)
    assert diffusion_speed.lit_gen_epoch(diffusion_speed.words(), str(tmp_path), 100) > 0
    network = partial(diffusion_speed.lit_gen_network, channels=8)
    model = diffusion_speed.DDPM((1, 28, 28), network=network, sampler=partial(diffusion_speed.DDIMSampler, 2))
    assert diffusion_speed.lit_gen_samples(model.eval()) > 0
