"""Digits on a canvas with a caption that says which stands where."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lit_gen.captions import PADDING, Caption, Vocabulary
from lit_gen.data.base import DataInfo, ImageDataModule, ImageSet
from lit_gen.data.digits import Digits
from lit_gen.data.loader import BatchLoader, InMemory, ResidentImages, Split, TargetSource, derived_seed
from lit_gen.data.mnist import MNIST
from lit_gen.data.pixels import to_shape
from lit_gen.digit_scenes import ANY_DIGIT, CANVAS, DIGIT, INK, PLACES, SLOTS, TEMPLATES, all_captions

Compositions = Literal["seen", "held_out"]


class SceneTable(NamedTuple):
    """What lies where on N canvases."""

    templates: Tensor  # (N,) number of the template
    digits: Tensor  # (N, 2) number of the digit's image; the second does not matter where the template has one digit
    rows: Tensor  # (N, 2) of the upper left corner
    columns: Tensor  # (N, 2)


class Scenes:
    """Draws the scenes of a split, anew for every epoch, from the seed and the epoch alone.

    Args:
        labels: ``(M,)`` of the digits to choose from.
        total: scenes in an epoch.
        held_out: a digit for each of :data:`~lit_gen.digit_scenes.SLOTS`.
        compositions: whether the scenes are those that training sees, or those that are held out.
        seed: of everything.
    """

    def __init__(
        self, labels: Tensor, total: int, held_out: Sequence[int], compositions: Compositions, seed: int
    ) -> None:
        self.labels = labels
        self.total = total
        self.wanted = compositions == "held_out"
        self.seed = seed
        self.banned = torch.full((len(TEMPLATES), 2), ANY_DIGIT)
        for (template, slot), digit in zip(SLOTS, held_out, strict=True):
            self.banned[template, slot] = digit
        places = torch.tensor([[PLACES[place] for place in (*one.places, one.places[0])[:2]] for one in TEMPLATES])
        self.low, high = places.unbind(-1)  # (templates, 2 digits, row and column)
        self.span = high - self.low + 1
        self._table: tuple[int, SceneTable] | None = None

    def of_epoch(self, epoch: int) -> SceneTable:
        """The scenes of this epoch; the last ones that were asked for are kept."""
        if self._table is None or self._table[0] != epoch:
            self._table = epoch, self._drawn(epoch)
        return self._table[1]

    def _drawn(self, epoch: int) -> SceneTable:
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "scenes", epoch))
        templates = torch.empty(self.total, dtype=torch.int64)
        digits = torch.empty(self.total, 2, dtype=torch.int64)
        left = torch.arange(self.total)
        while len(left):  # a scene that may not be is drawn again as a whole, as published
            templates[left] = torch.randint(len(TEMPLATES), (len(left),), generator=generator)
            digits[left] = torch.randint(len(self.labels), (len(left), 2), generator=generator)
            banned = (self.labels[digits[left]] == self.banned[templates[left]]).any(1)
            left = left[banned != self.wanted]
        offsets = torch.rand(self.total, 2, 2, generator=generator) * self.span[templates]
        rows, columns = (self.low[templates] + offsets.long()).unbind(-1)
        return SceneTable(templates, digits, rows, columns)


class SceneImages(InMemory):
    """Pictures of scenes, put together from digits in memory when they are fetched.

    Args:
        scenes: say what lies where.
        digits: ``(M, 1, 28, 28)`` uint8.
        shape: ``(C, H, W)`` wanted; the canvas is resized to it.
    """

    def __init__(self, scenes: Scenes, digits: Tensor, shape: tuple[int, ...]) -> None:
        self.scenes, self.digits, self.shape = scenes, digits, shape
        # The digit that a sentence about one digit lacks.
        self.padded = torch.cat([digits[:, 0].to(torch.int16), digits.new_zeros(1, DIGIT, DIGIT)])
        self.single = torch.tensor([len(template.places) == 1 for template in TEMPLATES]).to(digits.device)
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        self.table = SceneTable(*(part.to(self.device) for part in self.scenes.of_epoch(epoch)))

    def __len__(self) -> int:
        return self.scenes.total

    @property
    def device(self) -> torch.device:
        return self.digits.device

    @property
    def nbytes(self) -> int:
        return self.digits.nbytes + self.padded.nbytes

    def to(self, device: torch.device) -> "SceneImages":
        return SceneImages(self.scenes, self.digits.to(device), self.shape)

    def take(self, indices: Tensor) -> "SceneImages":
        raise NotImplementedError("scenes are drawn anew in every epoch: there is no choice of some of them")

    def fetch(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        table = self.table  # of the epoch in which this pass began
        for indices in batches:
            yield to_shape(self.drawn(SceneTable(*(part[indices] for part in table))), self.shape)

    def drawn(self, table: SceneTable) -> Tensor:
        """The canvases ``(B, 1, 60, 60)`` of these scenes; where digits overlap their ink is added, and clipped."""
        digits = table.digits.clone()
        digits[:, 1] = digits[:, 1].where(~self.single[table.templates], len(self.digits))
        side = torch.arange(DIGIT, device=self.device)
        square = (CANVAS * side[:, None] + side).flatten()  # places of a digit's pixels on a canvas laid out in a row
        places = (CANVAS * table.rows + table.columns)[:, :, None] + square  # (B, 2, 28 * 28)
        canvas = self.padded.new_zeros(len(digits), CANVAS * CANVAS)
        canvas.scatter_add_(1, places.flatten(1), self.padded[digits].flatten(1))
        return canvas.clamp(max=255).to(torch.uint8).view(-1, 1, CANVAS, CANVAS)


class SceneCaptions(TargetSource):
    """Captions of scenes.

    Args:
        scenes: say what lies where.
        vocabulary: numbers the words.
        device: where the captions come out.
    """

    def __init__(self, scenes: Scenes, vocabulary: Vocabulary, device: torch.device) -> None:
        self.scenes, self.vocabulary, self.device = scenes, vocabulary, device
        sentences = [[template.sentence.format(a, a) for a in range(10)] for template in TEMPLATES]
        # (templates, digits, words): the caption of each template with the same digit in all places.
        self.tokens = torch.stack([vocabulary.encode_all(row).tokens for row in sentences]).to(device)
        differ = (self.tokens[:, :1] != self.tokens).any(1)  # (templates, words): where a digit stands
        self.first = differ & (differ.cumsum(1) == 1)
        self._of_epoch: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return self.scenes.total

    def to(self, device: torch.device) -> "SceneCaptions":
        return SceneCaptions(self.scenes, self.vocabulary, device)

    def take(self, indices: Tensor) -> "SceneCaptions":
        raise NotImplementedError("scenes are drawn anew in every epoch: there is no choice of some of them")

    def fetch(self, indices: Tensor, epoch: int, generator: torch.Generator | None) -> Caption:
        if self._of_epoch is None or self._of_epoch[0] != epoch:
            table = self.scenes.of_epoch(epoch)
            facts = torch.cat([table.templates[:, None], self.scenes.labels[table.digits]], 1)
            self._of_epoch = epoch, facts.to(self.device)
        templates, first, second = self._of_epoch[1][indices].unbind(1)
        tokens = self.tokens[templates, first].where(self.first[templates], self.tokens[templates, second])
        return Caption(tokens, torch.full_like(templates, tokens.shape[1]))


class CaptionedDigits(ImageDataModule):
    """One or two digits on a canvas of 60x60, with captions such as "the digit 3 is at the top of the digit 7 .".

    The images of alignDRAW (Mansimov et al. 2016): eight sentences of twelve words, digits of 28x28 at random offsets.
    They are put together anew in every epoch; those of validation and test, from digits of their own, stay the same.
    Twelve pairs of a digit and a place are held out: no training image has them, and so none has seen these captions.

    Example:
        >>> data = CaptionedDigits(batch_size=5, num_train=20)
        >>> images, captions = next(iter(data.train_dataloader()))
        >>> images.shape, captions.tokens.shape, len(data.vocabulary)
        (torch.Size([5, 1, 60, 60]), torch.Size([5, 12]), 23)

    Args:
        root: folder of MNIST, downloaded into it when it is not there. Default: the digits embedded in scikit-learn,
            enlarged from 8x8, which need no download.
        num_train: images in an epoch of training.
        num_val: images for validation, all of compositions that are seen in training.
        num_test: images for testing.
        test_compositions: whether the test images are of compositions ``seen`` in training or of those ``held_out``.
        held_out: a digit for each of the twelve places in the eight sentences, in their order; 10 for none. Default: a
            fixed choice.
    """

    def __init__(
        self,
        root: str | None = None,
        num_train: int = 10_000,
        num_val: int = 1_000,
        num_test: int = 1_000,
        test_compositions: Compositions = "seen",
        held_out: list[int] | None = None,
        **kwargs: Any,
    ) -> None:
        root = None if root is None else str(root)  # a Path would make the checkpoint unreadable with weights_only=True
        if num_train < 1 or min(num_val, num_test) < 0:
            raise ValueError(
                f"num_train must be at least 1, num_val and num_test at least 0; got {num_train}, {num_val}, {num_test}"
            )
        # NumPy promises never to change what this old generator gives, so what is held out will not change either.
        drawn = np.random.RandomState(0).randint(0, ANY_DIGIT + 1, len(SLOTS)).tolist()
        self.held_out: list[int] = drawn if held_out is None else list(held_out)
        """The digit that no training image has at each of the twelve places of the sentences; 10 for none."""
        if len(self.held_out) != len(SLOTS) or not all(0 <= digit <= ANY_DIGIT for digit in self.held_out):
            raise ValueError(
                f"held_out must be {len(SLOTS)} numbers from 0 to {ANY_DIGIT} ({ANY_DIGIT}: nothing is held out), got"
                f" {self.held_out}"
            )
        if test_compositions == "held_out" and min(self.held_out) == ANY_DIGIT:
            raise ValueError("test_compositions=held_out, but nothing is held out: leave held_out out")
        self.test_compositions = test_compositions
        self._numbers = DataInfo((1, CANVAS, CANVAS), 0, num_train, num_val, num_test, ("train", "val", "test"))
        self.digits: ImageDataModule = Digits() if root is None else MNIST(root)
        """Where the digits come from."""
        super().__init__(**kwargs)
        for option, wrong in (
            ("subset", self.subset is not None),
            ("horizontal_flip", self.horizontal_flip),
            ("binarization=static", self.binarization == "static"),
        ):
            if wrong:
                raise ValueError(
                    f"{option} does not fit {self.name}: its images are drawn anew in every epoch, and their captions"
                    " speak of left and right; set num_train for fewer images"
                )
        words = dict.fromkeys(word for caption in self.captions_of("all") for word in caption.split())
        self.vocabulary = [PADDING, *sorted(words)]
        self.captions = self.captions_of("seen")

    def captions_of(self, compositions: Literal["seen", "held_out", "all"]) -> list[str]:
        """All captions of the compositions that training sees, of those that are held out, or of both."""
        wanted = {"seen": [False], "held_out": [True], "all": [False, True]}[compositions]
        return [caption for one in wanted for caption in all_captions(self.held_out, one)]

    def describe(self) -> DataInfo:
        return self._numbers

    def prepare_data(self) -> None:
        self.digits.prepare_data()

    def load(self, part: Split) -> ImageSet:
        return self._scenes(part, self.test_compositions if part == "test" else "seen")

    def held_out_dataloader(self) -> BatchLoader:
        """As many images as ``num_test``, all of held-out compositions, of the digits of the test images.

        Raises:
            ValueError: nothing is held out.
        """
        if min(self.held_out) == ANY_DIGIT:
            raise ValueError("nothing is held out: leave held_out out when making the data")
        other = CaptionedDigits(**{**self._options(), "test_compositions": "held_out"})
        loader = other.test_dataloader()
        assert isinstance(loader, BatchLoader)
        return loader

    def _options(self) -> dict[str, Any]:
        return {name: value for name, value in self.hparams.items() if not name.startswith("_")}

    def _scenes(self, part: Split, compositions: Compositions) -> ImageSet:
        images, labels = self.digits.split(part)
        assert isinstance(images, ResidentImages)
        assert isinstance(labels, Tensor)
        digits = images.images
        if digits.shape[-1] != DIGIT:
            digits = F.interpolate(digits, size=(INK, INK), mode="bicubic", antialias=True)
            digits = F.pad(digits, 4 * [(DIGIT - INK) // 2])
        total = {"train": self.info.train_size, "val": self.info.val_size, "test": self.info.test_size}[part]
        scenes = Scenes(labels, total, self.held_out, compositions, derived_seed(self.seed, part, compositions))
        captions = SceneCaptions(scenes, Vocabulary(self.vocabulary), torch.device("cpu"))
        return ImageSet(SceneImages(scenes, digits, self.image_shape), captions)

    def native_size(self) -> str:
        return f"{CANVAS}x{CANVAS}"

    def remarks(self) -> list[str]:
        source = "MNIST" if isinstance(self.digits, MNIST) else "the digits of scikit-learn, enlarged"
        facts = [f"put together from {source}, anew in every epoch of training"]
        facts.append(f"held out (template by template) {' '.join(map(str, self.held_out))}")
        return [*facts, f"test images of {self.test_compositions.replace('_', '-')} compositions"]
