"""Omniglot in torchvision's folder and in packed bits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from lit_gen.data import Omniglot
from tests.data.common import everything

RNG = np.random.default_rng(0)


def write_packed(root: Path) -> dict[str, np.ndarray]:
    (root / "omniglot").mkdir()
    ink = {}
    for name, size in (("background", 12), ("evaluation", 6)):
        ink[name] = RNG.integers(0, 2, (size, 105, 105), dtype=np.uint8)
        packed = np.packbits(ink[name].reshape(size, -1), axis=1)
        characters = (700 + np.arange(size) // 2).astype(np.uint16)
        np.savez(root / "omniglot" / f"omniglot_images_{name}_packed.npz", images_packed=packed, char_id=characters)
    return ink


def test_packed_bits(tmp_path: Path) -> None:
    ink = write_packed(tmp_path)
    data = Omniglot(str(tmp_path), image_size=None, val_size=2)
    assert (data.image_shape, data.num_classes) == ((1, 105, 105), 1623)
    data.prepare_data()
    images, targets = everything(data.test_dataloader())
    assert np.array_equal(images[:, 0].numpy(), ink["evaluation"])
    assert targets.tolist() == [964, 964, 965, 965, 966, 966]
    images, targets = everything(data.train_dataloader())
    for image, target in zip(images[:, 0].numpy(), targets.tolist(), strict=True):
        (number,) = np.flatnonzero((ink["background"] == image).all((1, 2)))
        assert target == number // 2


def test_default_size_and_what_it_means(tmp_path: Path) -> None:
    write_packed(tmp_path)
    data = Omniglot(str(tmp_path), val_size=2)
    assert data.image_shape == (1, 28, 28)
    assert next(iter(data.test_dataloader()))[0].shape == (6, 1, 28, 28)
    assert "resized from 105x105; binarization none; not the file of Burda et al. (2015)" in data.protocol
    assert "resized" not in Omniglot(str(tmp_path), image_size=None).protocol


def test_torchvisions_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("background", "evaluation"):
        for alphabet, character in (("Greek", "character01"), ("Greek", "character02"), ("Latin", "character01")):
            folder = tmp_path / "omniglot-py" / f"images_{name}" / alphabet / character
            folder.mkdir(parents=True)
            for drawer in (1, 2):
                drawing = Image.new("1", (105, 105), 1)
                drawing.putpixel((3, 7), 0)  # ink is black in the files
                drawing.save(folder / f"000{drawer}.png")
        (tmp_path / "omniglot-py" / f"images_{name}.zip").write_bytes(b"")
    monkeypatch.setattr(datasets.Omniglot, "zips_md5", {"images_background": None, "images_evaluation": None})
    data = Omniglot(str(tmp_path), image_size=None, val_size=1)
    images, targets = everything(data.test_dataloader())
    assert images.sum((1, 2, 3)).tolist() == [1.0] * 6
    assert images[0, 0, 7, 3] == 1
    assert targets.tolist() == [964, 964, 965, 965, 966, 966]
    assert everything(data.train_dataloader())[1].max() < 3
    assert targets.dtype == torch.int64


def test_damaged_file_is_named(tmp_path: Path) -> None:
    write_packed(tmp_path)
    (tmp_path / "omniglot" / "omniglot_images_evaluation_packed.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"evaluation_packed\.npz holds no packed drawings"):
        Omniglot(str(tmp_path)).setup("test")
