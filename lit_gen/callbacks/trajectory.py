"""How samples and reconstructions come to be, as animations."""

from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_gen.callbacks.evaluation import FirstBatchCallback, first, positive
from lit_gen.callbacks.logging import enlarge, image_grid, log_animation, log_image, pictures
from lit_gen.models.base import Frame, HasReconstructionTrajectory, HasTrajectory
from lit_gen.rendering import draw_boxes


class Trajectory(FirstBatchCallback):
    """Logs the steps by which samples come to be, as an animation and as a storyboard.

    ``val/trajectory`` is a GIF, ``val/storyboard`` shows some of the steps side by side; the same for ``test/``. For a
    model that shows how it reconstructs, ``val/reconstruction_trajectory`` and ``val/reconstruction_storyboard`` do so
    for images of the batch, which close each row of the storyboard.

    Attention windows are drawn as boxes, the first of a step red and the second green, with lines as wide as the window
    is blurred. Frames of unlike size (the levels of a pyramid) are enlarged to the largest.

    Args:
        num_samples: images in each frame.
        columns: images in a row of a frame.
        max_frames: longest animation; of more frames an even selection is shown, with the first and the last.
        storyboard_steps: columns of the storyboard, one row for each sample.
        fps: frames per second.
        every_n_epochs: act in every n-th epoch of a fit, and in the last.
        seed: of the noise.
    """

    capability = HasTrajectory

    def __init__(
        self,
        num_samples: int = 16,
        columns: int = 4,
        max_frames: int = 60,
        storyboard_steps: int = 10,
        fps: float = 10.0,
        every_n_epochs: int = 5,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs, seed)
        self.num_samples = positive("num_samples", num_samples)
        self.columns = positive("columns", columns)
        if max_frames < 2 or storyboard_steps < 2:
            raise ValueError(
                f"max_frames and storyboard_steps must be at least 2, got {max_frames}, {storyboard_steps}"
            )
        if fps <= 0:
            raise ValueError(f"fps must be positive, got {fps}")
        self.max_frames = max_frames
        self.storyboard_steps = storyboard_steps
        self.fps = fps

    def show(self, trainer: pl.Trainer, model: Any, stage: str, images: Tensor, condition: Any) -> None:
        self._log(trainer, stage, "", model.trajectory(self.num_samples))
        if isinstance(model, HasReconstructionTrajectory):
            images = images[: self.num_samples]
            frames = model.reconstruction_trajectory(images, first(condition, len(images)))
            self._log(trainer, stage, "reconstruction_", frames, images)

    def _log(
        self, trainer: pl.Trainer, stage: str, prefix: str, steps: Iterable[Frame], truth: Tensor | None = None
    ) -> None:
        frames = thin(steps, self.max_frames)
        largest = max((pictures(frame.images[:1]).shape[-2:] for frame in frames), key=lambda size: size[0] * size[1])
        size = enlarge(torch.zeros(1, 1, *largest)).shape[-2:]
        shown = [draw_frame(frame, (size[0], size[1])) for frame in frames]  # (B, 3, H, W) each
        animation = [image_grid(frame, self.columns) for frame in shown]
        log_animation(trainer, f"{stage}/{prefix}trajectory", animation, fps=self.fps)
        chosen = [shown[place] for place in spread(len(shown), self.storyboard_steps)]
        if truth is not None:
            chosen.append(draw_frame(Frame(truth), (size[0], size[1])))
        storyboard = torch.stack(chosen, 1).flatten(0, 1)
        log_image(trainer, f"{stage}/{prefix}storyboard", image_grid(storyboard, len(chosen)))


def spread(length: int, count: int) -> list[int]:
    """At most ``count`` places, evenly spread over ``length``, the first and the last among them.

    >>> spread(10, 4)
    [0, 3, 6, 9]
    """
    count = min(count, length)
    return [round(place * (length - 1) / max(1, count - 1)) for place in range(count)]


def thin(frames: Iterable[Frame], limit: int) -> list[Frame]:
    """An even selection of at most ``limit`` frames, never keeping many more than that in memory.

    Raises:
        ValueError: there are no frames.
    """
    kept: list[Frame] = []
    stride, final = 1, None
    for number, frame in enumerate(frames):
        boxes, line_widths = (part if part is None else part.cpu() for part in (frame.boxes, frame.line_widths))
        final = Frame(frame.images.cpu(), boxes, None, line_widths)
        if number % stride == 0:
            kept.append(final)
        if len(kept) > 4 * limit:
            kept, stride = kept[::2], 2 * stride
    if final is None:
        raise ValueError("trajectory gave no frames; it must give at least the sample itself")
    if kept[-1] is not final:
        kept.append(final)
    return [kept[place] for place in spread(len(kept), limit)]


def draw_frame(frame: Frame, size: tuple[int, int]) -> Tensor:
    """The images of a frame with their boxes.

    Args:
        frame: images ``(B, C, H, W)`` or voxels, boxes and the width of their lines in pixels of these images.
        size: height and width to enlarge them to.

    Returns:
        ``(B, 3, *size)`` in [0, 1].
    """
    images = pictures(frame.images)
    height, width = images.shape[-2:]
    enlarged = enlarge(images, size).expand(-1, 3, -1, -1)
    if frame.boxes is None:
        return enlarged
    factors = torch.tensor([size[1] / width, size[0] / height]).repeat(2)
    boxes = frame.boxes.float().cpu() * factors
    thinnest = max(1.0, min(size) / 64)
    line_widths = torch.full(boxes.shape[:2], thinnest)
    if frame.line_widths is not None:
        # A window so blurred that its lines would cover the image still shows what lies in it.
        line_widths = (frame.line_widths.float().cpu() * factors[0]).clamp(thinnest, max(thinnest, min(size) / 8))
    return draw_boxes(enlarged, boxes, line_widths)
