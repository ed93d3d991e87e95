"""Images in files: decoded once into memory, or streamed through worker processes in the very same order."""

import math
import os
import struct
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lit_gen.data.base import ImageDataModule
from lit_gen.data.loader import ImageSource, ResidentImages
from lit_gen.data.pixels import to_shape

Crop = int | Literal["fit"] | None

IN_MEMORY_BYTES = 2 * 2**30
"""Sets whose training images take more than this when decoded are streamed, unless asked otherwise."""

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # Pillow's mode by number of channels
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap height and width
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow raises for damaged files."""


def stored_shape(path: Path, sideways_png: bool = True) -> tuple[int, int, int]:
    """``(C, H, W)`` of an image file, read from its header.

    Args:
        path: image file.
        sideways_png: see whether a PNG is stored sideways; it may say so at its end, which takes decoding it.

    Raises:
        ValueError: if it is no readable image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            if (sideways_png or image.format != "PNG") and image.getexif().get(0x0112) in SIDEWAYS:
                width, height = height, width
            grey = image.mode[0] in "1LI"  # 1, L, LA, I, I;16
            return (1 if grey else 3) + image.has_transparency_data, height, width
    except UNREADABLE as error:
        raise ValueError(f"cannot read image {path} ({error}): repair or remove it") from error


