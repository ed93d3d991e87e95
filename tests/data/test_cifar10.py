"""CIFAR-10 in its official archive and in mosaics."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from lit_gen.data import CIFAR10
from tests.data.common import everything

RNG = np.random.default_rng(0)


def write_mosaics(root: Path) -> np.ndarray:
    """Two mosaics of training images and one of test images."""
    images = RNG.integers(0, 256, (3000, 32, 32, 3), dtype=np.uint8)
    (root / "cifar10").mkdir()
    for i, thousand in enumerate(np.split(images, 3)):
        mosaic = thousand.reshape(25, 40, 32, 32, 3).transpose(0, 2, 1, 3, 4).reshape(800, 1280, 3)
        Image.fromarray(mosaic).save(root / "cifar10" / f"cifar10_{i:02}.webp", lossless=True, method=0, quality=0)
    labels = (np.arange(3000) % 10).astype(np.uint8)
    np.savez(root / "cifar10" / "cifar10_labels.npz", train=labels[:2000], test_first1000=labels[2000:])
    return images


def test_mosaics(tmp_path: Path) -> None:
    images = write_mosaics(tmp_path)
    data = CIFAR10(str(tmp_path), val_size=100, batch_size=1000)
    assert (data.image_shape, data.num_classes) == ((3, 32, 32), 10)
    assert "1,000 test" in data.protocol, "known before anything is read"
    data.prepare_data()
    got, targets = everything(data.test_dataloader())
    assert np.array_equal((got * 255).round().byte().permute(0, 2, 3, 1).numpy(), images[2000:])
    assert targets.tolist() == [i % 10 for i in range(1000)]
    got, targets = everything(data.val_dataloader())
    for image, target in zip((got * 255).round().byte().permute(0, 2, 3, 1).numpy(), targets.tolist(), strict=True):
        (number,) = np.flatnonzero(
            (images[:2000, 0, 0] == image[0, 0]).all(1) & (images[:2000, 9, 9] == image[9, 9]).all(1)
        )
        assert np.array_equal(images[number], image)
        assert number % 10 == target
    assert "only 1,000 of the 10,000 test images" in data.protocol

    (tmp_path / "cifar10" / "cifar10_01.webp").unlink()
    with pytest.raises(FileNotFoundError, match=r"cifar10 lacks cifar10_01\.webp: fetch it again"):
        CIFAR10(str(tmp_path)).setup("fit")
    Image.new("RGB", (1280, 700)).save(tmp_path / "cifar10" / "cifar10_01.webp")
    with pytest.raises(ValueError, match=r"cifar10_01\.webp is no mosaic of 25 x 40 images"):
        CIFAR10(str(tmp_path)).setup("fit")
    (tmp_path / "cifar10" / "cifar10_labels.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"cifar10_labels\.npz is not there"):
        CIFAR10(str(tmp_path)).setup("test")


def test_official_archive_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mosaics(tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    stored = {}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        stored[name] = RNG.integers(0, 256, (4, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": stored[name], "labels": [3, 1, 4, 1]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    data = CIFAR10(str(tmp_path), val_size=5)
    with pytest.raises(FileNotFoundError, match="incomplete or damaged"):  # torchvision knows the true checksums
        data.setup("test")
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[f"data_batch_{i}", None] for i in range(1, 6)])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": None})
    images, targets = everything(data.test_dataloader())
    assert np.array_equal((images * 255).round().byte().flatten(1).numpy(), stored["test_batch"])
    assert targets.tolist() == [3, 1, 4, 1]
    assert targets.dtype == torch.int64
    data.setup("fit")
    assert data.protocol.startswith("CIFAR10: 15 train / 5 val / 4 test images of 3x32x32")
    assert "only" not in data.protocol
