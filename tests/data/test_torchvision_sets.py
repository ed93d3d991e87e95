"""Sets that torchvision downloads: what happens when it cannot, and the readers of SVHN, STL-10 and CelebA."""

import errno
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from lit_gen.data import CIFAR10, KMNIST, MNIST, STL10, SVHN, CelebA, FashionMNIST, Omniglot
from tests.data.common import everything

RNG = np.random.default_rng(0)
DOWNLOADED = [MNIST, FashionMNIST, KMNIST, Omniglot, CIFAR10, SVHN, STL10, CelebA]


def failing(error: BaseException) -> Any:
    def download(self: Any) -> None:
        folder = Path(self.root)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "train_32x32.mat").write_bytes(b"half a file")
        raise error

    return download


@pytest.mark.parametrize("data_set", DOWNLOADED)
def test_no_network(data_set: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getattr(datasets, data_set.__name__), "download", failing(URLError("Name not known")))
    data = data_set(str(tmp_path / "new"))
    with pytest.raises(FileNotFoundError) as caught:
        data.prepare_data()
    message = str(caught.value)
    assert f"{data_set.__name__} is not in {tmp_path / 'new'} and could not be downloaded" in message
    assert "Name not known" in message
    assert f"put {data.required[0]}" in message
    assert "--data.root" in message
    assert "\n" not in message
    with pytest.raises(FileNotFoundError, match=f"{data_set.__name__} is not in .*--data.root"):
        data.setup("fit")


