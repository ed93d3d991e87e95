"""Decoding of image files, and streaming them in the order of a set in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lit_gen.data import ImageFolder
from lit_gen.data.files import ImageFiles, automatic_workers, decode, stored_shape
from tests.data.common import Recorder, everything, folder_of, picture, trainer

# Python 3.12 warns so of torch's worker processes wherever a library has started a thread.
forks = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_decode_gives_the_pixels(mode: str, tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", mode)
    shape = stored_shape(path)
    assert shape == ({"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode], 8, 12)
    wanted = np.asarray(Image.open(path)).reshape(8, 12, -1).transpose(2, 0, 1)
    assert np.array_equal(decode(path, shape, resize=False).numpy(), wanted)
    assert np.array_equal(decode(path, shape).numpy(), wanted)  # resized to what it is


def test_other_channels(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    grey = decode(path, (1, 8, 12))
    assert np.array_equal(grey[0].numpy(), np.asarray(Image.open(path).convert("L")))
    assert decode(picture(tmp_path / "b.png", "L"), (3, 8, 12)).unique(dim=0).shape[0] == 1


def test_transparent_pixels_show_white(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", (3, 2, 2))[0].tolist() == [[0, 255], [255, 255]]
    assert decode(tmp_path / "a.png", (1, 2, 2))[0].tolist() == [[0, 255], [255, 255]]
    assert decode(tmp_path / "a.png", (4, 2, 2))[3].tolist() == [[255, 0], [0, 0]]
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=0)
    assert stored_shape(tmp_path / "p.png") == (4, 2, 2)
    assert decode(tmp_path / "p.png", (3, 2, 2))[0].tolist() == [[255, 40], [255, 255]]


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 256], [32768, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert stored_shape(tmp_path / "a.png") == (1, 2, 2)
    assert decode(tmp_path / "a.png", (1, 2, 2))[0].tolist() == [[0, 1], [128, 255]]


def test_photographs_come_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    image = Image.new("RGB", (40, 20))
    image.paste((255, 255, 255), (0, 0, 20, 20))
    image.save(tmp_path / "a.jpg", exif=exif)
    shape = stored_shape(tmp_path / "a.jpg")
    assert shape == (3, 40, 20)
    upright = decode(tmp_path / "a.jpg", shape).float().mean((0, 2))
    image.save(tmp_path / "a.png", exif=exif)
    assert stored_shape(tmp_path / "a.png") == (3, 40, 20)
    assert upright[:18].min() > 200
    assert upright[22:].max() < 50


def test_crop(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", size=(12, 8))
    whole = decode(path, (3, 8, 12))
    assert torch.equal(decode(path, (3, 4, 4), crop=4, resize=False), whole[:, 2:6, 4:8])
    assert torch.equal(decode(path, (3, 8, 8), crop="fit"), whole[:, :, 2:10])
    assert torch.equal(decode(path, (3, 4, 12), crop="fit"), whole[:, 2:6])
    assert decode(path, (3, 5, 5), crop=4).shape == (3, 5, 5)
    with pytest.raises(ValueError, match=r"a.png is 8x12, too small for crop=9"):
        decode(path, (3, 5, 5), crop=9)


def test_large_jpeg_is_shrunk_as_if_decoded_whole(tmp_path: Path) -> None:
    y, x = np.mgrid[0:600, 0:800]
    pixels = np.stack([x * 255 / 800, y * 255 / 600, 127 + 100 * np.sin(x / 60)], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        wanted = np.asarray(image.resize((40, 30), Image.Resampling.BOX)).astype(int)
    got = decode(tmp_path / "a.jpg", (3, 30, 40)).permute(1, 2, 0).numpy()
    assert np.abs(got - wanted).mean() < 2


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"cannot read image .*a\.tif .*use the data set Arrays"):
        decode(tmp_path / "a.tif", (1, 4, 4))


@pytest.mark.parametrize("content", [b"", b"no picture at all", None])
def test_damaged_file_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = picture(tmp_path / "bad.png", size=(50, 50))
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(ValueError, match=r"cannot read image .*bad\.png"):
        decode(path, (3, 50, 50))


@forks
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # torch's advice on a machine with one core
@pytest.mark.parametrize("num_workers", [0, 2])
def test_streaming_gives_the_batches_of_memory(num_workers: int, tmp_path: Path) -> None:
    root = str(folder_of(tmp_path))
    options: dict[str, Any] = {
        "batch_size": 7,
        "image_size": (6, 5),
        "binarization": "stochastic",
        "horizontal_flip": True,
    }
    resident = ImageFolder(root, **options).train_dataloader()
    streaming = ImageFolder(root, in_memory=False, num_workers=num_workers, **options).train_dataloader()
    assert isinstance(streaming.images, ImageFiles)
    before = torch.get_rng_state()
    for epoch in (0, 1, 2):
        resident.set_epoch(epoch)
        streaming.set_epoch(epoch)
        if epoch == 1:
            next(iter(streaming))  # a pass that is given up
        for one, other in zip(everything(resident), everything(streaming), strict=True):
            assert torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


@forks
@pytest.mark.parametrize("num_workers", [0, None])
def test_streaming_resumes_in_mid_epoch(
    num_workers: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lit_gen.data.files.automatic_workers", lambda: 1)
    options: dict[str, Any] = {"batch_size": 8, "image_size": 8, "channels": 1, "in_memory": False, "seed": 3}

    def data() -> ImageFolder:
        return ImageFolder(str(tmp_path / "images"), num_workers=num_workers, **options)

    folder_of(tmp_path / "images")
    whole, resumed = Recorder(), Recorder()
    trainer(tmp_path / "whole", max_epochs=2).fit(whole, datamodule=data())
    ckpt = tmp_path / "whole" / "6.ckpt"
    with pytest.warns(UserWarning, match="is not empty"):
        trainer(tmp_path / "whole", max_epochs=2).fit(resumed, datamodule=data(), ckpt_path=ckpt)
    assert len(whole.seen) == 8
    assert resumed.seen == whole.seen[6:]
    assert torch.equal(resumed.weight, whole.weight)


@forks
@pytest.mark.parametrize(("in_memory", "num_workers"), [(True, 0), (False, 0), (False, 1)])
def test_file_damaged_later_is_named_in_one_line(in_memory: bool, num_workers: int, tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    bad = root / "b" / "007.png"
    data = ImageFolder(str(root), in_memory=in_memory, num_workers=num_workers, val_size=0, test_size=0)
    bad.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"cannot read image .*007\.png") as caught:
        everything(data.train_dataloader())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("cpus", "workers"), [(1, 1), (2, 1), (6, 5), (64, 8)])
def test_one_cpu_is_left_to_training(cpus: int, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cpus)), raising=False)
    assert automatic_workers() == workers
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("os.cpu_count", lambda: cpus)
    assert automatic_workers() == workers


def test_worker_processes_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_gen.data.files.automatic_workers", lambda: 5)
    root = str(folder_of(tmp_path, 20))
    streaming = ImageFolder(root, in_memory=False, batch_size=8)
    assert streaming.num_workers == 5
    assert streaming.hparams["num_workers"] is None, "another machine counts its own CPUs"
    assert ImageFolder(root).num_workers == 0
    assert [ImageFolder(root, in_memory=False, num_workers=n).num_workers for n in (0, 3)] == [0, 3]

    started: list[int] = []
    monkeypatch.setattr(
        "lit_gen.data.files.DataLoader", lambda *args, num_workers, **options: started.append(num_workers) or []
    )
    images = streaming.train_dataloader().images
    list(images.fetch([torch.arange(2)] * 2))
    list(images.fetch([torch.arange(2)] * 9))
    assert started == [2, 5], "no more workers than batches"


def test_large_sets_stream_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(folder_of(tmp_path))
    assert ImageFolder(root).in_memory
    monkeypatch.setattr("lit_gen.data.files.IN_MEMORY_BYTES", 40 * 3 * 8 * 12 - 1)
    assert not ImageFolder(root).in_memory
    assert ImageFolder(root, in_memory=True).in_memory
    assert ImageFolder(root, image_size=4).in_memory
    with pytest.raises(ValueError, match="binarization=static keeps what was drawn in memory"):
        ImageFolder(root, binarization="static")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 0}, "crop must be a positive number of pixels or fit, got 0"),
        ({"crop": "fit"}, "crop=fit needs an image_size"),
        ({"num_workers": -1}, "num_workers must not be negative"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    root = str(folder_of(tmp_path, 4))
    with pytest.raises(ValueError, match=message):
        ImageFolder(root, **options)
