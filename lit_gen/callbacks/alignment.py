"""Which words a model attends to while an image comes to be."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning_utilities.core.apply_func import apply_to_collection
from PIL import ImageFont
from torch import Tensor

from lit_gen.callbacks.charts import Chart
from lit_gen.callbacks.evaluation import FirstBatchCallback, first, positive
from lit_gen.callbacks.logging import log_image, pictures
from lit_gen.callbacks.trajectory import draw_frame, spread
from lit_gen.models.base import CaptionConditional, Frame, HasTrajectory

CANVAS = 88  # height of a canvas in the picture, in pixels
WORD = 18  # height of a word's row
TEXT = 13  # size of the letters
GAP = 14
DARK = (0.12, 0.25, 0.55)  # the colour of the largest weight; none is white


class Alignment(FirstBatchCallback):
    """Logs how images come to be from captions: canvases, and below them the attention to every word at each step.

    ``val/alignment`` shows captions of the first batch, ``test/alignment`` the same in testing. A model that attends to
    no words gets the canvases alone.

    Args:
        num_samples: captions to show.
        storyboard_steps: canvases in a row; the attention is shown at every step.
        every_n_epochs: act in every n-th epoch of a fit, and in the last.
        seed: of the noise.
    """

    capability = CaptionConditional

    def __init__(self, num_samples: int = 4, storyboard_steps: int = 8, every_n_epochs: int = 5, seed: int = 0) -> None:
        super().__init__(every_n_epochs, seed)
        self.num_samples = positive("num_samples", num_samples)
        if storyboard_steps < 2:
            raise ValueError(f"storyboard_steps must be at least 2, got {storyboard_steps}")
        self.storyboard_steps = storyboard_steps

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if super().applies(pl_module) and not isinstance(pl_module, HasTrajectory):
            rank_zero_info(f"Alignment is idle: {type(pl_module).__name__} does not show how its samples come to be")

    def applies(self, pl_module: pl.LightningModule) -> bool:
        return super().applies(pl_module) and isinstance(pl_module, HasTrajectory)

    def show(self, trainer: pl.Trainer, model: Any, stage: str, images: Tensor, condition: Any) -> None:
        shown = first(condition, min(self.num_samples, len(images)))
        words = model.vocabulary.decode(shown)
        picture = alignment_picture(model.trajectory(len(words), shown), words, self.storyboard_steps)
        log_image(trainer, f"{stage}/alignment", picture)


def alignment_picture(frames: Iterable[Frame], words: Sequence[Sequence[str]], storyboard_steps: int = 8) -> Tensor:
    """Storyboards of B samples, each above a chart of the attention to its words, whose columns are the steps.

    Args:
        frames: the steps in order; those without weights (an empty canvas before the first) have no column.
        words: of each of the B captions; a caption may be shorter than the weights.
        storyboard_steps: canvases of each sample.

    Returns:
        ``(3, H, W)`` in [0, 1].

    Raises:
        ValueError: no frames, or another number of captions than images.
    """
    steps = [apply_to_collection(frame, Tensor, lambda part: part.detach().cpu()) for frame in frames]
    if not steps or len(steps[0].images) != len(words):
        raise ValueError(
            f"{len(words)} captions need as many images in at least one frame, got {len(steps)} frames"
            f"{f' of {len(steps[0].images)} images' if steps else ''}"
        )
    chosen = [steps[place] for place in spread(len(steps), storyboard_steps)]
    size = pictures(steps[-1].images[:1]).shape[-2:]
    cell = (CANVAS, max(1, round(CANVAS * size[1] / size[0])))
    canvases = torch.stack([draw_frame(frame, cell) for frame in chosen], 1)  # (B, K, 3, *cell)
    weighted = [frame.weights.float() for frame in steps if frame.weights is not None]
    attention = torch.stack(weighted, 2) if weighted else None  # (B, words, steps)

    font = ImageFont.load_default(TEXT)
    left = 2 * GAP + math.ceil(max(font.getlength(word) for caption in words for word in caption))
    across = len(chosen) * (cell[1] + 2) - 2
    title = _wrapped([" ".join(caption) for caption in words], across + left - 2 * GAP, font)
    heights = [
        len(title[number]) * WORD + CANVAS + (WORD * len(caption) + 2 * GAP if attention is not None else GAP)
        for number, caption in enumerate(words)
    ]
    chart = Chart(left + across + GAP, sum(heights) + GAP * (len(words) + 1))
    places: list[tuple[int, int, Tensor]] = []  # left edge, upper edge and picture
    top = GAP
    for number, caption in enumerate(words):
        y = top
        for line in title[number]:
            chart.text((GAP, y + WORD / 2), line, size=TEXT)
            y += WORD
        places += [(left + i * (cell[1] + 2), y, canvas) for i, canvas in enumerate(canvases[number])]
        y += CANVAS + 4
        if attention is not None:
            weights = attention[number, : len(caption)]
            places.append((left, y, _heat(weights, across)))
            for row, word in enumerate(caption):
                chart.text((left - GAP / 2, y + WORD * (row + 0.5)), word, anchor="rm", size=TEXT)
            below = y + WORD * (len(caption) + 0.5)
            chart.text((left, below), "step 1", size=TEXT - 2)
            chart.text((left + across / 2, below), f"darkest: {weights.max():.2f}", anchor="mm", size=TEXT - 2)
            chart.text((left + across, below), f"step {weights.shape[1]}", anchor="rm", size=TEXT - 2)
        top += heights[number] + GAP
    picture = chart.tensor()
    for x, y, part in places:
        picture[:, y : y + part.shape[1], x : x + part.shape[2]] = part
    return picture


def captioned_grid(images: Tensor, captions: Sequence[str]) -> Tensor:
    """A row of images for each caption, below its text.

    Args:
        images: ``(captions, n, C, H, W)`` in [0, 1].
        captions: their texts.

    Returns:
        ``(3, H', W')`` in [0, 1].
    """
    rows, columns = images.shape[:2]
    size = pictures(images[0, :1]).shape[-2:]
    cell = (CANVAS, max(1, round(CANVAS * size[1] / size[0])))
    drawn = draw_frame(Frame(images.flatten(0, 1)), cell).unflatten(0, (rows, columns))
    width = max(columns * (cell[1] + 2) - 2, 3 * CANVAS)  # a single image leaves its caption some room
    lines = _wrapped(captions, width, ImageFont.load_default(TEXT))
    chart = Chart(width + 2 * GAP, sum(WORD * len(text) + CANVAS + GAP for text in lines) + GAP)
    top, edges = GAP, []
    for text in lines:
        for line in text:
            chart.text((GAP, top + WORD / 2), line, size=TEXT)
            top += WORD
        edges.append(top)
        top += CANVAS + GAP
    picture = chart.tensor()
    for row, y in zip(drawn, edges, strict=True):
        for column, image in enumerate(row):
            x = GAP + column * (cell[1] + 2)
            picture[:, y : y + cell[0], x : x + cell[1]] = image
    return picture


def _heat(weights: Tensor, width: int) -> Tensor:
    """Weights ``(words, steps)`` as a picture ``(3, H, width)``: white for none, dark for the largest."""
    steps = (torch.arange(width) * weights.shape[1]) // width
    strength = (weights / weights.max().clamp(min=torch.finfo(torch.float32).tiny))[:, steps]
    strength = strength.repeat_interleave(WORD, 0)
    heat = torch.lerp(torch.ones(3, 1, 1), torch.tensor(DARK).view(3, 1, 1), strength[None])
    heat[:, WORD - 1 :: WORD] -= 0.06  # a fine line under each word
    return heat.clamp(0, 1)


def _wrapped(texts: Sequence[str], width: float, font: Any) -> list[list[str]]:
    """Each text in lines that are at most so many pixels wide, where its words allow."""
    wrapped = []
    for text in texts:
        lines = [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and font.getlength(longer) > width:
                lines.append(word)
            else:
                lines[-1] = longer
        wrapped.append(lines)
    return wrapped
