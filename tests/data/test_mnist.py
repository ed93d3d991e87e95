"""MNIST and its like: idx files, gzipped or not, and the published binarization."""

import gzip
import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_gen.data import KMNIST, MNIST, FashionMNIST
from lit_gen.data.mnist import PUBLISHED_MD5, read_amat, read_idx
from tests.data.common import everything

RNG = np.random.default_rng(0)
IMAGES = {
    "train": RNG.integers(0, 256, (30, 28, 28), dtype=np.uint8),
    "t10k": RNG.integers(0, 256, (7, 28, 28), np.uint8),
}
LABELS = {"train": np.arange(30, dtype=np.uint8) % 10, "t10k": np.arange(7, dtype=np.uint8)}


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(root: Path, name: str = "MNIST", gzipped: bool = True) -> str:
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind, array in (("images-idx3", IMAGES[part]), ("labels-idx1", LABELS[part])):
            path = folder / f"{part}-{kind}-ubyte"
            if gzipped:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                path.write_bytes(idx(array))
    return str(root)


def write_published(root: Path, monkeypatch: pytest.MonkeyPatch, gzipped: bool) -> dict[str, np.ndarray]:
    folder = root / "binarized_mnist"
    folder.mkdir()
    bits = {name: RNG.integers(0, 2, (size, 784)) for name, size in (("train", 9), ("valid", 4), ("test", 5))}
    for name, rows in bits.items():
        text = "".join(" ".join(map(str, row)) + " \n" for row in rows.tolist()).encode()
        monkeypatch.setitem(PUBLISHED_MD5, name, hashlib.md5(text).hexdigest())
        path = folder / f"binarized_mnist_{name}.amat"
        if gzipped:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(text))
        else:
            path.write_bytes(text)
    return bits


@pytest.mark.parametrize("data_set", [MNIST, FashionMNIST, KMNIST])
@pytest.mark.parametrize("gzipped", [True, False])
def test_official_files(data_set: Any, gzipped: bool, tmp_path: Path) -> None:
    data = data_set(write_idx(tmp_path, data_set.__name__, gzipped), val_size=5)
    assert (data.image_shape, data.num_classes) == ((1, 28, 28), 10)
    before = sorted(tmp_path.rglob("*"))
    data.prepare_data()
    images, targets = everything(data.test_dataloader())
    assert torch.equal((images[:, 0] * 255).round().byte(), torch.from_numpy(IMAGES["t10k"]))
    assert targets.tolist() == LABELS["t10k"].tolist()
    images, targets = everything(data.train_dataloader())
    for image, target in zip((images[:, 0] * 255).round().byte().numpy(), targets.tolist(), strict=True):
        (number,) = np.flatnonzero((IMAGES["train"] == image).all((1, 2)))
        assert LABELS["train"][number] == target
    assert data.protocol.startswith(f"{data_set.__name__}: 25 train / 5 val / 7 test images of 1x28x28")
    assert sorted(tmp_path.rglob("*")) == before, "the folder may be read-only"


def test_sizes_are_known_before_the_download(tmp_path: Path) -> None:
    data = MNIST(str(tmp_path), val_size=5000, subset=100)
    assert data.num_train == 100
    assert "100 train / 5,000 val / 10,000 test" in data.protocol
    with pytest.raises(ValueError, match="60,000 images to train on: holding out 60,000 for val leaves none"):
        MNIST(str(tmp_path), val_size=60_000)
    with pytest.raises(ValueError, match="30 images to train on: holding out 10,000 for val leaves none"):
        MNIST(write_idx(tmp_path)).setup("fit")


@pytest.mark.parametrize("gzipped", [True, False])
def test_published_binarization(gzipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(tmp_path)
    bits = write_published(tmp_path, monkeypatch, gzipped)
    data = MNIST(root, binarization="static")
    assert data.num_classes == 0
    data.prepare_data()
    for loader, name in ((data.val_dataloader(), "valid"), (data.test_dataloader(), "test")):
        (images, targets), *_ = loader
        assert targets is None
        assert np.array_equal(images.flatten(1).numpy(), bits[name])
    drawn = torch.cat([images for images, _ in data.train_dataloader()]).flatten(1)
    assert sorted(drawn.tolist()) == sorted(bits["train"].tolist())
    assert "published files of Larochelle & Murray (2011)" in data.protocol
    assert "9 train / 4 val / 5 test" in data.protocol

    assert MNIST(root, binarization="stochastic").num_classes == 10
    other_size = MNIST(root, binarization="static", image_size=14)
    assert other_size.num_classes == 10
    assert "not the published files" in other_size.protocol
    with pytest.raises(ValueError, match="MNIST has its own validation split of 10,000 images: leave val_size out"):
        MNIST(root, binarization="static", val_size=5000)

    monkeypatch.setitem(PUBLISHED_MD5, "valid", "0" * 32)
    with pytest.raises(ValueError, match=r"valid\.amat is not the published file \(md5"):
        MNIST(root, binarization="static").setup("fit")
    (tmp_path / "binarized_mnist" / f"binarized_mnist_test.amat{'.gz' * gzipped}").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks binarized_mnist_test\.amat"):
        MNIST(root, binarization="static")


def test_own_draw_without_the_published_files(tmp_path: Path) -> None:
    data = MNIST(write_idx(tmp_path), binarization="static", val_size=5)
    images, targets = everything(data.test_dataloader())
    assert set(images.unique().tolist()) == {0.0, 1.0}
    assert targets.tolist() == LABELS["t10k"].tolist()
    assert data.protocol.endswith("binarization static; drawn once with seed 0, not the published files")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    good = idx(IMAGES["t10k"])
    for name, content in (
        ("short", good[:-1]),
        ("long", good + b"x"),
        ("empty", b""),
        ("other", b"\0\0\x0d" + good[3:]),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} is no complete idx file of bytes"):
            read_idx(tmp_path / name)
    for name, content in (("cut", gzip.compress(good)[:-20]), ("text", b"<html>")):
        (tmp_path / f"{name}.gz").write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}\.gz cannot be decompressed"):
            read_idx(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"neither .*nowhere nor nowhere\.gz"):
        read_amat(tmp_path / "nowhere", "0")
