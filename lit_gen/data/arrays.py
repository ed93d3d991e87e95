"""Images that already are an array: a NumPy or torch file, or a tensor in Python."""

import hashlib
import zipfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lit_gen.data.base import DataInfo, ImageDataModule, ImageSet
from lit_gen.data.loader import CHUNK, Split

Layout = Literal["NCHW", "NHWC"]


class Arrays(ImageDataModule):
    """Images from ``.npy``, ``.npz`` or ``.pt`` files, or from arrays and tensors given in Python.

    Images are uint8, bool, or float in [0, 1] (kept with 8 bits); ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``;
    voxels ``(N, 1, D, H, W)``.
    Without test images of their own, a tenth is taken out for testing; another tenth is for validation.

    Example:
        >>> import torch
        >>> data = Arrays(torch.rand(50, 3, 16, 12), targets=torch.arange(50) % 5, image_size=8)
        >>> data.image_shape, data.num_classes, data.num_train
        ((3, 8, 8), 5, 40)

    Args:
        images: path of a file, or an array or tensor.
        targets: path of a file, or an array or tensor, of whole numbers from 0. Default: none, or ``targets_key``.
        test_images: images to test on, likewise.
        test_targets: their targets, likewise.
        images_key: name of the images in an ``.npz`` file, or in a dictionary in a ``.pt`` file, if they are not alone.
        targets_key: name of the targets in the file of the images. Default: no targets there.
        layout: where the channels are, if it cannot be told from the shape.
        test_size: how many are taken out for testing if there are no ``test_images``; 0 for none. Default: a tenth.
    """

    def __init__(
        self,
        images: Any,
        targets: Any = None,
        test_images: Any = None,
        test_targets: Any = None,
        images_key: str = "images",
        targets_key: str | None = None,
        layout: Layout | None = None,
        test_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        if images is None:
            raise ValueError("images is missing: a path, or the tensor itself (which a checkpoint does not keep)")
        if targets is not None and targets_key is not None:
            raise ValueError("targets and targets_key both say where the targets are: give one")
        if test_size is not None and (test_images is not None or test_size < 0):
            raise ValueError(f"test_size={test_size}: must not be negative, and cannot be combined with test_images")
        self._given: dict[Split, tuple[Any, Any]] = {"train": (images, targets)}
        if test_images is not None:
            self._given["test"] = (test_images, test_targets)
        elif test_targets is not None:
            raise ValueError("test_targets without test_images")
        self.images_key = images_key
        self.targets_key = targets_key
        self.layout = layout
        self._test_size = test_size
        # save_hyperparameters, called by the base, reads the arguments off this frame: paths go into checkpoints,
        # arrays do not.
        images, targets = _path(images), _path(targets)
        test_images, test_targets = _path(test_images), _path(test_targets)
        super().__init__(**kwargs)

    def describe(self) -> DataInfo:
        self._stored = {part: self._read_part(part) for part in self._given}
        shapes = {part: _image_shape(part, images.shape, self.layout) for part, (images, _) in self._stored.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"images and test_images differ in shape: {shapes['train']} and {shapes['test']}")
        targets = [labels for _, labels in self._stored.values() if labels is not None]
        if len(targets) == 1 and "test" in self._stored:
            raise ValueError("images and test_images must both have targets, or neither")
        classes = 1 + max(int(labels.max()) for labels in targets) if targets else 0
        total = len(self._stored["train"][0])
        tenth = max(1, total // 10)
        test_size = tenth if self._test_size is None else self._test_size
        if "test" in self._stored:
            test_size = len(self._stored["test"][0])
        return DataInfo(shapes["train"], classes, total, tenth, test_size, tuple(self._stored))

    def load(self, part: Split) -> ImageSet:
        # Let go of what was read: a file would be held beside the tensor that is made of it.
        images, targets = self._stored.pop(part) if part in self._stored else self._read_part(part)
        result = torch.empty(len(images), *self.info.shape, dtype=torch.uint8)
        for chunk, out in zip(self._bytes(images), torch.split(result, CHUNK), strict=True):
            out.copy_(torch.from_numpy(chunk))
        return ImageSet(result, targets)

    def _bytes(self, images: np.ndarray) -> Iterator[np.ndarray]:
        """Images as stored, as contiguous uint8 ``(N, C, H, W)``, so many at a time."""
        if images.ndim == 3:
            images = images[:, None]
        elif images.shape[1:] != self.info.shape:
            images = images.transpose(0, 3, 1, 2)
        return _to_uint8(images)

    @cached_property
    def digest(self) -> str:
        """Tells arrays apart: first 8 hexadecimal digits of the SHA-256 of the bytes of all images, however stored."""
        sha = hashlib.sha256()
        for part in self._given:
            images = self._stored[part][0] if part in self._stored else self._read_part(part)[0]
            sha.update(f"{part} {len(images)} {self.info.shape}".encode())
            for chunk in self._bytes(images):
                sha.update(chunk)
        return sha.hexdigest()[:8]

    def _read_part(self, part: Split) -> tuple[np.ndarray, Tensor | None]:
        images, targets = self._given[part]
        stored = _read(images)
        if isinstance(stored, dict):
            key = next(iter(stored)) if len(stored) == 1 else self.images_key
            if self.targets_key is not None:
                targets = _pick(images, stored, self.targets_key, "targets_key")
            stored = _pick(images, stored, key, "images_key")
        elif self.targets_key is not None:
            raise ValueError(f"targets_key={self.targets_key!r}, but images is no file of several arrays: use targets")
        voxels = stored.ndim == 5 and stored.shape[1] == 1
        if not (stored.ndim in (3, 4) or voxels) or not len(stored):
            raise ValueError(
                "images must be (N, H, W), (N, H, W, C) or (N, C, H, W), or voxels (N, 1, D, H, W);"
                f" got shape {stored.shape}"
            )
        return stored, None if targets is None else _labels(targets, len(stored))

    def remarks(self) -> list[str]:
        images = self._given["train"][0]
        source = f"file {Path(images).name}" if isinstance(images, str | Path) else "arrays given in Python"
        return [f"{source} (sha256 {self.digest} of the pixels)"]


def _path(source: Any) -> str | None:
    return str(source) if isinstance(source, str | Path) else None


def _read(source: Any) -> Any:
    """An array, or a dictionary of arrays, from a path; arrays and tensors as arrays."""
    if isinstance(source, Tensor):
        source = source.detach().cpu()
        return (source.float() if source.is_floating_point() else source).numpy()
    if isinstance(source, np.ndarray):
        return source
    if not isinstance(source, str | Path):
        raise TypeError(f"expected a path, a NumPy array or a tensor, got {type(source).__name__}")
    path = Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: name a .npy, .npz or .pt file of images")
    try:
        match path.suffix:
            case ".npy":
                return np.load(path, mmap_mode="r")
            case ".npz":
                with np.load(path) as stored:
                    return dict(stored)
            case ".pt" | ".pth":
                loaded = torch.load(path, map_location="cpu", weights_only=True)
                if isinstance(loaded, dict):
                    return {key: _read(value) for key, value in loaded.items() if isinstance(value, Tensor)}
                return _read(loaded)
    except (OSError, ValueError, EOFError, TypeError, RuntimeError, UnpicklingError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as an array of numbers ({error})") from error
    raise ValueError(f"{path}: unknown ending {path.suffix!r}, expected .npy, .npz or .pt")


def _pick(source: Any, stored: dict[str, np.ndarray], key: str, argument: str) -> np.ndarray:
    if key not in stored:
        raise ValueError(f"{source} holds {', '.join(stored)}, but nothing named {key!r}: set {argument}")
    return stored[key]


def _labels(targets: Any, total: int) -> Tensor:
    labels = _read(targets)
    if not isinstance(labels, np.ndarray) or labels.shape != (total,) or labels.dtype.kind not in "iu":
        found = f"{labels.dtype} {labels.shape}" if isinstance(labels, np.ndarray) else ", ".join(labels)
        raise ValueError(f"targets must be whole numbers of shape ({total},), one for each image; got {found}")
    if labels.min() < 0:
        raise ValueError(f"targets must be numbered from 0, got {labels.min()}")
    return torch.from_numpy(labels.astype(np.int64))


def _image_shape(part: str, shape: tuple[int, ...], layout: Layout | None) -> tuple[int, ...]:
    if len(shape) == 3:
        return 1, shape[1], shape[2]
    if len(shape) == 5:
        return shape[1:]
    if layout is None:
        first, last = shape[1] in (1, 3, 4), shape[3] in (1, 3, 4)
        if first == last:
            raise ValueError(
                f"{part} images of shape {shape}: do channels come first or last? Set layout to NCHW or NHWC"
            )
        layout = "NCHW" if first else "NHWC"
    return (shape[1], shape[2], shape[3]) if layout == "NCHW" else (shape[3], shape[1], shape[2])


def _to_uint8(images: np.ndarray) -> Iterator[np.ndarray]:
    """Images of uint8, bool or float in [0, 1] as contiguous uint8, ``CHUNK`` of them at a time."""
    low, high = images.min(), images.max()
    if images.dtype == np.uint8:
        if high == 1:
            raise ValueError("images are uint8 0 and 1, which is black: store them as bool, or multiply by 255")
    elif images.dtype.kind not in "bf":
        raise ValueError(f"images must be uint8, bool, or float in [0, 1]; got {images.dtype}: convert them to uint8")
    elif not (low >= 0 and high <= 1):  # also true of NaN
        raise ValueError(f"float images must be in [0, 1], got {low:.4g} to {high:.4g}: rescale them")
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK]
        if images.dtype != np.uint8:
            chunk = np.rint(chunk.astype(np.float32) * 255).astype(np.uint8)
        yield np.array(chunk, order="C")  # a copy: a memory map cannot be written to, of which torch would warn
