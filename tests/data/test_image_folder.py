"""Any folder of images."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
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
    data = ImageFolder(str(tmp_path), val_size=6, test_size=6, in_memory=in_memory, num_workers=0)
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


@pytest.mark.parametrize(
    ("modes", "channels", "message"),
    [
        (("L",), 1, None),
        (("RGB",), 3, None),
        (("L", "RGB"), 3, "have 1 or 3 channels; all images are given 3 (colour). --data.channels"),
        (("RGB", "L"), 3, "have 1 or 3 channels; all images are given 3 (colour). --data.channels"),
        (("L", "LA"), 1, "have 1 or 2 channels; all images are given 1 (grey), transparent pixels put on white"),
        (("RGBA",), 3, "have 4 channels; all images are given 3 (colour), transparent pixels put on white"),
        (("LA", "L", "RGBA"), 3, "have 1 or 2 or 4 channels; all images are given 3 (colour), transparent"),
    ],
)
def test_colour_if_any_file_is_and_without_transparency(
    modes: tuple[str, ...], channels: int, message: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for i, mode in enumerate(modes):
        picture(tmp_path / f"{i}.png", mode, seed=i)
    with caplog.at_level(logging.INFO):
        data = ImageFolder(str(tmp_path), val_size=0, test_size=0)
    assert data.image_shape == (channels, 8, 12)
    assert [message in line for line in caplog.messages] == ([] if message is None else [True])
    caplog.clear()
    images, _ = next(iter(data.train_dataloader()))
    assert images.shape == (len(modes), channels, 8, 12)
    with caplog.at_level(logging.INFO):
        assert ImageFolder(str(tmp_path), channels=1, val_size=0, test_size=0).image_shape == (1, 8, 12)
    assert caplog.messages == [], "nothing was chosen for the user"


def test_few_files_of_a_large_folder_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(30):
        picture(tmp_path / f"{i:02}.png", "RGB" if i == 20 else "L")
    opened = []
    monkeypatch.setattr(
        "lit_gen.data.image_folder.stored_shape",
        lambda path, **_: opened.append(path.stem) or ((3 if path.stem == "20" else 1), 8, 12),
    )
    monkeypatch.setattr("lit_gen.data.image_folder.HEADERS", 7)
    assert ImageFolder(str(tmp_path)).image_shape == (3, 8, 12)
    assert opened == ["00", "05", "10", "15", "20", "25"]


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_transparent_files_with_any_number_of_channels(channels: int | None, tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:, 2:] = (255, 0, 0, 255)  # the left half is transparent, the right red
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "b.tif")  # red
    data = ImageFolder(str(tmp_path), channels=channels, val_size=0, test_size=0, batch_size=1)
    images, _ = zip(*data.train_dataloader(), strict=True)
    half = next(image for image in images if not torch.equal(image[0, :, 0, 0], image[0, :, 0, 3]))[0]
    red = next(image for image in images if torch.equal(image[0, :, 0, 0], image[0, :, 0, 3]))[0]
    left, right = {1: ([1], [76 / 255]), 3: ([1, 1, 1], [1, 0, 0]), 4: ([0, 0, 0, 0], [1, 0, 0, 1])}[channels or 3]
    assert half[:, 0, 0].tolist() == pytest.approx(left)
    assert half[:, 0, 3].tolist() == red[:, 0, 0].tolist() == pytest.approx(right)


def test_opaque_files_can_be_given_transparency(tmp_path: Path) -> None:
    folder_of(tmp_path, 4)
    data = ImageFolder(str(tmp_path), channels=4, image_size=6)
    images, _ = next(iter(data.train_dataloader()))
    assert images.shape == (2, 4, 6, 6)
    assert images[:, 3].unique().tolist() == [1]
    with pytest.raises(ValueError, match=r"channels must be 1 .* or 3 .* or 4 \(colour with transparency\).*; got 2"):
        ImageFolder(str(tmp_path), channels=2)


def test_protocol_tells_folders_and_sizes_apart(tmp_path: Path) -> None:
    one, other = (folder_of(tmp_path / place / "images", 20) for place in ("one", "other"))
    data = ImageFolder(str(one))
    assert data.protocol == (
        "ImageFolder: 16 train / 2 val / 2 test images of 3x8x12; binarization none; "
        f"folder images (sha256 {data.digest} of names and sizes)"
    )
    assert ImageFolder(str(other), seed=1).protocol == data.protocol
    assert len(data.digest) == 8
    assert int(data.digest, 16) >= 0
    assert ImageFolder(str(one), test_root=str(other)).digest != data.digest

    assert "images of 3x6x6; resized from 8x12;" in ImageFolder(str(one), image_size=6).protocol
    cropped = ImageFolder(str(one), image_size=6, crop=8).protocol
    assert "images of 3x6x6; resized from 8x8;" in cropped
    assert cropped.endswith("; centre crop 8")
    assert "resized" not in ImageFolder(str(one), crop=6).protocol

    (other / "a" / "000.png").rename(other / "a" / "renamed.png")
    renamed = ImageFolder(str(other)).digest
    picture(other / "a" / "renamed.png", size=(30, 20))
    resized = ImageFolder(str(other), image_size=(8, 12))
    assert len({data.digest, renamed, resized.digest}) == 3
    assert "images of 3x8x12; resized from various sizes;" in resized.protocol


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


@pytest.mark.parametrize("options", [{}, {"in_memory": False, "num_workers": 0}])
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
