"""The captions of the digits on a canvas: eight sentences, and where each puts its digits.

Mansimov, Parisotto, Ba & Salakhutdinov 2016, Generating Images from Captions with Attention
(https://arxiv.org/abs/1511.02793), MNIST with captions: sentences, canvas, offsets and the rule of the compositions
that are held out are the published ones.
"""

from collections.abc import Sequence
from typing import NamedTuple

CANVAS = 60
"""Height and width of the canvas, in pixels."""
DIGIT = 28
"""Height and width of the square that a digit lies in, in pixels."""
INK = 24
"""Side, in pixels, to which the embedded digits are enlarged: they fill their 8x8, where MNIST's have a margin."""
ANY_DIGIT = 10
"""Stands for "no digit" among the held-out ones."""


class Place(NamedTuple):
    """Where the upper left corner of a digit's square may lie: inclusive ranges, in pixels."""

    rows: tuple[int, int]
    columns: tuple[int, int]


_NEAR_TOP, _NEAR_BOTTOM, _MIDDLE = (0, 2), (30, 32), (16, 18)
_NEAR_LEFT, _NEAR_RIGHT = (0, 4), (28, 32)
PLACES = {
    "left": Place(_MIDDLE, _NEAR_LEFT),
    "right": Place(_MIDDLE, _NEAR_RIGHT),
    "top": Place(_NEAR_TOP, _MIDDLE),
    "bottom": Place(_NEAR_BOTTOM, _MIDDLE),
    "top left": Place(_NEAR_TOP, _NEAR_LEFT),
    "bottom right": Place(_NEAR_BOTTOM, _NEAR_RIGHT),
    "top right": Place(_NEAR_TOP, _NEAR_RIGHT),
    "bottom left": Place(_NEAR_BOTTOM, _NEAR_LEFT),
}


class Template(NamedTuple):
    """A sentence and where its digits lie."""

    sentence: str
    """With ``{}`` for each digit."""
    places: tuple[str, ...]
    """The place of each digit, in the order of the sentence."""


TEMPLATES = (
    Template("the digit {} is on the left of the digit {} .", ("left", "right")),
    Template("the digit {} is on the right of the digit {} .", ("right", "left")),
    Template("the digit {} is at the top of the digit {} .", ("top", "bottom")),
    Template("the digit {} is at the bottom of the digit {} .", ("bottom", "top")),
    Template("the digit {} is at the top left of the image .", ("top left",)),
    Template("the digit {} is at the bottom right of the image .", ("bottom right",)),
    Template("the digit {} is at the top right of the image .", ("top right",)),
    Template("the digit {} is at the bottom left of the image .", ("bottom left",)),
)
DIGITS = tuple("0123456789")
SLOTS = tuple((number, slot) for number, template in enumerate(TEMPLATES) for slot in range(len(template.places)))
"""Template and position within it of each of the twelve held-out digits."""


class NamedDigit(NamedTuple):
    """A digit and where it stands."""

    digit: int
    place: str
    """One of :data:`PLACES`."""


def named_digits(caption: str) -> tuple[NamedDigit, ...]:
    """The digits that a sentence names, and where it puts each.

    >>> named_digits("the digit 3 is at the top of the digit 7 .")
    (NamedDigit(digit=3, place='top'), NamedDigit(digit=7, place='bottom'))

    Raises:
        ValueError: it is none of :data:`TEMPLATES`.
    """
    words = caption.split()
    for template in TEMPLATES:
        pattern = template.sentence.split()
        if len(words) == len(pattern) and all(
            wanted == word or (wanted == "{}" and word in DIGITS) for wanted, word in zip(pattern, words, strict=True)
        ):
            digits = [int(word) for word in words if word in DIGITS]
            return tuple(NamedDigit(*pair) for pair in zip(digits, template.places, strict=True))
    raise ValueError(
        f"{caption!r} is no sentence about digits on a canvas, such as {TEMPLATES[0].sentence.format(3, 7)!r} (see"
        " CaptionedDigits)"
    )


def is_held_out(template: int, digits: Sequence[int], held_out: Sequence[int]) -> bool:
    """Whether one of the digits stands where the training images never have it.

    Args:
        template: number of the template.
        digits: its one or two digits.
        held_out: a digit for each of :data:`SLOTS`; 10 for none.
    """
    return any(held_out[SLOTS.index((template, slot))] == digit for slot, digit in enumerate(digits))


def all_captions(held_out: Sequence[int], wanted: bool) -> list[str]:
    """Every caption whose composition is held out (``wanted``), or every one that is not."""
    numbers = range(10)
    found = []
    for number, template in enumerate(TEMPLATES):
        pairs = [(a, b) for a in numbers for b in numbers] if len(template.places) == 2 else [(a,) for a in numbers]
        found += [
            template.sentence.format(*digits) for digits in pairs if is_held_out(number, digits, held_out) is wanted
        ]
    return found
