"""Digits at the places that captions name, and captions told apart by their bounds."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

from lit_gen.callbacks import CaptionAccuracy, CaptionRetrieval
from lit_gen.callbacks.caption_accuracy import right_digits, squares
from lit_gen.callbacks.caption_retrieval import candidates, own_rank
from lit_gen.data import CaptionedDigits, Digits
from lit_gen.digit_scenes import PLACES, named_digits
from lit_gen.metrics import ClassifierFeatures
from lit_gen.models import VAE, Classifier, FusedAdam, GenerativeModel
from lit_gen.models.base import CaptionConditional, HasLowerBound
from lit_gen.networks import MLP


def quiet(**arguments: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        inference_mode=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **arguments,
    )


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that knows nine in ten of the embedded digits after some seconds."""
    torch.manual_seed(0)
    network = Classifier(
        (1, 8, 8),
        10,
        num_features=64,
        network=lambda i, o: MLP(i, o, hidden_dims=[64]),
        dropout=0.0,
        optimizer=lambda parameters: FusedAdam(parameters, lr=5e-3),
    )
    trainer = quiet(max_epochs=10)
    trainer.fit(network, Digits(batch_size=50))
    path = tmp_path_factory.mktemp("classifier") / "digits.ckpt"
    trainer.save_checkpoint(path)
    return path


class Scripted(GenerativeModel, CaptionConditional, HasLowerBound):
    """Draws what it was shown for a caption, or for the one after it; its bound counts the pixels that differ."""

    def __init__(self, vocabulary: list[str], deaf: bool = False) -> None:
        super().__init__((1, 60, 60))
        self.keep_vocabulary(vocabulary)
        self.deaf = deaf
        self.shown: dict[str, list[Tensor]] = {}

    def study(self, batches: Any) -> None:
        for images, captions in batches:
            for image, text in zip(images, self.describe(captions), strict=True):
                self.shown.setdefault(text, []).append(image)

    def draw(self, num_samples: int, condition: Any = None) -> Tensor:
        texts = self.describe(condition)
        if self.deaf:
            everything = list(self.shown)
            texts = [everything[int(torch.randint(len(everything), ()))] for _ in texts]
        return torch.stack([self.shown[text][int(torch.randint(len(self.shown[text]), ()))] for text in texts])

    def lower_bound(self, images: Tensor, num_samples: int = 1, condition: Any = None) -> Tensor:
        noise = torch.randn(len(images))
        if self.deaf:
            return noise
        known = [torch.stack(self.shown[text]) for text in self.describe(condition)]
        distances = [(image - few).abs().sum((1, 2, 3)).min() for image, few in zip(images, known, strict=True)]
        return noise - torch.stack(distances)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def test_step(self, batch: Any, batch_idx: int) -> None:
        pass


def scenes(**arguments: Any) -> CaptionedDigits:
    data = CaptionedDigits(num_train=10, num_val=10, num_test=150, batch_size=50, seed=3, **arguments)
    data.prepare_data()
    data.setup("test")
    return data


def scripted(data: CaptionedDigits, deaf: bool = False) -> Scripted:
    model = Scripted(data.vocabulary, deaf)
    model.study(data.test_dataloader())
    model.study(data.held_out_dataloader())
    return model


def measured(model: pl.LightningModule, data: Any, *callbacks: pl.Callback) -> dict[str, float]:
    return dict(quiet(callbacks=list(callbacks)).test(model, data, verbose=False)[0])


def test_sentences_name_digits_and_places() -> None:
    data = CaptionedDigits()
    places = [place for caption in data.captions_of("all") for _, place in named_digits(caption)]
    assert {place: places.count(place) for place in PLACES} == {
        **dict.fromkeys(("left", "right", "top", "bottom"), 200),
        **dict.fromkeys(("top left", "bottom right", "top right", "bottom left"), 10),
    }
    assert named_digits("the digit 4 is on the right of the digit 9 .") == ((4, "right"), (9, "left"))
    for wrong in ("the digit 4 .", "the digit a is on the right of the digit 9 .", "a digit 4 is"):
        with pytest.raises(ValueError, match="is no sentence about digits on a canvas"):
            named_digits(wrong)


def test_squares_are_those_in_which_digits_may_lie() -> None:
    canvas = torch.arange(3600.0).view(1, 1, 60, 60)
    for (top, bottom), (left, right) in PLACES.values():
        found = squares(canvas, PLACES["left"]._replace(rows=(top, bottom), columns=(left, right)))
        corners = [canvas[0, 0, row, column] for row in range(top, bottom + 1) for column in range(left, right + 1)]
        assert torch.equal(found[0, :, 0, 0], torch.stack(corners))
        assert found.shape[2:] == (28, 28)


def test_a_model_that_renders_scenes_scores_as_the_images_do(classifier: Path) -> None:
    data = scenes()
    found = measured(scripted(data), data, CaptionAccuracy(str(classifier)))
    for kind in ("seen", "held_out"):
        for measure in ("digit", "scene"):
            ours, real = found[f"test/{measure}_accuracy_{kind}"], found[f"test/{measure}_accuracy_{kind}_real"]
            assert real > 0.7, "what the classifier knows of digits that were moved and enlarged"
            assert ours == pytest.approx(real, abs=0.06)
        assert found[f"test/scene_accuracy_{kind}"] <= found[f"test/digit_accuracy_{kind}"]