@pytest.mark.parametrize("chained", [False, True])
def test_no_space(chained: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full: Exception = OSError(errno.ENOSPC, "No space left on device")
    if chained:
        outer = RuntimeError("extraction failed")
        outer.__context__ = full
        full = outer
    monkeypatch.setattr(datasets.SVHN, "download", failing(full))
    with pytest.raises(OSError, match=rf"SVHN: no space left in {tmp_path}\. Free some"):
        SVHN(str(tmp_path)).prepare_data()


def test_no_access(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.SVHN, "download", failing(PermissionError(errno.EACCES, "Permission denied")))
    with pytest.raises(PermissionError, match=r"SVHN: no access to .*Name another folder"):
        SVHN(str(tmp_path)).prepare_data()


@pytest.mark.parametrize("error", [URLError("gone"), KeyboardInterrupt()])
def test_half_a_download_does_not_pass_for_the_data(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test_32x32.mat").write_bytes(b"was there before")
    monkeypatch.setattr(datasets.SVHN, "download", failing(error))
    with pytest.raises((FileNotFoundError, KeyboardInterrupt)):
        SVHN(str(tmp_path)).prepare_data()
    assert [path.name for path in tmp_path.iterdir()] == ["test_32x32.mat"]


def test_damaged_files(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / f"{name}_32x32.mat").write_bytes(b"nothing of the kind")
    data = SVHN(str(tmp_path))
    data.prepare_data()  # nothing is missing
    with pytest.raises(FileNotFoundError, match=r"SVHN in .* is incomplete or damaged: delete it and fetch it again"):
        data.setup("fit")


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = {
        name: RNG.integers(0, 256, (32, 32, 3, size), dtype=np.uint8) for name, size in (("train", 20), ("test", 4))
    }
    for name, pixels in images.items():
        labels = np.array([10, 1, 2, 9] * 5, np.uint8)[: pixels.shape[3], None]
        savemat(tmp_path / f"{name}_32x32.mat", {"X": pixels, "y": labels})
    known = {name: ["", f"{name}_32x32.mat", None] for name in ("train", "test")}
    monkeypatch.setattr(datasets.SVHN, "split_list", known)
    data = SVHN(tmp_path, val_size=4)  # type: ignore[arg-type]
    got, targets = everything(data.test_dataloader())
    assert np.array_equal((got * 255).round().byte().numpy(), images["test"].transpose(3, 2, 0, 1))
    assert targets.tolist() == [0, 1, 2, 9]
    assert targets.dtype == torch.int64
    data.setup("fit")
    assert data.num_train == 16
    assert data.hparams["root"] == str(tmp_path)


@pytest.mark.parametrize("unlabeled", [False, True])
def test_stl10(unlabeled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    images = {
        name: RNG.integers(0, 256, (size, 3, 96, 96), dtype=np.uint8)
        for name, size in (("train", 6), ("test", 3), ("unlabeled", 8))
    }
    for name, pixels in images.items():
        pixels.transpose(0, 1, 3, 2).tofile(folder / f"{name}_X.bin")  # stored column by column
        if name != "unlabeled":
            (np.arange(len(pixels), dtype=np.uint8) % 10 + 1).tofile(folder / f"{name}_y.bin")
    for attribute in ("train_list", "test_list"):
        known = [[name, None] for name, _ in getattr(datasets.STL10, attribute)]
        monkeypatch.setattr(datasets.STL10, attribute, known)
    data = STL10(str(tmp_path), unlabeled=unlabeled, val_size=2)
    assert data.image_shape == (3, 96, 96)
    assert data.num_classes == (0 if unlabeled else 10)
    data.prepare_data()
    (got, targets), *_ = data.test_dataloader()
    assert np.array_equal((got * 255).round().byte().numpy(), images["test"])
    assert targets is None if unlabeled else targets.tolist() == [0, 1, 2]
    data.setup("fit")
    assert data.num_train == (12 if unlabeled else 4)
    assert (next(iter(data.train_dataloader()))[1] is None) == unlabeled
    assert ("unlabelled" in data.protocol) == unlabeled


def write_celeba(root: Path) -> None:
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06}.jpg" for i in range(1, 13)]
    for i, name in enumerate(names):
        picture = Image.new("RGB", (178, 218), (0, 0, 0))
        picture.paste((20 * i, 0, 0), (15, 35, 163, 183))  # the central square of 148
        picture.save(folder / "img_align_celeba" / name, quality=95)
    write = {
        "list_eval_partition.txt": [f"{name} {i // 4}" for i, name in enumerate(names)],
        "identity_CelebA.txt": [f"{name} 7" for name in names],
        "list_bbox_celeba.txt": ["12", "image_id x_1 y_1 width height", *(f"{name} 1 2 3 4" for name in names)],
        "list_landmarks_align_celeba.txt": ["12", "a b c d e f g h i j", *(f"{n} 1 2 3 4 5 6 7 8 9 0" for n in names)],
        "list_attr_celeba.txt": [
            "12",
            "Bald Smiling",
            *(f"{name} -1 {2 * (i % 2) - 1}" for i, name in enumerate(names)),
        ],
    }
    for name, lines in write.items():
        (folder / name).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("in_memory", [True, False])
def test_celeba(in_memory: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_celeba(tmp_path)
    known = [(one, None, name) for one, _, name in datasets.CelebA.file_list]
    monkeypatch.setattr(datasets.CelebA, "file_list", known)
    data = CelebA(str(tmp_path), attribute="Smiling", image_size=16, in_memory=in_memory)
    assert (data.image_shape, data.num_classes) == ((3, 16, 16), 2)
    data.prepare_data()
    for loader, first in ((data.train_dataloader(), 0), (data.val_dataloader(), 4), (data.test_dataloader(), 8)):
        images, targets = everything(loader)
        means = images[:, 0].mean((1, 2)) * 255
        assert np.allclose(sorted(means.tolist()), [20 * i for i in range(first, first + 4)], atol=3)
        assert torch.equal((means / 20).round().long() % 2, targets)
    assert data.protocol == (
        "CelebA: 4 train / 4 val / 4 test images of 3x16x16; resized from 148x148; binarization none; centre crop 148"
    )
    assert next(iter(CelebA(str(tmp_path)).val_dataloader()))[1] is None
    assert CelebA(str(tmp_path), crop=None, image_size=None).image_shape == (3, 218, 178)
    with pytest.raises(ValueError, match="no attribute 'Happy'; it has Bald, Smiling"):
        CelebA(str(tmp_path), attribute="Happy")
    with pytest.raises(ValueError, match="CelebA has its own validation split of 19,867 images: leave val_size out"):
        CelebA(str(tmp_path), val_size=10)