def decode(path: Path, shape: tuple[int, ...], crop: Crop = None, resize: bool = True) -> Tensor:
    """Read an image file as uint8 ``shape``: upright, converted, cropped about its centre, resized.

    Transparent pixels show white unless ``shape`` has room for transparency (2 or 4 channels).

    Args:
        path: image file.
        shape: ``(C, H, W)`` wanted.
        crop: ``fit`` cuts to the aspect ratio of ``shape``, a number to a square of so many pixels.
        resize: resize to ``shape``; otherwise the (cropped) image must have that size.

    Raises:
        ValueError: if it cannot be read, or has another size; the message names the file.
    """
    channels, height, width = shape
    try:
        with Image.open(path) as opened:
            if resize and not isinstance(crop, int):
                # JPEG decodes several times faster at a fraction of its size; twice the wanted size loses nothing.
                opened.draft(None, (2 * max(height, width),) * 2)
            image = _in_mode(ImageOps.exif_transpose(opened), MODES[channels])
            pixels = torch.from_numpy(np.array(image)).view(image.height, image.width, channels).permute(2, 0, 1)
    except UNREADABLE as error:
        raise ValueError(f"cannot read image {path} ({error}): repair or remove it") from error
    pixels = _centre(path, pixels, shape, crop)
    if resize:
        return to_shape(pixels.contiguous()[None], shape)[0]
    if pixels.shape != shape:
        found, wanted = f"{pixels.shape[1]}x{pixels.shape[2]}", f"{height}x{width}"
        raise ValueError(f"{path} is {found}, others are {wanted}: set one size for all (--data.image_size 64)")
    return pixels


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers: use the data set Arrays")
    if image.mode.startswith("I"):  # 16 bits per pixel, which Pillow would clip
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data and mode in ("L", "RGB"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _centre(path: Path, pixels: Tensor, shape: tuple[int, ...], crop: Crop) -> Tensor:
    if crop is None:
        return pixels
    height, width = pixels.shape[1:]
    if crop == "fit":
        scale = min(height / shape[1], width / shape[2])
        cut_height, cut_width = round(shape[1] * scale), round(shape[2] * scale)
    else:
        cut_height = cut_width = crop
    if min(height - cut_height, width - cut_width) < 0:
        raise ValueError(f"{path} is {height}x{width}, too small for crop={crop}: choose a smaller crop")
    top, left = (height - cut_height) // 2, (width - cut_width) // 2
    return pixels[:, top : top + cut_height, left : left + cut_width]


class _Decoder(Dataset[Tensor | ValueError]):
    """What a worker process runs: a list of indices to a batch."""

    def __init__(self, paths: Sequence[str], shape: tuple[int, ...], crop: Crop, resize: bool) -> None:
        self.paths = np.asarray(paths)  # a list would be copied into every worker, by its reference counts
        self.shape = shape
        self.crop = crop
        self.resize = resize

    def __getitem__(self, indices: Sequence[int]) -> Tensor | ValueError:
        try:
            return torch.stack([decode(Path(self.paths[i]), self.shape, self.crop, self.resize) for i in indices])
        except ValueError as error:
            return error  # raised by a worker it would arrive wrapped in the text of a traceback


class ImageFiles(ImageSource):
    """Images in files, decoded when they are fetched, ahead of time by worker processes if there are any.

    Args:
        paths: image files.
        shape: ``(C, H, W)`` that they are decoded to, see :func:`decode`.
        crop: see :func:`decode`.
        resize: see :func:`decode`.
        num_workers: worker processes; 0 decodes in this process.
    """

    def __init__(
        self,
        paths: Sequence[str],
        shape: tuple[int, ...],
        crop: Crop = None,
        resize: bool = True,
        num_workers: int = 0,
    ) -> None:
        self._decoder = _Decoder(paths, shape, crop, resize)
        self._num_workers = num_workers

    def __len__(self) -> int:
        return len(self._decoder.paths)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def take(self, indices: Tensor) -> "ImageFiles":
        decoder, chosen = self._decoder, self._decoder.paths[indices.numpy()]
        return ImageFiles(chosen, decoder.shape, decoder.crop, decoder.resize, self._num_workers)

    def fetch(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        loader = DataLoader(
            self._decoder,
            batch_size=None,
            sampler=[indices.tolist() for indices in batches],
            num_workers=min(self._num_workers, len(batches)),
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # else every pass would draw from the global one
        )
        for images in loader:
            if isinstance(images, ValueError):
                raise images
            yield images

    def decoded(self) -> ResidentImages:
        """All of them, in memory."""
        images = torch.empty(len(self), *self._decoder.shape, dtype=torch.uint8)
        chunks = torch.split(torch.arange(len(self)), 100)
        for indices, chunk in zip(chunks, self.fetch(chunks), strict=True):
            images[indices] = chunk
        return ResidentImages(images)


def automatic_workers() -> int:
    """Worker processes that leave one of the CPUs at hand to training: at least 1, at most 8."""
    # Not the machine's count, which a container or a scheduler may not let this process use.
    cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, min(8, cpus - 1))


class ImageFilesDataModule(ImageDataModule):
    """A data set of image files.

    Args:
        crop: what is cut out about the centre before resizing: ``fit`` keeps as much as has the aspect ratio of
            ``image_size``; a number, a square of so many pixels. Default: all, stretched if need be.
        in_memory: hold all decoded images in memory, or decode them again in every epoch. Default: in memory if the
            training images take less than 2 GiB.
        num_workers: processes that decode; 0 decodes in the training process. Default: 0 for images in memory, decoded
            once; otherwise one less than the CPUs at hand, at most 8 and at least 1.
    """

    channel_choices: ClassVar[tuple[int, ...]] = (1, 3, 4)

    def __init__(
        self, crop: Crop = None, in_memory: bool | None = None, num_workers: int | None = None, **kwargs: Any
    ) -> None:
        if isinstance(crop, int) and crop < 1:
            raise ValueError(f"crop must be a positive number of pixels or fit, got {crop}")
        if num_workers is not None and num_workers < 0:
            raise ValueError(f"num_workers must not be negative, got {num_workers}")
        self.crop = crop
        super().__init__(**kwargs)
        if crop == "fit" and self.image_size is None:
            raise ValueError("crop=fit needs an image_size to fit to")
        decoded_bytes = self.info.train_size * math.prod(self.image_shape)
        self.in_memory = decoded_bytes <= IN_MEMORY_BYTES if in_memory is None else in_memory
        automatic = 0 if self.in_memory else automatic_workers()
        self.num_workers = automatic if num_workers is None else num_workers
        if self.binarization == "static" and not self.in_memory:
            raise ValueError(
                "binarization=static keeps what was drawn in memory: set in_memory=true, or binarization=stochastic"
            )

    def image_files(self, paths: Sequence[str]) -> ImageFiles:
        """Files to be decoded as the options say."""
        return ImageFiles(paths, self.image_shape, self.crop, self.image_size is not None, self.num_workers)

    def convert(self, source: ImageSource) -> ImageSource:
        if not self.in_memory or not isinstance(source, ImageFiles):
            return source
        if len(source) > 10_000:
            rank_zero_info(f"{self.name}: decoding {len(source):,} images into memory")
        return source.decoded()

    def remarks(self) -> list[str]:
        return [] if self.crop is None else [f"centre crop {self.crop}"]