def test_a_model_that_ignores_captions_is_at_chance(classifier: Path) -> None:
    data = scenes()
    found = measured(scripted(data, deaf=True), data, CaptionAccuracy(str(classifier)))
    for kind in ("seen", "held_out"):
        assert found[f"test/digit_accuracy_{kind}"] < 0.25
        assert found[f"test/digit_accuracy_{kind}_real"] > 0.7


def test_test_images_of_held_out_compositions(classifier: Path) -> None:
    data = scenes(test_compositions="held_out")
    model = scripted(data)
    found = measured(model, data, CaptionAccuracy(str(classifier)))
    assert {name.split("/")[1] for name in found} == {
        f"{measure}_accuracy_held_out{real}" for measure in ("digit", "scene") for real in ("", "_real")
    }
    # Without a data module nothing is known to be held out.
    loose = measured(model, data.test_dataloader(), CaptionAccuracy(str(classifier)))
    assert loose["test/digit_accuracy_seen_real"] == pytest.approx(found["test/digit_accuracy_held_out_real"])


class Brightest(nn.Module):
    """Sees the digit whose row of ten is the brightest."""

    image_shape, num_features, num_classes = (1, 28, 28), 10, 10

    def features(self, images: Tensor) -> Tensor:
        return 1e3 * images[:, 0, 4:24:2].mean(2)

    def classify(self, features: Tensor) -> Tensor:
        return features


def test_right_digits_belong_to_their_images() -> None:
    canvases = torch.zeros(3, 1, 60, 60)
    for image, row, columns, digit in ((0, 17, 2, 3), (0, 17, 30, 5), (1, 31, 30, 8), (2, 1, 17, 0), (2, 31, 17, 9)):
        canvases[image, 0, row + 4 + 2 * digit, columns : columns + 28] = 1
    texts = [
        "the digit 5 is on the right of the digit 3 .",
        "the digit 8 is at the bottom right of the image .",
        "the digit 0 is at the top of the digit 4 .",
    ]
    right, owner = right_digits(ClassifierFeatures(Brightest()), canvases.expand(-1, 3, -1, -1), texts)
    found = sorted(zip(owner.tolist(), right.tolist(), strict=True))
    assert found == [(0, True), (0, True), (1, True), (2, False), (2, True)]


def test_captions_are_told_apart_by_their_bounds() -> None:
    data = scenes()
    retrieval = CaptionRetrieval(num_candidates=8, num_images=70)
    found = measured(scripted(data), data, retrieval)
    assert found["test/caption_rank"] == found["test/caption_recall_at_1"] == 1
    assert found["test/bound_matched"] > found["test/bound_shuffled"] + 50
    deaf = measured(scripted(data, deaf=True), data, retrieval)
    assert deaf["test/caption_rank"] == 4.5, "the same noise for all captions: all ranks are shared"
    assert deaf["test/caption_recall_at_1"] == 0
    assert deaf["test/bound_matched"] == deaf["test/bound_shuffled"]


def test_candidates_differ_and_the_own_one_comes_first() -> None:
    tokens = torch.tensor([[1, 2], [1, 3], [1, 2], [4, 0], [5, 6], [1, 3]])
    for _ in range(20):
        rows = candidates(tokens, 3)
        assert rows is not None
        assert rows[:, 0].tolist() == list(range(6))
        for row in rows:
            assert len({tuple(tokens[one].tolist()) for one in row}) == 3
    assert candidates(tokens, 5) is None
    own, others = torch.tensor([2.0, 2.0, 2.0]), torch.tensor([[1.0, 3.0, 2.0], [0.0, 2.5, 3.0]])
    assert own_rank(own, others).tolist() == [1, 3, 2.5]


def test_mistakes(classifier: Path, tmp_path: Path) -> None:
    data = scenes()
    plain = VAE((1, 60, 60), 2)
    for callback, reason in (
        (CaptionAccuracy(str(classifier)), "needs a model of captions, and VAE is none"),
        (CaptionRetrieval(), "needs a model of captions with a bound, and VAE is none"),
    ):
        with pytest.raises(TypeError, match=reason):
            measured(plain, data, callback)
    trainer = quiet(max_steps=0)
    three = Classifier((1, 8, 8), 3, num_features=4, network=lambda i, o: MLP(i, o, hidden_dims=[4]))
    trainer.strategy.connect(three)
    trainer.save_checkpoint(tmp_path / "three.ckpt")
    with pytest.raises(ValueError, match=r"is a classifier of 3 classes for images of \(1, 8, 8\); take"):
        measured(scripted(data), data, CaptionAccuracy(str(tmp_path / "three.ckpt")))
    with pytest.raises(ValueError, match="tells 60 captions apart, and a batch of 50 images has fewer"):
        measured(scripted(data), data, CaptionRetrieval(num_candidates=60))
    with pytest.raises(ValueError, match="num_candidates must be at least 2, got 1"):
        CaptionRetrieval(num_candidates=1)
