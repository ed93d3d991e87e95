"""Image files with captions: what COCO and a user's own folder share."""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_gen.captions import Caption, Vocabulary, tokenize
from lit_gen.data.base import DataInfo, ImageSet
from lit_gen.data.files import ImageFilesDataModule
from lit_gen.data.loader import Split, TargetSource

PRIOR_CAPTIONS = 256
"""So many training captions go into the checkpoint of a model, which draws from them when it is asked for none."""


class CaptionedFile(NamedTuple):
    """An image and what was written about it."""

    path: str
    captions: list[str]


class ResidentCaptions(TargetSource):
    """Captions in memory, of which each image has one or more: one is drawn in every epoch of training.

    Args:
        captions: all of them, those of one image in a row.
        first: ``(N,)`` place of the first caption of each image.
        count: ``(N,)`` how many it has.
    """

    def __init__(self, captions: Caption, first: Tensor, count: Tensor) -> None:
        self.captions, self.first, self.count = captions, first, count
        self._alike = bool((captions.lengths == captions.tokens.shape[1]).all())

    def __len__(self) -> int:
        return len(self.first)

    def to(self, device: torch.device) -> "ResidentCaptions":
        captions = Caption(*(part.to(device) for part in self.captions))
        return ResidentCaptions(captions, self.first.to(device), self.count.to(device))

    def take(self, indices: Tensor) -> "ResidentCaptions":
        return ResidentCaptions(self.captions, self.first[indices], self.count[indices])

    def fetch(self, indices: Tensor, epoch: int, generator: torch.Generator | None) -> Caption:
        chosen = self.first[indices]
        if generator is not None:
            uniform = torch.rand(len(indices), generator=generator, device=generator.device).to(chosen.device)
            chosen = chosen + (uniform * self.count[indices]).long()
        tokens, lengths = self.captions.tokens[chosen].long(), self.captions.lengths[chosen].long()
        return Caption(tokens if self._alike else tokens[:, : int(lengths.max())], lengths)


class CaptionedFiles(ImageFilesDataModule):
    """A data set of image files with captions, whose vocabulary is made of the captions of the training images.

    A data set gives :meth:`captioned_files`.

    Args:
        min_count: words that are rarer than this in the training captions become ``<unk>``.
        max_words: longest caption, the full stop included; longer ones are left out, and images that have no other.
    """

    def __init__(self, min_count: int = 1, max_words: int = 50, **kwargs: Any) -> None:
        if min(min_count, max_words) < 1:
            raise ValueError(f"min_count and max_words must be at least 1, got {min_count} and {max_words}")
        self.min_count = min_count
        self.max_words = max_words
        super().__init__(**kwargs)
        indices = self._carve(len(self.listed["train"]))["train"]
        chosen = range(len(self.listed["train"])) if indices is None else indices.tolist()
        trained_on = [self.listed["train"][i].captions for i in chosen]
        self.vocabulary = list(Vocabulary.build((one for few in trained_on for one in few), min_count).words)
        self.captions = list(dict.fromkeys(few[0] for few in trained_on))[:PRIOR_CAPTIONS]

    @abstractmethod
    def captioned_files(self) -> dict[Split, list[CaptionedFile]]:
        """Every image with its captions: of the training part, and of a test part if there is one of its own."""

    def image_shape_of(self, files: Sequence[CaptionedFile]) -> tuple[int, int, int]:
        """``(C, H, W)`` of the images as stored, or as good as: they are resized to ``image_size`` anyway."""
        return (3, *self.image_size) if self.image_size is not None else (3, 32, 32)

    def held_out_size(self, total: int) -> tuple[int, int]:
        """Default sizes of validation, and of test where it has no part of its own."""
        tenth = max(1, total // 10)
        return tenth, tenth

    def describe(self) -> DataInfo:
        self.listed: dict[Split, list[CaptionedFile]] = {
            part: self._short_enough(files) for part, files in self.captioned_files().items()
        }
        total = len(self.listed["train"])
        val_size, test_size = self.held_out_size(total)
        if "test" in self.listed:
            test_size = len(self.listed["test"])
        return DataInfo(
            self.image_shape_of(self.listed["train"]), 0, total, val_size, test_size, official=tuple(self.listed)
        )

    def _short_enough(self, files: Sequence[CaptionedFile]) -> list[CaptionedFile]:
        kept = []
        for path, captions in files:
            short = [caption for caption in captions if 0 < len(tokenize(caption)) <= self.max_words]
            kept += [CaptionedFile(path, short)] if short else []
        if not kept:
            raise ValueError(f"no caption has at most max_words={self.max_words} words: allow longer ones")
        return kept

    def load(self, part: Split) -> ImageSet:
        files = self.listed[part]
        return ImageSet(self.image_files([file.path for file in files]), self.resident_captions(files))

    def resident_captions(self, files: Sequence[CaptionedFile]) -> ResidentCaptions:
        """The captions of these images as word numbers, with ``<unk>`` for what training captions lack."""
        vocabulary = Vocabulary(self.vocabulary)
        count = torch.tensor([len(file.captions) for file in files])
        captions = vocabulary.encode_all([caption for file in files for caption in file.captions], strict=False)
        # int32 halves what half a million padded captions take.
        stored = Caption(captions.tokens.int(), captions.lengths.int())
        return ResidentCaptions(stored, count.cumsum(0) - count, count)

    def caption_digest(self) -> str:
        """Tells sets apart: first 8 hexadecimal digits of the SHA-256 of all names and captions."""
        sha = hashlib.sha256()
        for part, files in self.listed.items():
            for path, captions in files:
                sha.update("\0".join([part, Path(path).name, *captions, ""]).encode(errors="surrogateescape"))
        return sha.hexdigest()[:8]

    def remarks(self) -> list[str]:
        number = sum(len(file.captions) for files in self.listed.values() for file in files)
        facts = [f"{number:,} captions of at most {self.max_words} words (sha256 {self.caption_digest()} of them)"]
        rare = "" if self.min_count == 1 else f", those that come {self.min_count} times or more"
        return [*facts, f"{len(self.vocabulary):,} words in the vocabulary{rare}", *super().remarks()]
