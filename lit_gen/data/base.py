"""What every data set shares: options, splits, conversion to one uint8 tensor, loaders."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, get_args

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from lit_gen.data.loader import (
    BatchLoader,
    BatchTransform,
    Binarization,
    ImageSource,
    InMemory,
    ResidentImages,
    Split,
    TargetSource,
    derived_seed,
)
from lit_gen.data.pixels import binarize_once, to_shape

RESIDENT_BYTES = 4 * 2**30
"""Images in memory are moved to the training device as a whole when they take less than this."""

CHANNELS = {1: "grey", 3: "colour", 4: "colour with transparency"}


class ImageSet(NamedTuple):
    """One official part of a data set as it is stored."""

    images: Tensor | ImageSource  # uint8 (N, C, H, W) or (N, 1, D, H, W), or files that are decoded later
    targets: Tensor | TargetSource | None  # int64 (N,) class of each image, or its captions


class DataInfo(NamedTuple):
    """What is known of a data set before it is downloaded or read."""

    shape: tuple[int, ...]  # (C, H, W), or (1, D, H, W) of voxels, as stored
    num_classes: int  # 0: no labels
    train_size: int  # images in the official training part, from which the splits without a part of their own are taken
    val_size: int  # default size of the validation split
    test_size: int
    official: tuple[Split, ...] = ("train", "test")  # splits that are stored as parts of their own
    copies: int = 1  # so many successive images are views of one object, which no split may tear apart


class ImageDataModule(pl.LightningDataModule, ABC):
    """Base of all data sets, whose batches are ``(images, targets)``: float in [0, 1]; classes, captions or None.

    A data set gives :meth:`describe` and :meth:`load`, and :meth:`prepare_data` if it is downloaded. One with arguments
    of its own sets them before ``super().__init__(**kwargs)``, which calls ``describe``.

    Splits are fixed: they depend on neither ``seed`` nor machine. Validation (and test, where there is no official one)
    images are taken from the official training images by a fixed permutation.

    Voxels ``(1, D, H, W)`` are images too, of the size as stored: D, H and W are x, y and z, with z against gravity.

    Args:
        batch_size: training images per batch (and per process under DDP); the smaller last batch is kept.
        image_size: height and width, or one number for a square; images are resized to exactly this (antialiased
            bilinear). Default: as stored.
        channels: 1 for grey (luminance), 3 for colour (grey is repeated), 4 for colour with transparency (image files
            only). Default: as stored, transparent pixels of image files put on white.
        binarization: ``threshold`` at 0.5; ``stochastic`` draws pixels with their grey level as probability, anew in
            every epoch of training and always alike in evaluation; ``static`` draws them once for all.
        dequantize: add uniform noise, (255 x + u) / 256, for models with a density over continuous pixels.
        horizontal_flip: mirror training images with probability 1/2.
        val_size: number of validation images. Default: the data set's own.
        subset: train on this many images only, a fixed random choice that every larger subset contains.
        eval_batch_size: images per batch in validation, test and prediction. Default: ``batch_size``.
        seed: of the order of the batches and of all noise in the data; the splits do not depend on it.
    """

    channel_choices: ClassVar[tuple[int, ...]] = (1, 3)
    """What ``channels`` may be."""

    def __init__(
        self,
        batch_size: int = 100,
        image_size: int | tuple[int, int] | None = None,
        channels: int | None = None,
        binarization: Binarization = "none",
        dequantize: bool = False,
        horizontal_flip: bool = False,
        val_size: int | None = None,
        subset: int | None = None,
        eval_batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        # As Lightning's command line records them, so that the checkpoint of a run in Python rebuilds its data too.
        self.hparams.setdefault("_class_path", f"{type(self).__module__}.{type(self).__qualname__}")
        self.hparams.setdefault("_instantiator", "lightning.pytorch.cli.instantiate_module")
        self.name = type(self).__name__
        self.batch_size = _positive("batch_size", batch_size)
        self.eval_batch_size = batch_size if eval_batch_size is None else _positive("eval_batch_size", eval_batch_size)
        self.image_size = None if image_size is None else _height_width(image_size)
        self.channels = channels
        self.binarization = binarization
        self.dequantize = dequantize
        self.horizontal_flip = horizontal_flip
        self.subset = None if subset is None else _positive("subset", subset)
        self.seed = seed
        if binarization not in get_args(Binarization):
            raise ValueError(f"binarization must be one of {', '.join(get_args(Binarization))}; got {binarization!r}")
        if binarization != "none" and dequantize:
            raise ValueError(f"dequantize is for grey levels, binarization={binarization!r} leaves none: choose one")
        if channels is not None and channels not in self.channel_choices:
            choices = " or ".join(f"{number} ({CHANNELS[number]})" for number in self.channel_choices)
            raise ValueError(f"channels must be {choices}, or left out for what is stored; got {channels}")

        self.info = self.describe()
        stored, *size = self.info.shape
        if len(size) == 3:
            self._check_voxels()
        if channels is not None and stored not in (1, 3, channels):
            raise ValueError(f"{stored} channels cannot be converted to channels={channels}: leave channels out")
        self.image_shape: tuple[int, ...] = (channels or stored, *(self.image_size or size))
        """``(C, H, W)`` of the images in a batch, or ``(1, D, H, W)`` of voxels, known before any download."""
        self.num_classes: int = self.info.num_classes
        """Number of classes of the targets; 0 if there are no labels."""
        self.vocabulary: list[str] = []
        """Words of the captions in the order of their numbers; empty if there are no captions."""
        self.captions: list[str] = []
        """Captions such as the training images have, of which a model draws when it is asked for none in particular."""
        self.views: list[tuple[float, float]] = []
        """Azimuth and elevation, in degrees, of the views that training sees; empty if images have no views."""
        if "val" in self.info.official and val_size not in (None, self.info.val_size):
            raise ValueError(
                f"{self.name} has its own validation split of {self.info.val_size:,} images: leave val_size out"
            )
        self.val_size = self.info.val_size if val_size is None else val_size
        if self.val_size < 0:
            raise ValueError(f"val_size must not be negative, got {val_size}")
        self._parts: dict[Split, tuple[ImageSource, Tensor | TargetSource | None]] = {}
        self._sizes = self._carved_sizes(self.info.train_size) | {
            part: {"val": self.info.val_size, "test": self.info.test_size}[part] for part in self.info.official[1:]
        }

    # ---- what a data set gives

    @abstractmethod
    def describe(self) -> DataInfo:
        """Shapes, classes and sizes, told without a download; called by ``__init__`` after the options are set."""

    @abstractmethod
    def load(self, part: Split) -> ImageSet:
        """Read an official part as it is stored."""

    def remarks(self) -> list[str]:
        """What a reader of a score must know about this data beyond its options."""
        return []

    def native_size(self) -> str:
        """Size of the images as stored (after a crop to so many pixels), in words: ``protocol`` tells of resizing."""
        return _product(self.info.shape[1:])

    # ---- what users and models ask

    @property
    def num_train(self) -> int:
        """Number of training images."""
        return self._sizes["train"]

    @property
    def protocol(self) -> str:
        """One plain line for receipts: data set, splits, shape, binarization and whatever else changes scores."""
        sizes = " / ".join(f"{self._sizes[part]:,} {part}" for part in get_args(Split))
        facts = [f"{sizes} images of {_product(self.image_shape)}"]
        if self.native_size() != _product(self.image_shape[1:]):
            facts.append(f"resized from {self.native_size()}")
        facts.append(f"binarization {self.binarization}")
        if self.subset is not None:
            facts.append(f"trained on a subset of {self.subset:,}")
        if self.dequantize:
            facts.append("dequantized")
        if self.horizontal_flip:
            facts.append("training images flipped at random")
        return f"{self.name}: " + "; ".join(facts + self.remarks())

    # ---- Lightning's hooks

    def setup(self, stage: str | None = None) -> None:
        """Read and convert the splits that ``stage`` (fit, validate, test, predict; None: all) needs."""
        needed: dict[str, tuple[Split, ...]] = {"fit": ("train", "val"), "validate": ("val",)}
        self._load(get_args(Split) if stage is None else needed.get(stage, ("test",)))

    def train_dataloader(self) -> BatchLoader:
        # overfit_batches asks for the same few batches in every epoch.
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        return self._loader("train", self.batch_size, shuffle=not overfit)

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        return self._loader("val", self.eval_batch_size) if self._sizes["val"] else []

    def test_dataloader(self) -> BatchLoader | list[BatchLoader]:
        return self._loader("test", self.eval_batch_size) if self._sizes["test"] else []

    def reference_dataloader(self) -> BatchLoader:
        """The training images as evaluation would see them, in order, each once: what a score compares samples with."""
        return self._loader("train", self.eval_batch_size, training=False)

    def predict_dataloader(self) -> BatchLoader | list[BatchLoader]:
        return self.test_dataloader()

    def split(self, part: Split) -> tuple[ImageSource, Tensor | TargetSource | None]:
        """The converted images and targets of a split, for data sets that are made of another one."""
        self._load([part])
        return self._parts[part]

    # ---- machinery

    def _check_voxels(self) -> None:
        refused = {"image_size": self.image_size, "channels": self.channels, "horizontal_flip": self.horizontal_flip}
        for option, value in refused.items():
            if value:
                raise ValueError(
                    f"{option}={value} is for pictures; {self.name} gives voxels of {_product(self.info.shape)}:"
                    f" leave {option} out"
                )

    def _carved_sizes(self, total: int) -> dict[Split, int]:
        """Sizes of the splits that are taken from an official training part of ``total`` images."""
        sizes: dict[Split, int] = {"test": self.info.test_size, "val": self.val_size}
        sizes = {split: size for split, size in sizes.items() if split not in self.info.official}
        left = total - sum(sizes.values())
        if left < 1:
            held_out = " and ".join(f"{size:,} for {split}" for split, size in sizes.items())
            raise ValueError(
                f"{self.name} has {total:,} images to train on: holding out {held_out} leaves none. "
                "Ask for fewer (val_size, test_size)"
            )
        if self.subset is not None and self.subset > left:
            raise ValueError(f"subset={self.subset:,} is more than the {left:,} training images of {self.name}")
        for name, size in (sizes | {"subset": self.subset or 0}).items():
            if size % self.info.copies:
                option = name if name == "subset" else f"{name}_size"
                raise ValueError(
                    f"{option}={size:,} would tear the {self.info.copies} copies of an object apart: choose a multiple"
                    f" of {self.info.copies}"
                )
        return sizes | {"train": self.subset or left}

    def _carve(self, total: int) -> dict[Split, Tensor | None]:
        """Indices of those splits (None: all images as they come)."""
        sizes = self._carved_sizes(total)
        taken = sum(sizes.values())
        if taken == total and len(sizes) == 1:
            return {"train": None}
        # A subset is drawn too: stored images are often sorted by class, and the first of them would all be of one.
        # NumPy promises never to change what this old generator gives, so the splits will not change either.
        copies = self.info.copies
        order = torch.from_numpy(np.random.RandomState(0).permutation(total // copies))
        order = (copies * order[:, None] + torch.arange(copies)).flatten()
        return dict(zip(sizes, torch.split(order[:taken], list(sizes.values())), strict=True))

    def _load(self, splits: Sequence[Split]) -> None:
        missing = [split for split in splits if split not in self._parts]
        for part in self.info.official:
            needed = [split for split in missing if (split if split in self.info.official else "train") == part]
            if not needed:
                continue
            images, targets = self.load(part)
            stored = ResidentImages(images) if isinstance(images, Tensor) else images
            carved: dict[Split, Tensor | None] = self._carve(len(stored)) if part == "train" else {part: None}
            for split, indices in carved.items():
                self._sizes[split] = len(stored if indices is None else indices)
            for split in needed:
                indices = carved[split]
                if self._sizes[split] == 0:
                    continue
                source = self.convert(stored if indices is None else stored.take(indices))
                if self.binarization == "static" and isinstance(source, ResidentImages):
                    source = ResidentImages(binarize_once(source.images, derived_seed(self.seed, split, "static")))
                if indices is None or targets is None:
                    self._parts[split] = source, targets
                elif isinstance(targets, TargetSource):
                    self._parts[split] = source, targets.take(indices)
                else:
                    self._parts[split] = source, targets[indices]

    def convert(self, source: ImageSource) -> ImageSource:
        """Give images as stored the wanted ``image_shape``, once at setup."""
        if not isinstance(source, ResidentImages):
            return source
        if tuple(source.images.shape[1:]) != self.info.shape:
            found, wanted = (_product(shape) for shape in (source.images.shape[1:], self.info.shape))
            raise ValueError(f"{self.name}: the files hold images of {found}, expected {wanted}")
        return ResidentImages(to_shape(source.images, self.image_shape))

    def _loader(
        self, split: Split, batch_size: int, shuffle: bool = False, training: bool | None = None
    ) -> BatchLoader:
        training = split == "train" if training is None else training
        self._load([split])
        images, targets = self._parts[split]
        trainer = self.trainer
        device = torch.device("cpu") if trainer is None else trainer.strategy.root_device
        if isinstance(images, InMemory) and images.nbytes < RESIDENT_BYTES:
            images = images.to(device)
            self._parts[split] = images, targets
        return BatchLoader(
            images,
            targets,
            batch_size,
            BatchTransform(
                binarization="none" if self.binarization == "static" else self.binarization,
                dequantize=self.dequantize,
                horizontal_flip=self.horizontal_flip and training,
            ),
            split=split,
            shuffle=shuffle,
            seed=self.seed,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
            device=device,
            training=training,
        )


def _product(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def _height_width(image_size: int | Sequence[int]) -> tuple[int, int]:
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"image_size must be a positive number or (height, width), got {image_size}")
    return size
