"""Any folder of images."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lit_gen.data import ImageFolder
from tests.data.common import everything, folder_of, picture


def test_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for i in range(20):
        picture(tmp_path / f"{i}.png", size=(9, 14), seed=i)
    (tmp_path / "notes.txt").write_text("not an image")
    picture(tmp_path / ".hidden.png")
    data = ImageFolder(str(tmp_path))
    assert data.image_shape == (3, 14, 9)
    assert data.num_classes == 0
    assert data.num_train == 16
    images, targets = next(iter(data.train_dataloader()))
    assert images.shape == (16, 3, 14, 9)
    assert targets is None
    assert f"folder {tmp_path.name}" in data.protocol


@pytest.mark.parametrize("in_memory", [True, False])
def test_class_folders_are_labels(in_memory: bool, tmp_path: Path) -> None:
    for i in range(30):
        place = tmp_path / f"class{i % 3}" / f"deeper{i % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.new("L", (12, 8), 10 * (i % 3)).save(place / f"{i}.png")
    data = ImageFolder(str(tmp_path), val_size=6, test_size=6, in_memory=in_memory)
    assert data.classes == ["class0", "class1", "class2"]
    assert data.num_classes == 3
    assert data.image_shape == (1, 8, 12)
    seen = 0
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        images, targets = everything(loader)
        assert torch.equal((images[:, 0, 0, 0] * 255).round().long(), 10 * targets)
        seen += len(images)
    assert seen == 30


def test_mixed_files_in_one_folder(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", "RGB", (12, 8))
    picture(tmp_path / "b.png", "RGBA", (30, 7))
    picture(tmp_path / "c.jpg", "L", (5, 50))
    data = ImageFolder(str(tmp_path), image_size=(10, 6), val_size=1, test_size=1, channels=3)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert next(iter(loader))[0].shape == (1, 3, 10, 6)


def test_one_class_folder_is_no_label(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    for i in range(4):
        picture(tmp_path / "all" / f"{i}.png")
    assert ImageFolder(str(tmp_path)).num_classes == 0


def test_test_root(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", 20)
    folder_of(tmp_path / "test", 6)
    data = ImageFolder(str(tmp_path / "train"), test_root=str(tmp_path / "test"))
    assert data.num_train == 18
    assert everything(data.test_dataloader())[1].tolist() == [0, 0, 0, 1, 1, 1]
    assert "18 train / 2 val / 6 test" in data.protocol
    (tmp_path / "test" / "c").mkdir()
    picture(tmp_path / "test" / "c" / "0.png")
    with pytest.raises(ValueError, match=r"class folders .* that .* does not have: 'c'"):
        ImageFolder(str(tmp_path / "train"), test_root=str(tmp_path / "test"))


def test_no_folder_and_no_images(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        ImageFolder(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"no images below .*: looked for files ending in \.jpg"):
        ImageFolder(str(tmp_path))


def test_split_folders_are_not_classes(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", 4)
    folder_of(tmp_path / "test", 4)
    with pytest.raises(ValueError, match=r"\(test, train\) look like splits, not classes: name one of them as root"):
        ImageFolder(str(tmp_path))


@pytest.mark.parametrize("options", [{}, {"in_memory": False}])
def test_differing_sizes_need_image_size(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(tmp_path, 20)
    odd = picture(tmp_path / "a" / "000x.png", size=(12, 9))
    with pytest.raises(ValueError, match=r"images differ in size: .*--data.image_size 64"):
        ImageFolder(str(tmp_path), **options)
    assert ImageFolder(str(tmp_path), image_size=4, **options).image_shape == (3, 4, 4)

    monkeypatch.setattr("lit_gen.data.image_folder.HEADERS", 2)  # not all files are looked at beforehand
    data = ImageFolder(str(tmp_path), val_size=0, test_size=0, **options)
    with pytest.raises(ValueError, match=rf"{odd.name} is 9x12, others are 8x12: .*--data.image_size 64"):
        everything(data.train_dataloader())


def test_damaged_first_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cannot read image .*a\.png"):
        ImageFolder(str(tmp_path))


def test_too_few_images(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match="has 1 images to train on: holding out 1 for test and 1 for val leaves none"):
        ImageFolder(str(tmp_path))
    assert ImageFolder(str(tmp_path), val_size=0, test_size=0).num_train == 1


@pytest.mark.parametrize("options", [{"test_size": -1}, {"test_size": 3, "test_root": "x"}])
def test_wrong_test_size(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"test_size=-?\d: must not be negative, and cannot be combined"):
        ImageFolder(str(tmp_path), **options)


def test_paths_are_plain_in_checkpoints(tmp_path: Path) -> None:
    folder_of(tmp_path, 4)
    data = ImageFolder(tmp_path, test_root=tmp_path)  # type: ignore[arg-type]
    assert data.hparams["root"] == data.hparams["test_root"] == str(tmp_path)
