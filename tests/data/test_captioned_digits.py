"""Digits on a canvas with captions."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_gen.captions import Caption, Vocabulary
from lit_gen.data import CaptionedDigits
from lit_gen.data.captioned_digits import SceneImages
from tests.data.common import Recorder, trainer

RULE = [5, 0, 10, 3, 7, 9, 3, 5, 2, 4, 7, 6]
PHRASES = ["on the left of", "on the right of", "at the top of", "at the bottom of"]
CORNERS = ["top left", "bottom right", "top right", "bottom left"]
# Inclusive corners of the squares as published, (rows, columns) of the first digit and of the second.
BOXES = {
    "on the left of": [(16, 18, 0, 4), (16, 18, 28, 32)],
    "on the right of": [(16, 18, 28, 32), (16, 18, 0, 4)],
    "at the top of": [(0, 2, 16, 18), (30, 32, 16, 18)],
    "at the bottom of": [(30, 32, 16, 18), (0, 2, 16, 18)],
    "top left": [(0, 2, 0, 4)],
    "bottom right": [(30, 32, 28, 32)],
    "top right": [(0, 2, 28, 32)],
    "bottom left": [(30, 32, 0, 4)],
}


def small(**options: Any) -> CaptionedDigits:
    return CaptionedDigits(**{"num_train": 60, "num_val": 20, "num_test": 40, "batch_size": 16, **options})


def everything(loader: Any) -> tuple[Tensor, Tensor]:
    images, captions = zip(*loader, strict=True)
    return torch.cat(images), torch.cat([caption.tokens for caption in captions])


def texts(data: CaptionedDigits, tokens: Tensor) -> list[str]:
    lengths = torch.full((len(tokens),), tokens.shape[1])
    return [" ".join(words) for words in Vocabulary(data.vocabulary).decode(Caption(tokens, lengths))]


def parsed(text: str) -> tuple[str, list[int]]:
    """The phrase of a caption and its digits, told without the package."""
    phrase = next(phrase for phrase in PHRASES[:2] + CORNERS + PHRASES[2:] if phrase in text)
    return phrase, [int(word) for word in text.split() if word.isdigit()]


def banned(text: str) -> bool:
    """The published rule of what is held out."""
    phrase, digits = parsed(text)
    if phrase in CORNERS:
        return digits[0] == RULE[8 + CORNERS.index(phrase)]
    k = PHRASES.index(phrase)
    return digits[0] == RULE[2 * k] or digits[1] == RULE[2 * k + 1]


def test_words_are_the_published_ones() -> None:
    data = small()
    assert data.vocabulary[0] == "<pad>"
    words = ["the", "digit", "is", "on", "at", "left", "right", "bottom", "top", "of", "image"]
    assert set(data.vocabulary[1:]) == {*words, *"0123456789."}
    assert len(data.vocabulary) == 23
    assert {len(caption.split()) for caption in data.captions_of("all")} == {12}
    assert len(data.captions_of("all")) == 4 * 100 + 4 * 10


def test_ink_lies_where_the_caption_says() -> None:
    data = small(num_train=400, held_out=RULE)
    data.setup("fit")
    images, tokens = everything(data.train_dataloader())
    assert images.shape == (400, 1, 60, 60)
    seen = set()
    for image, text in zip(images[:, 0], texts(data, tokens), strict=True):
        phrase, digits = parsed(text)
        seen.add(phrase)
        assert len(BOXES[phrase]) == len(digits)
        rest = image.clone()
        for top, bottom, left, right in BOXES[phrase]:
            # The digits have ink in the middle of their square, and none outside of the squares' range.
            assert image[bottom + 4 : top + 24, right + 4 : left + 24].sum() > 3, text
            rest[top : bottom + 28, left : right + 28] = 0
        assert rest.sum() == 0, text
    assert seen == set(BOXES)


def test_the_digits_are_those_of_the_caption() -> None:
    data = small()
    data.setup("fit")
    source = data.train_dataloader().images
    assert isinstance(source, SceneImages)
    _, labels = data.digits.split("train")
    assert isinstance(labels, Tensor)
    loader = data.train_dataloader()
    _, tokens = everything(loader)
    table, order = loader.images.scenes.of_epoch(0), torch.cat(list(loader.batches()))  # type: ignore[attr-defined]
    for text, place in zip(texts(data, tokens), order, strict=True):
        _, digits = parsed(text)
        assert labels[table.digits[place]][: len(digits)].tolist() == digits


def test_held_out_compositions_are_only_in_their_test() -> None:
    data = small(held_out=RULE, num_train=500)
    seen, held_out = data.captions_of("seen"), data.captions_of("held_out")
    assert {text for text in data.captions_of("all") if banned(text)} == set(held_out)
    assert set(seen).isdisjoint(held_out)
    assert data.captions == seen
    data.setup()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert not any(map(banned, texts(data, everything(loader)[1])))
    assert all(map(banned, texts(data, everything(data.held_out_dataloader())[1])))
    tested = small(held_out=RULE, test_compositions="held_out")
    images, tokens = everything(tested.test_dataloader())
    assert all(map(banned, texts(tested, tokens)))
    assert torch.equal(images, everything(data.held_out_dataloader())[0])
    assert "held-out compositions" in tested.protocol


def test_training_images_are_new_in_every_epoch_and_others_never() -> None:
    data = small()
    train, val = data.train_dataloader(), data.val_dataloader()
    before, of_val = everything(train), everything(val)
    again = everything(small().train_dataloader())
    assert torch.equal(before[0], again[0])
    assert torch.equal(before[1], again[1])
    train.set_epoch(1)
    assert not set(map(bytes, before[0].mul(255).byte().flatten(1).numpy())) & set(
        map(bytes, everything(train)[0].mul(255).byte().flatten(1).numpy())
    )
    assert torch.equal(of_val[0], everything(val)[0])
    assert not torch.equal(before[0], everything(small(seed=1).train_dataloader())[0])


def test_ink_is_added_and_clipped_where_digits_overlap() -> None:
    data = small()
    data.setup("fit")
    source = data.split("train")[0]
    assert isinstance(source, SceneImages)
    table = source.table._replace(rows=torch.zeros(60, 2).long(), columns=torch.zeros(60, 2).long())
    drawn = source.drawn(table)
    for image, template, digits in zip(drawn[:, 0], table.templates, table.digits, strict=True):
        both = source.digits[digits[: 1 if template > 3 else 2], 0].int().sum(0).clamp(max=255)
        assert torch.equal(image[:28, :28].int(), both)
        assert image[28:].sum() == image[:, 28:].sum() == 0


class CaptionRecorder(Recorder):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, captions = batch
        numbered = captions.tokens * torch.arange(1, 13) * captions.mask
        return super().training_step((images, numbered.double()), batch_idx)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")
def test_a_resumed_run_sees_the_same_batches(tmp_path: Path) -> None:
    options: dict[str, Any] = {"image_size": 8, "binarization": "stochastic"}
    whole = CaptionRecorder()
    trainer(tmp_path / "whole", max_epochs=2).fit(whole, small(**options))
    stopped = CaptionRecorder(stop_after=6)  # in the second epoch
    with pytest.raises(InterruptedError):
        trainer(tmp_path / "stopped", max_epochs=2).fit(stopped, small(**options))
    resumed = CaptionRecorder()
    trainer(tmp_path / "stopped", max_epochs=2).fit(
        resumed, small(**options), ckpt_path=str(tmp_path / "stopped" / "6.ckpt")
    )
    assert stopped.seen + resumed.seen == whole.seen
    assert len(whole.seen) == 8


def test_canvas_of_another_size() -> None:
    data = small(image_size=(20, 30), channels=3)
    images, _ = next(iter(data.train_dataloader()))
    assert images.shape == (16, 3, 20, 30)
    assert data.image_shape == (3, 20, 30)
    assert "resized from 60x60" in data.protocol


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": [1, 2]}, "held_out must be 12 numbers from 0 to 10"),
        ({"held_out": 12 * [11]}, "held_out must be 12 numbers from 0 to 10"),
        ({"held_out": 12 * [10], "test_compositions": "held_out"}, "nothing is held out"),
        ({"num_train": 0}, "num_train must be at least 1"),
        ({"subset": 10}, "subset does not fit CaptionedDigits.*set num_train"),
        ({"horizontal_flip": True}, "horizontal_flip does not fit.*left and right"),
        ({"binarization": "static"}, "binarization=static does not fit"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)
    if options.get("held_out") == 12 * [10]:
        with pytest.raises(ValueError, match="nothing is held out"):
            small(held_out=12 * [10]).held_out_dataloader()
