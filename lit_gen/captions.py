"""Captions as numbers: what the data sets write, the models read and the pictures show."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

PADDING = "<pad>"
UNKNOWN = "<unk>"
WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
SHOWN_WORDS = 40
"""A vocabulary of at most so many words is told in full to a user who wrote another."""


class Caption(NamedTuple):
    """Captions of B images as word numbers, padded behind their last word."""

    tokens: Tensor
    """(B, T) int64 numbers of the words, 0 where there is none."""
    lengths: Tensor
    """(B,) int64 numbers of words, at least 1."""

    @property
    def mask(self) -> Tensor:
        """(B, T) bool: where there is a word."""
        return torch.arange(self.tokens.shape[1], device=self.tokens.device) < self.lengths[:, None]


def tokenize(text: str) -> list[str]:
    """Words and punctuation marks in lower case, with a full stop at the end, as the captions of alignDRAW have it.

    >>> tokenize("A woman's red-and-white cat, asleep")
    ['a', "woman's", 'red-and-white', 'cat', ',', 'asleep', '.']

    Args:
        text: a caption, or what a user wrote; the full stop is added where a final ``.``, ``!`` or ``?`` is missing.
    """
    words = WORD.findall(text.lower())
    return words + ["."] * (bool(words) and words[-1] not in (".", "!", "?"))


class Vocabulary:
    """The words of captions by their numbers.

    Example:
        >>> vocabulary = Vocabulary.build(["a red bird", "a blue sky"])
        >>> vocabulary.words
        ('<pad>', '<unk>', '.', 'a', 'bird', 'blue', 'red', 'sky')
        >>> vocabulary.encode("A red sky.")
        [3, 6, 7, 2]

    Args:
        words: all words in the order of their numbers; the first must be ``<pad>``, and ``<unk>`` may be among them,
            which stands for words that the vocabulary lacks.

    Raises:
        ValueError: no words, another first one, or one that comes twice.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._numbers = {word: number for number, word in enumerate(self.words)}
        if len(self.words) < 2 or self.words[0] != PADDING:
            raise ValueError(
                f"a vocabulary begins with {PADDING!r} and has at least one word more, got"
                f" {len(self.words)} words beginning with {list(self.words[:3])}; take that of a captioned data set"
                " (data.vocabulary)"
            )
        if len(self._numbers) != len(self.words):
            twice = [word for word, count in Counter(self.words).items() if count > 1]
            raise ValueError(
                f"words of a vocabulary must differ, {twice[0]!r} comes {self.words.count(twice[0])} times"
            )

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 1) -> "Vocabulary":
        """The vocabulary of some captions: their words by frequency (alphabetically among equals), ``<unk>`` before.

        Args:
            captions: of the training images.
            min_count: rarer words become ``<unk>``.
        """
        counts = Counter(word for caption in captions for word in tokenize(caption))
        kept = [word for word, count in counts.items() if count >= min_count]
        return cls([PADDING, UNKNOWN, *sorted(kept, key=lambda word: (-counts[word], word))])

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str, strict: bool = True) -> list[int]:
        """Numbers of the words of a caption.

        Args:
            text: a caption, which is split by :func:`tokenize`.
            strict: refuse a word that is not in the vocabulary; otherwise take ``<unk>`` for it.

        Raises:
            ValueError: no words, or unknown ones; names each of them with the nearest that are known.
        """
        return self._encoded([text], strict)[0]

    def encode_all(self, texts: Sequence[str], strict: bool = True) -> Caption:
        """Several captions, padded to the longest.

        Raises:
            ValueError: no captions, or as :meth:`encode` says.
        """
        if not texts:
            raise ValueError("there must be at least one caption, got none")
        return padded(self._encoded(texts, strict))

    def decode(self, captions: Caption) -> list[list[str]]:
        """The words of each caption."""
        rows, lengths = captions.tokens.tolist(), captions.lengths.tolist()
        return [[self.words[token] for token in row[:length]] for row, length in zip(rows, lengths, strict=True)]

    def _encoded(self, texts: Sequence[str], strict: bool) -> list[list[int]]:
        split = [tokenize(text) for text in texts]
        if not all(split):
            raise ValueError(f"a caption must have words, got {texts[split.index([])]!r}")
        if strict or UNKNOWN not in self._numbers:
            unknown = dict.fromkeys(word for words in split for word in words if word not in self._numbers)
            if unknown:
                raise ValueError(f"unknown {self._explained(list(unknown))}")
        substitute = self._numbers.get(UNKNOWN, 0)
        return [[self._numbers.get(word, substitute) for word in words] for words in split]

    def _explained(self, unknown: list[str]) -> str:
        real = [word for word in self.words if word not in (PADDING, UNKNOWN)]
        told = []
        for word in unknown:
            near = difflib.get_close_matches(word, real, n=3, cutoff=0.6)
            told.append(f"{word!r}" + (f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""))
        known = f"the model knows {len(real):,} words"
        return (
            f"word{'s' * (len(unknown) > 1)} {', '.join(told)}; {known}"
            f"{': ' + ' '.join(real) if len(real) <= SHOWN_WORDS else ''}"
        )


def padded(captions: Sequence[Sequence[int]]) -> Caption:
    """Word numbers of unlike many words in one tensor, 0 behind the last."""
    lengths = torch.tensor([len(caption) for caption in captions])
    tokens = torch.zeros(len(captions), int(lengths.max()), dtype=torch.int64)
    # One assignment for all: half a million captions take a second.
    tokens[Caption(tokens, lengths).mask] = torch.tensor([token for caption in captions for token in caption])
    return Caption(tokens, lengths)
