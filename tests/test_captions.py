"""Captions as numbers."""

import pytest
import torch
from lightning.fabric.utilities import move_data_to_device

from lit_gen.callbacks.evaluation import chosen, first
from lit_gen.captions import Caption, Vocabulary, padded, tokenize
from lit_gen.models.base import repeat_condition

SENTENCES = ["A red bird.", "A red, red sky!", "a dog's bird-house"]


def test_words_punctuation_and_full_stop() -> None:
    assert [tokenize(text) for text in SENTENCES] == [
        ["a", "red", "bird", "."],
        ["a", "red", ",", "red", "sky", "!"],
        ["a", "dog's", "bird-house", "."],
    ]
    assert tokenize("  ") == []
    assert tokenize("the digit 3 is at the top of the digit 7 .") == [
        *["the", "digit", "3", "is", "at", "the", "top", "of", "the", "digit", "7", "."]
    ]


def test_vocabulary_counts_and_numbers() -> None:
    vocabulary = Vocabulary.build(SENTENCES)
    assert vocabulary.words[:5] == ("<pad>", "<unk>", "a", "red", ".")  # 3, 3 and 2 times
    frequent = Vocabulary.build(SENTENCES, min_count=2)
    assert frequent.words == ("<pad>", "<unk>", "a", "red", ".")
    assert frequent.encode("a red bird", strict=False) == [2, 3, 1, 4]
    captions = vocabulary.encode_all(SENTENCES)
    assert [" ".join(words) for words in vocabulary.decode(captions)] == [
        " ".join(map(str, tokenize(one))) for one in SENTENCES
    ]


def test_mask_covers_the_words() -> None:
    captions = padded([[3, 4], [5], [6, 7, 8]])
    assert captions.tokens.tolist() == [[3, 4, 0], [5, 0, 0], [6, 7, 8]]
    assert captions.lengths.tolist() == [2, 1, 3]
    assert captions.mask.tolist() == [[True, True, False], [True, False, False], [True, True, True]]


def test_unknown_words_are_named_with_the_nearest() -> None:
    vocabulary = Vocabulary.build(SENTENCES)
    with pytest.raises(
        ValueError, match=r"unknown words 'birt' \(did you mean 'bird'.*\?\), 'zzz'; the model knows 9 words: a"
    ):
        vocabulary.encode("a birt zzz birt")
    with pytest.raises(ValueError, match="must have words"):
        vocabulary.encode(" ", strict=False)
    closed = Vocabulary(["<pad>", "a", "."])
    with pytest.raises(ValueError, match="unknown word 'cat'; the model knows 2 words"):
        closed.encode("a cat", strict=False)
    with pytest.raises(ValueError, match="begins with '<pad>'"):
        Vocabulary(["a", "b"])
    with pytest.raises(ValueError, match="'a' comes 2 times"):
        Vocabulary(["<pad>", "a", "a"])


def test_conditions_of_captions_go_through_what_all_conditions_do() -> None:
    captions = padded([[3, 4], [5]])
    repeated = repeat_condition(captions, 3)
    assert isinstance(repeated, Caption)
    assert repeated.tokens.tolist() == 3 * [[3, 4], [5, 0]]
    assert repeated.lengths.tolist() == 3 * [2, 1]
    moved = move_data_to_device(captions, torch.device("meta"))
    assert isinstance(moved, Caption)
    assert moved.lengths.device.type == "meta"
    assert first(captions, 1).tokens.tolist() == [[3, 4]]
    assert chosen(captions, torch.tensor([1, 1, 0])).lengths.tolist() == [1, 1, 2]
