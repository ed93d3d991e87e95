"""Whole house numbers: the boxes of a small digitStruct.mat, what is cut out, and where batches look."""

import builtins
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lit_gen.data import SVHNNumbers
from lit_gen.data.svhn_numbers import Crops, Number, cut_out, read_numbers

RNG = np.random.default_rng(0)


def everything(loader: Any) -> Tensor:
    """All images of a loader, which gives no targets."""
    batches = list(loader)
    assert all(target is None for _, target in batches)
    return torch.cat([images for images, _ in batches])


def write_structure(path: Path, photographs: dict[str, list[tuple[int, int, int, int]]]) -> None:
    """A file as MATLAB writes it: a box is (left, top, width, height), and there is one for each digit."""
    with h5py.File(path, "w") as file:
        names = file.create_dataset("digitStruct/name", (len(photographs), 1), h5py.ref_dtype)
        boxes = file.create_dataset("digitStruct/bbox", (len(photographs), 1), h5py.ref_dtype)
        for i, (name, digits) in enumerate(photographs.items()):
            letters = file.create_dataset(f"#refs#/name{i}", data=np.array([[ord(one)] for one in name], np.uint16))
            names[i, 0] = letters.ref
            group = file.create_group(f"#refs#/bbox{i}")
            boxes[i, 0] = group.ref
            for field, values in zip(("left", "top", "width", "height"), zip(*digits, strict=True), strict=True):
                if len(values) == 1:
                    group.create_dataset(field, data=np.array([[values[0]]], float))
                    continue
                references = group.create_dataset(field, (len(values), 1), h5py.ref_dtype)
                for j, value in enumerate(values):
                    stored = file.create_dataset(f"#refs#/{field}{i}-{j}", data=np.array([[value]], float))
                    references[j, 0] = stored.ref


def make_folder(root: Path, folder: str, count: int) -> None:
    """Photographs of unlike size, a white number of one or two digits on each."""
    (root / folder).mkdir(parents=True)
    photographs = {}
    for i in range(1, count + 1):
        pixels = RNG.integers(0, 100, (40 + i, 60 + 2 * i, 3), dtype=np.uint8)
        digits = [(10, 8, 8, 20), (19, 9, 9, 20)][: 1 + i % 2]
        for left, top, width, height in digits:
            pixels[top : top + height, left : left + width] = 255
        Image.fromarray(pixels).save(root / folder / f"{i}.png")
        photographs[f"{i}.png"] = digits
    write_structure(root / folder / "digitStruct.mat", photographs)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder, count in (("train", 8), ("extra", 6), ("test", 5)):
        make_folder(tmp_path, folder, count)
    return tmp_path


def test_boxes_are_about_all_digits(tmp_path: Path) -> None:
    write_structure(
        tmp_path / "digitStruct.mat", {"1.png": [(10, 8, 6, 20)], "22.png": [(30, 5, 7, 9), (20, 7, 8, 11)]}
    )
    assert read_numbers(tmp_path / "digitStruct.mat") == [
        Number("1.png", 10, 8, 16, 28),
        Number("22.png", 20, 5, 37, 18),
    ]


def test_number_is_cut_out_with_its_margin(tmp_path: Path) -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[20:60, 50:110] = 255
    Image.fromarray(pixels).save(tmp_path / "1.png")
    found = cut_out(tmp_path / "1.png", Number("1.png", 50, 20, 110, 60)).float() / 255
    assert found.shape == (3, 64, 64)
    # 15 percent on each side: the number takes 1 / 1.3 of height and width.
    assert found.mean().item() == pytest.approx(1 / 1.3**2, abs=0.01)
    for corner in (found[:, :7, :7], found[:, -7:, -7:]):
        assert not corner.any()
    # A box that reaches beyond the photograph is cut off there.
    beyond = cut_out(tmp_path / "1.png", Number("1.png", 0, -30, 200, 130)).float() / 255
    assert beyond.mean().item() == pytest.approx(40 * 60 / (100 * 200), abs=0.01)
    with pytest.raises(ValueError, match=r"the box of .*1\.png .* lies outside it"):
        cut_out(tmp_path / "1.png", Number("1.png", 300, 20, 310, 60))


