"""Batches by index: shuffled by seed and epoch, sharded over processes, resumed exactly, transformed as a whole."""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Split = Literal["train", "val", "test"]
Binarization = Literal["none", "threshold", "stochastic", "static"]
Batch = tuple[Tensor, Any]

CHUNK = 1000
"""Images converted at once at setup: bounds the memory that float intermediates take."""


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part, alike on every machine (Python's hash of a string is salted)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass(frozen=True)
class BatchTransform:
    """uint8 images, or voxels, to float32 in [0, 1], a whole batch at once.

    Args:
        binarization: ``threshold`` is ``x > 0.5``; ``stochastic`` draws each pixel (of each channel) as 1 with its grey
            level as probability; ``none`` divides by 255.
        dequantize: add uniform noise, ``(x + u) / 256`` with x in 0..255 and u in [0, 1); the result is below 1.
        horizontal_flip: mirror each image with probability 1/2; not for voxels.
    """

    binarization: Literal["none", "threshold", "stochastic"] = "none"
    dequantize: bool = False
    horizontal_flip: bool = False

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Transform ``(B, *shape)``; every random number comes from ``generator``, on the device of the images."""
        if self.horizontal_flip:
            mirrored = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
            images = torch.where(mirrored, images.flip(-1), images)
        if self.binarization == "threshold":
            return (images > 127).float()
        if self.binarization == "stochastic":
            return torch.rand(images.shape, generator=generator, device=images.device).lt_(images / 255)
        if self.dequantize:
            noise = torch.rand(images.shape, generator=generator, device=images.device)
            # 255 + u rounds up to 256 in float32 now and then; a logit of 1.0 would be infinite.
            return noise.add_(images).div_(256).clamp_(max=1 - 2**-24)
        return images / 255


class ImageSource(ABC):
    """Images of one split, fetched by index: from memory (:class:`ResidentImages`) or from files."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the indices must be, and where the images come out."""

    @abstractmethod
    def take(self, indices: Tensor) -> "ImageSource":
        """The source of these images alone, in this order."""

    @abstractmethod
    def fetch(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """The uint8 images ``(B, C, H, W)``, or voxels ``(B, 1, D, H, W)``, of each batch of indices, in order."""

    def begin_epoch(self, epoch: int) -> None:  # noqa: B027  (most have nothing to do)
        """Change to the images of this epoch; nothing to do for those that are the same in every one."""


class TargetSource(ABC):
    """Targets of one split that are no single number: captions."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def to(self, device: torch.device) -> "TargetSource":
        """The same targets on another device."""

    @abstractmethod
    def take(self, indices: Tensor) -> "TargetSource":
        """The targets of these images alone, in this order."""

    @abstractmethod
    def fetch(self, indices: Tensor, epoch: int, generator: torch.Generator | None) -> Any:
        """The targets of a batch: a NamedTuple of tensors ``(B, ...)``.

        Args:
            indices: ``(B,)`` of the images.
            epoch: of these images, for a source whose images differ from epoch to epoch.
            generator: of all that is drawn; without one (in evaluation) the first choice is taken.
        """


class InMemory(ImageSource):
    """Images in memory, which may move to the training device as a whole."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Memory that they take."""

    @abstractmethod
    def to(self, device: torch.device) -> "InMemory":
        """The same images on another device."""


class ResidentImages(InMemory):
    """Images in one uint8 tensor ``(N, C, H, W)``, or voxels ``(N, 1, D, H, W)``, on whichever device it lies."""

    def __init__(self, images: Tensor) -> None:
        if images.dtype != torch.uint8 or images.ndim not in (4, 5):
            raise ValueError(
                f"images must be uint8 (N, C, H, W), or voxels (N, 1, D, H, W); got {images.dtype}"
                f" {tuple(images.shape)}"
            )
        self.images = images

    @property
    def nbytes(self) -> int:
        return self.images.nbytes

    def __len__(self) -> int:
        return len(self.images)

    @property
    def device(self) -> torch.device:
        return self.images.device

    def take(self, indices: Tensor) -> "ResidentImages":
        return ResidentImages(self.images[indices])

    def to(self, device: torch.device) -> "ResidentImages":
        return ResidentImages(self.images.to(device))

    def fetch(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        return (self.images.index_select(0, indices) for indices in batches)


class BatchLoader:
    """Iterates over batches ``(images, targets)``: float32 ``(B, *shape)`` in [0, 1]; int64 ``(B,)``, captions or None.

    Everything random is a function of ``(seed, split, epoch, batch, rank)`` alone, so that a resumed run sees the
    batches of the uninterrupted one, evaluation is the same every time, and the global generator is untouched.

    Lightning does not shard a loader that is not torch's, so this one does: in training the order is padded by
    wrapping, so that every rank has equally many batches; in evaluation no image comes twice, and every rank has
    equally many batches, none empty, whenever there are images enough.

    Args:
        images: where the images come from.
        targets: int64 ``(N,)``, or what gives them; None for a set without labels.
        batch_size: images per batch and process; the last batch of an epoch may be smaller.
        transform: what is done to each batch.
        split: ``train``, or ``val`` or ``test``, which are never shuffled and always those of epoch 0.
        shuffle: a new order in every epoch (training only).
        seed: of the order and of the transform's noise.
        rank: number of this process.
        world_size: number of processes.
        device: where batches come out; by default where the images lie.
        training: whether passes are those of training, with its padded order and an epoch that Lightning sets; None:
            where the split is ``train``.
    """

    def __init__(
        self,
        images: ImageSource,
        targets: Tensor | TargetSource | None,
        batch_size: int,
        transform: BatchTransform,
        split: Split = "train",
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
        training: bool | None = None,
    ) -> None:
        self.images = images
        self.targets = None if targets is None else targets.to(images.device)
        self.batch_size = batch_size
        self.transform = transform
        self.split = split
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.device = device if device is not None else images.device
        self.training = split == "train" if training is None else training
        if self.training:
            self.sampler = self  # Lightning calls set_epoch of whatever has this name
        self.epoch = 0
        self._generator = torch.Generator(self.device)
        self._first = 0  # batch at which the next pass begins
        self._given = 0  # batches of this epoch that were given out

    def __len__(self) -> int:
        total = len(self.images)
        if self.training:
            return math.ceil(math.ceil(total / self.world_size) / self.batch_size)
        return len(range(self.rank, min(self._global_batches, total), self.world_size))

    @property
    def _global_batches(self) -> int:
        """Evaluation batches of all processes together, a multiple of their number."""
        return self.world_size * math.ceil(len(self.images) / (self.world_size * self.batch_size))

    def batches(self) -> Sequence[Tensor]:
        """Indices of every batch of this process in this epoch."""
        total = len(self.images)
        order = torch.arange(total)
        if self.training:
            if self.shuffle:
                generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", self.epoch))
                order = torch.randperm(total, generator=generator)
            padded = math.ceil(total / self.world_size) * self.world_size
            order = order[torch.arange(self.rank, padded, self.world_size) % total]
            return torch.split(order.to(self.images.device), self.batch_size)
        order = order.to(self.images.device)
        if self.world_size == 1:
            return torch.split(order, self.batch_size)
        return torch.tensor_split(order, self._global_batches)[self.rank :: self.world_size][: len(self)]

    def __iter__(self) -> Iterator[Batch]:
        # A generator function: Lightning also calls iter() only to look, which must not use up the resume position.
        first, self._first = self._first, 0
        batches = self.batches()[first:]
        # Batches that are not shuffled are the same in every epoch: evaluation, and overfit_batches.
        epoch = self.epoch if self.shuffle else 0
        self.images.begin_epoch(epoch)
        fetched = self.images.fetch(batches)
        for number, (indices, images) in enumerate(zip(batches, fetched, strict=True), start=first):
            self._generator.manual_seed(derived_seed(self.seed, self.split, self.epoch, number, self.rank))
            images = self.transform(images.to(self.device, non_blocking=True), self._generator)
            targets = self._fetch_targets(indices, epoch)
            self._given = number + 1
            yield images, targets

    def _fetch_targets(self, indices: Tensor, epoch: int) -> Any:
        if not isinstance(self.targets, TargetSource):
            return None if self.targets is None else self.targets[indices].to(self.device, non_blocking=True)
        targets = self.targets.fetch(indices, epoch, self._generator if self.shuffle else None)
        return type(targets)(*(part.to(self.device, non_blocking=True) for part in targets))

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and noise of this epoch; a resume position in the same epoch is kept."""
        if epoch != self.epoch:
            self.epoch = epoch
            self._first = self._given = 0

    def state_dict(self) -> dict[str, int]:
        """The epoch, and how many of its batches were given out."""
        return {"epoch": self.epoch, "batch": self._given}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Let the next pass go on after the batches that were given out before (with batch size and data unchanged)."""
        self.epoch = state_dict["epoch"]
        self._first = self._given = state_dict["batch"]
