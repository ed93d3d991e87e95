"""Arrays and tensors, from files and from Python."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_gen.data import Arrays
from tests.data.common import Recorder, everything, trainer

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (20, 3, 6, 5), dtype=np.uint8)
LABELS = np.arange(20) % 4


def restored(data: Arrays) -> list[bytes]:
    """The pixels of all images of all splits, sorted."""
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    images = torch.cat([images for loader in loaders for images, _ in loader])
    return pixels((images * 255).round().byte().numpy())


def pixels(images: np.ndarray) -> list[bytes]:
    return sorted(image.tobytes() for image in images)


def labelled(data: Arrays) -> Arrays:
    """Check that there are two splits of two and one of sixteen, with all targets."""
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    targets = torch.cat([everything(loader)[1] for loader in loaders])
    assert sorted(targets.tolist()) == sorted(LABELS.tolist())
    assert data.num_classes == 4
    return data


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", ["npy", "npz", "pt", "pt dictionary", "array", "tensor"])
def test_every_source(kind: str, channels_last: bool, tmp_path: Path) -> None:
    images = COLOUR.transpose(0, 2, 3, 1) if channels_last else COLOUR
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "y.npy", LABELS)
    np.savez(tmp_path / "x.npz", images=images, labels=LABELS)
    torch.save(torch.from_numpy(images), tmp_path / "x.pt")
    torch.save({"images": torch.from_numpy(images), "labels": torch.from_numpy(LABELS)}, tmp_path / "xy.pt")
    where: dict[str, dict[str, Any]] = {
        "npy": {"images": str(tmp_path / "x.npy"), "targets": str(tmp_path / "y.npy")},
        "npz": {"images": str(tmp_path / "x.npz"), "targets_key": "labels"},
        "pt": {"images": str(tmp_path / "x.pt"), "targets": LABELS},
        "pt dictionary": {"images": str(tmp_path / "xy.pt"), "targets_key": "labels"},
        "array": {"images": images, "targets": LABELS},
        "tensor": {"images": torch.from_numpy(images), "targets": torch.from_numpy(LABELS)},
    }
    data = Arrays(**where[kind])
    assert data.image_shape == (3, 6, 5)
    assert data.num_train == 16
    assert restored(labelled(data)) == pixels(COLOUR)


def test_protocol_tells_arrays_apart(tmp_path: Path) -> None:
    data = Arrays(COLOUR)
    line = data.protocol
    assert line == (
        "Arrays: 16 train / 2 val / 2 test images of 3x6x5; binarization none; "
        f"arrays given in Python (sha256 {data.digest} of the pixels)"
    )
    data.setup()
    assert data.protocol == Arrays(COLOUR.copy(), seed=1).protocol == line

    changed = COLOUR.copy()
    changed[-1, -1, -1, -1] ^= 1
    np.save(tmp_path / "x.npy", COLOUR.transpose(0, 2, 3, 1))
    same = [str(tmp_path / "x.npy"), torch.from_numpy(COLOUR), COLOUR / 255]
    others = [changed, COLOUR[::-1], COLOUR[:-1], COLOUR.reshape(20, 3, 5, 6)]
    assert {Arrays(images).digest for images in same} == {data.digest}
    digests = [data.digest, *(Arrays(images).digest for images in others)]
    digests += [Arrays(COLOUR, test_images=images).digest for images in (COLOUR, changed)]
    assert len(set(digests)) == len(digests)
    assert all(len(digest) == 8 and int(digest, 16) >= 0 for digest in digests)


def test_digest_goes_over_all_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Arrays(COLOUR).digest
    monkeypatch.setattr("lit_gen.data.arrays.CHUNK", 7)
    assert Arrays(COLOUR).digest == whole
    assert restored(Arrays(COLOUR)) == pixels(COLOUR)


def test_pixels_and_targets_stay_together() -> None:
    images = np.broadcast_to((LABELS * 10).astype(np.uint8)[:, None, None], (20, 4, 4))
    drawn, targets = everything(Arrays(images, LABELS).train_dataloader())
    assert torch.equal((drawn[:, 0, 0, 0] * 255).round().long(), 10 * targets)


@pytest.mark.parametrize("kind", ["float32", "float64", "bool", "bfloat16"])
def test_other_numbers(kind: str) -> None:
    binary = COLOUR > 127
    if kind == "bfloat16":  # which NumPy does not have
        source = torch.from_numpy(binary).to(torch.bfloat16)
    else:
        source = binary if kind == "bool" else (COLOUR / 255).astype(kind)
    wanted = COLOUR if kind.startswith("float") else binary * np.uint8(255)
    assert restored(Arrays(source)) == pixels(wanted)


def test_test_images_and_their_targets() -> None:
    data = Arrays(COLOUR, LABELS, test_images=COLOUR[:5], test_targets=LABELS[:5] + 3, val_size=4)
    assert data.num_classes == 7
    assert data.num_train == 16
    assert everything(data.test_dataloader())[1].tolist() == (LABELS[:5] + 3).tolist()


def test_setup_in_any_order_and_again(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", COLOUR)
    data = Arrays(str(tmp_path / "x.npy"))
    data.setup("test")
    data.setup("fit")
    assert restored(data) == pixels(COLOUR)


def test_checkpoint_holds_paths_but_no_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((9, 8, 8), np.uint8))
    np.save(tmp_path / "y.npy", np.zeros(9, int))
    for images, kept in ((str(tmp_path / "x.npy"), str(tmp_path / "x.npy")), (torch.zeros(9, 8, 8), None)):
        data = Arrays(images, targets=tmp_path / "y.npy")
        assert data.hparams["images"] == kept
        trainer(tmp_path / "run", max_steps=1).fit(Recorder(), datamodule=data)
        stored = torch.load(tmp_path / "run" / "1.ckpt", weights_only=True)["datamodule_hyper_parameters"]
        assert stored["images"] == kept
        assert stored["targets"] == str(tmp_path / "y.npy")
        (tmp_path / "run" / "1.ckpt").unlink()
    with pytest.raises(ValueError, match=r"images is missing: .*which a checkpoint does not keep"):
        Arrays(**{key: value for key, value in stored.items() if not key.startswith("_")})


def bytes_of(*shape: int) -> np.ndarray:
    return np.full(shape, 9, np.uint8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": bytes_of(9, 3, 5, 3)}, "do channels come first or last"),
        ({"images": bytes_of(9, 8, 5, 6)}, "do channels come first or last"),
        ({"images": bytes_of(9, 8)}, r"images must be \(N, H, W\).*got shape \(9, 8\)"),
        ({"images": bytes_of(9, 4, 4), "targets": np.zeros(8, int)}, r"shape \(9,\).*got int64 \(8,\)"),
        ({"images": bytes_of(9, 4, 4), "targets": np.zeros(9)}, "whole numbers"),
        ({"images": bytes_of(9, 4, 4), "targets": np.full(9, -1)}, "numbered from 0, got -1"),
        ({"images": bytes_of(9, 4, 4), "targets_key": "y"}, "no file of several arrays"),
        ({"images": bytes_of(9, 4, 4), "targets": np.zeros(9, int), "targets_key": "y"}, "give one"),
        ({"images": bytes_of(9, 4, 4), "test_targets": np.zeros(9, int)}, "test_targets without test_images"),
        ({"images": bytes_of(9, 4, 4), "test_images": bytes_of(9, 5, 4)}, r"\(1, 4, 4\) and \(1, 5, 4\)"),
        ({"images": bytes_of(9, 4, 4), "test_images": bytes_of(9, 4, 4), "test_size": 3}, "cannot be combined"),
        (
            {"images": bytes_of(9, 4, 4), "targets": np.zeros(9, int), "test_images": bytes_of(9, 4, 4)},
            "both have targets, or neither",
        ),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Arrays(**options)


def test_layout_settles_what_is_ambiguous() -> None:
    assert Arrays(bytes_of(9, 3, 5, 3), layout="NCHW").image_shape == (3, 5, 3)
    assert Arrays(bytes_of(9, 3, 5, 3), layout="NHWC").image_shape == (3, 3, 5)
    last = Arrays(bytes_of(20, 8, 5, 6), layout="NHWC")
    assert next(iter(last.train_dataloader()))[0].shape == (16, 6, 8, 5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((9, 4, 4), 1.5), r"must be in \[0, 1\], got 1.5 to 1.5"),
        (np.full((9, 4, 4), np.nan), r"must be in \[0, 1\], got nan"),
        (np.full((9, 4, 4), -0.5), r"must be in \[0, 1\]"),
        (np.full((9, 4, 4), 3), "must be uint8, bool, or float .* got int64"),
        (np.full((9, 4, 4), 1, np.uint8), "which is black: store them as bool"),
    ],
)
def test_wrong_values(images: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Arrays(images).setup("fit")


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere\.npy"):
        Arrays(str(tmp_path / "nowhere.npy"))
    np.savez(tmp_path / "x.npz", a=COLOUR, b=LABELS)
    with pytest.raises(ValueError, match=r"x.npz holds a, b, but nothing named 'images': set images_key"):
        Arrays(str(tmp_path / "x.npz"))
    with pytest.raises(ValueError, match=r"x.npz holds a, b, but nothing named 'c': set targets_key"):
        Arrays(str(tmp_path / "x.npz"), images_key="a", targets_key="c")
    for name in ("bad.npy", "bad.npz", "bad.pt"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(ValueError, match=rf"{name} cannot be read as an array of numbers"):
            Arrays(str(tmp_path / name))
    (tmp_path / "x.csv").write_text("1")
    with pytest.raises(ValueError, match=r"unknown ending '.csv', expected .npy, .npz or .pt"):
        Arrays(str(tmp_path / "x.csv"))
    with pytest.raises(TypeError, match="expected a path, a NumPy array or a tensor, got list"):
        Arrays([1, 2])


def test_voxels() -> None:
    voxels = torch.rand(40, 1, 4, 5, 6) < 0.5
    data = Arrays(voxels, targets=torch.arange(40), batch_size=7)
    assert data.image_shape == (1, 4, 5, 6)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        images, targets = everything(loader)
        assert torch.equal(images, voxels[targets].float())
    with pytest.raises(ValueError, match=r"voxels \(N, 1, D, H, W\);.*got shape \(40, 2, 4, 5, 6\)"):
        Arrays(voxels.expand(-1, 2, -1, -1, -1))