def test_data(root: Path) -> None:
    data = SVHNNumbers(str(root), val_size=4, batch_size=3)
    assert data.image_shape == (3, 54, 54)
    data.prepare_data()
    data.setup("fit")
    assert data.num_train == 10
    assert {path.name for path in root.glob("*.npy")} == {
        f"numbers_64x64_{part}.npy" for part in ("train", "extra", "test")
    }
    images = everything(data.test_dataloader())
    stored = np.load(root / "numbers_64x64_test.npy")
    assert np.array_equal((images * 255).round().byte().numpy(), stored[:, :, 5:59, 5:59])
    assert (images > 0.9).float().mean() > 0.4, "most of what is cut out is the number"
    assert "random squares of 54x54 in training" in data.protocol
    # What was kept serves without the photographs, and says how many there are.
    for photograph in root.glob("*/*.png"):
        photograph.unlink()
    again = SVHNNumbers(str(root), extra=False)
    assert (again.info.train_size, again.info.test_size) == (8, 5)
    again.prepare_data()
    assert torch.equal(everything(again.test_dataloader()), images)


def test_squares_move_in_training_alone(root: Path) -> None:
    data = SVHNNumbers(str(root), val_size=4, batch_size=20)
    data.prepare_data()
    data.setup("fit")
    val = data.val_dataloader()
    assert torch.equal(everything(val), everything(val))
    loader = data.train_dataloader()
    images = loader.images
    assert isinstance(images, Crops)
    seen = []
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        batch, _ = next(iter(loader))
        corners = images.corners[loader.batches()[0]]
        for image, index, (row, column) in zip(batch, loader.batches()[0], corners.tolist(), strict=True):
            whole = images.images[index]
            assert torch.equal((image * 255).round().byte(), whole[:, row : row + 54, column : column + 54])
        seen.append(batch)
        reference = everything(data.reference_dataloader())
        assert torch.equal((reference * 255).round().byte(), images.images[:, :, 5:59, 5:59])
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


def test_squares_reach_every_place() -> None:
    crops = Crops(torch.zeros(20_000, 1, 64, 64, dtype=torch.uint8), 54, (1, 54, 54), 0, random=True)
    for corner in crops.corners.unbind(1):
        counts = torch.bincount(corner, minlength=11)
        assert len(counts) == 11
        assert counts.min() > 1500


def test_other_sizes(root: Path) -> None:
    data = SVHNNumbers(str(root), image_size=27, channels=1, val_size=4)
    data.prepare_data()
    images = everything(data.test_dataloader())
    assert images.shape == (5, 1, 27, 27)


def test_folder_that_cannot_be_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("lit_gen.data.svhn_numbers.tempfile.mkstemp", refuse)
    data = SVHNNumbers(str(root), val_size=4)
    data.prepare_data()
    assert not list(root.glob("*.npy"))
    images = everything(data.test_dataloader())
    assert images.shape == (5, 3, 54, 54)


def test_mistakes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"no train/digitStruct\.mat.*train\.tar\.gz.*--data\.root"):
        SVHNNumbers(str(root / "nowhere")).prepare_data()
    (root / "extra" / "digitStruct.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"no extra/digitStruct\.mat.*set data\.extra=false"):
        SVHNNumbers(str(root)).prepare_data()
    (root / "extra" / "digitStruct.mat").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"is no digitStruct\.mat of SVHN's format 1"):
        SVHNNumbers(str(root)).prepare_data()
    with pytest.raises(ValueError, match="binarization=static does not fit SVHNNumbers"):
        SVHNNumbers(str(root), binarization="static")
    imported = builtins.__import__

    def without_h5py(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "h5py":
            raise ImportError(name)
        return imported(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without_h5py)
    with pytest.raises(ImportError, match=r"takes h5py to read: pip install 'lit-gen\[svhn\]'"):
        SVHNNumbers(str(root), extra=False, val_size=1)._cut_out("train")
