"""Whether the digits that a caption names stand where it says."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.nn import functional as F

from lit_gen.callbacks.evaluation import EvaluationCallback, Stage, evaluation, forked_generators, is_due, positive
from lit_gen.callbacks.metrics import batch_seed, check_stages
from lit_gen.digit_scenes import ANY_DIGIT, CANVAS, DIGIT, INK, PLACES, Place, named_digits
from lit_gen.metrics import ClassifierFeatures
from lit_gen.models.base import Batch, CaptionConditional, GenerativeModel
from lit_gen.models.checkpoint import load_model

MARGIN = (DIGIT - INK) // 2
INK_SCALE = 5.0
"""A square with so many white pixels less ink than another weighs e times less."""


@runtime_checkable
class HoldsOutCompositions(Protocol):
    """A data module some of whose compositions no training image has; ``CaptionedDigits`` is one."""

    held_out: list[int]
    test_compositions: str

    def held_out_dataloader(self) -> Iterable[Batch]:
        """Images of the held-out compositions."""


class CaptionAccuracy(EvaluationCallback):
    """Logs how often the digits that captions name stand where these say, as a classifier of digits sees it.

    One image is drawn for each caption of the test images (of ``CaptionedDigits``). At the place that the caption names
    for a digit, the classifier looks at every square that the place allows, and its mean probabilities decide, weighted
    by how much ink lies in the square.
    ``test/digit_accuracy_seen`` is the share of digits that are right, ``test/scene_accuracy_seen`` the share of images
    in which all are. ``..._held_out`` are the same for captions whose compositions no training image has, and
    ``..._real`` beside each for the images themselves: what a perfect model would reach. Chance is one in ten digits.

    What stands in other places is not looked at.

    Args:
        classifier: path of a checkpoint of a ``Classifier``, trained on MNIST (28x28) or on the embedded digits (8x8):
            those that the scenes are made of.
        stages: any of ``val`` and ``test``; held-out captions are measured in testing only.
        every_n_epochs: of validation: measure in every n-th epoch of a fit, and in the last.
        seed: of the noise.
    """

    def __init__(
        self, classifier: str, stages: Sequence[Stage] = ("test",), every_n_epochs: int = 1, seed: int = 0
    ) -> None:
        self.classifier = str(classifier)
        self.stages = check_stages(stages)
        self.every_n_epochs = positive("every_n_epochs", every_n_epochs)
        self.seed = seed
        self._seer: ClassifierFeatures | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not isinstance(pl_module, GenerativeModel) or not isinstance(pl_module, CaptionConditional):
            raise TypeError(
                f"CaptionAccuracy needs a model of captions, and {type(pl_module).__name__} is none: leave it out"
            )
        if self._seer is None:
            # Building a network draws its weights.
            with forked_generators(trainer.strategy.root_device, self.seed):
                seer = ClassifierFeatures(load_model(self.classifier))
            shape = tuple(seer.network.image_shape)  # type: ignore[arg-type]
            if seer.num_classes != 10 or shape[0] != 1:
                raise ValueError(
                    f"{self.classifier!r} is a classifier of {seer.num_classes} classes for images of {shape}; take one"
                    " of the ten digits, in grey: lit-gen fit -c classifier/digits, or classifier/mnist"
                )
            self._seer = seer

    def on_evaluation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, stage: Stage, batch: Batch, batch_idx: int, dataloader_idx: int
    ) -> None:
        if stage not in self.stages or not is_due(trainer, self.every_n_epochs):
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        held_out = isinstance(data, HoldsOutCompositions) and min(data.held_out) < ANY_DIGIT
        kind = "held_out" if held_out and stage == "test" and data.test_compositions == "held_out" else "seen"
        self._measure(pl_module, stage, kind, [batch], batch_seed(self.seed, trainer, batch_idx))
        if batch_idx == 0 and stage == "test" and held_out and kind == "seen":
            # Here and not at the end of the epoch, where averaged weights may have been swapped out again.
            self._measure(pl_module, stage, "held_out", data.held_out_dataloader(), self.seed + 1)

    def _measure(self, model: Any, stage: Stage, kind: str, batches: Iterable[Batch], seed: int) -> None:
        assert self._seer is not None
        seer = self._seer.to(model.device)
        right: dict[str, list[Tensor]] = {"": [], "_real": []}
        owners: list[Tensor] = []
        count = 0
        with evaluation(model, seed):
            for batch in batches:
                images, captions = model.unpack(move_data_to_device(batch, model.device))
                texts = model.describe(captions)
                for name, shown in (("", model.sample(len(images), captions)), ("_real", images)):
                    found, owner = right_digits(seer, shown, texts)
                    right[name].append(found)
                owners.append(owner + count)
                count += len(images)
        owner = torch.cat(owners)
        for name, parts in right.items():
            found = torch.cat(parts).float()
            whole = torch.ones(count, device=found.device).scatter_reduce(0, owner, found, "amin")
            model.log_evaluation(stage, {f"digit_accuracy_{kind}{name}": found}, len(found))
            model.log_evaluation(stage, {f"scene_accuracy_{kind}{name}": whole}, count)


def squares(canvases: Tensor, place: Place) -> Tensor:
    """Every square that a place allows, ``(N, 1, 60, 60) -> (N, offsets, 28, 28)``."""
    (top, bottom), (left, right) = place
    area = canvases[:, 0, top : bottom + DIGIT, left : right + DIGIT]
    return area.unfold(1, DIGIT, 1).unfold(2, DIGIT, 1).flatten(1, 2)


def right_digits(seer: ClassifierFeatures, images: Tensor, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Whether each digit that is named is seen at its place.

    Args:
        seer: of digits in grey.
        images: ``(B, C, H, W)`` in [0, 1].
        captions: of these images.

    Returns:
        ``(D,)`` bool, and ``(D,)`` the number of the image that each belongs to.

    Raises:
        ValueError: a caption that is no sentence about digits on a canvas.
    """
    height, width = seer.network.image_shape[1:]  # type: ignore[index]
    canvases = images.float().mean(1, keepdim=True)
    if canvases.shape[-2:] != (CANVAS, CANVAS):
        canvases = F.interpolate(canvases, size=(CANVAS, CANVAS), mode="bilinear", antialias=True)
    named = [(owner, *digit) for owner, caption in enumerate(captions) for digit in named_digits(caption)]
    right, owners = [], []
    for name, place in PLACES.items():
        there = [(owner, digit) for owner, digit, where in named if where == name]
        if not there:
            continue
        owner, digits = torch.tensor(there, device=images.device).unbind(1)
        crops = squares(canvases[owner], place)
        middles = crops[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]
        weights = torch.softmax(middles.sum((2, 3)) / INK_SCALE, 1)  # the more ink, the more of the digit
        if (height, width) != (DIGIT, DIGIT):
            crops = F.interpolate(middles, size=(height, width), mode="bilinear", antialias=True)
        logits = seer(crops.flatten(0, 1)[:, None].clamp(0, 1)).logits
        probabilities = torch.softmax(logits, 1).unflatten(0, crops.shape[:2])
        seen = (weights[:, :, None] * probabilities).sum(1).argmax(1)
        right.append(seen == digits)
        owners.append(owner)
    return torch.cat(right), torch.cat(owners)
