"""Animations of models that show their steps."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lit_gen.callbacks import Trajectory
from lit_gen.callbacks.trajectory import draw_frame, spread, thin
from lit_gen.models import VAE
from lit_gen.models.base import Frame, HasReconstructionTrajectory, HasTrajectory
from lit_gen.rendering import draw_boxes, render_voxels
from tests.callbacks.tiny import SHAPE, data, small, trainer


class Growing(VAE, HasTrajectory):
    """Grows from 2x2 to 8x8 pixels and from black to white, while a window narrows to the upper left corner."""

    def trajectory(self, num_samples: int, condition: Any = None) -> Iterator[Frame]:
        for step, size in enumerate((2, 4, 4, 8)):
            box = torch.tensor([0.0, 0.0, size / (step + 1), size / (step + 1)])
            boxes = box.expand(num_samples, 1, 4) if step else None
            yield Frame(torch.full((num_samples, 1, size, size), step / 3), boxes)


class Fading(Growing, HasReconstructionTrajectory):
    """Reconstructs images by brightening them."""

    def reconstruction_trajectory(self, images: Tensor, condition: Any = None) -> Iterator[Frame]:
        for step in range(3):
            yield Frame(images * step / 2)


def test_reconstructions_are_shown_beside_their_images(tmp_path: Path) -> None:
    run = trainer(tmp_path, Trajectory(num_samples=4, columns=2, every_n_epochs=1))
    module = data(binarization="none")
    run.fit(Fading(SHAPE, 2, small, small), module)
    folder = tmp_path / "images" / "val"
    with Image.open(folder / "reconstruction_trajectory" / "00000005.gif") as gif:
        assert gif.n_frames == 3
    board = np.asarray(Image.open(folder / "reconstruction_storyboard" / "00000005.png"))
    assert board.shape == (4 * 66 + 2, 4 * 66 + 2, 3), "three steps and the image itself, four of them"
    black, _, last, truth = (board[2:66, 2 + 66 * column : 66 + 66 * column] for column in range(4))
    images, _ = next(iter(module.val_dataloader()))
    assert black.max() == 0
    assert np.array_equal(last, truth)
    assert np.array_equal(truth[::8, ::8, 0], (images[0, 0] * 255).round().numpy())


def test_lines_are_as_wide_as_asked_and_boxes_have_colours() -> None:
    boxes = torch.tensor([[[8.0, 8.0, 24.0, 24.0], [40.0, 8.0, 56.0, 24.0]]])
    drawn = draw_boxes(torch.ones(1, 3, 64, 64), boxes, torch.tensor([[5.0, 1.0]]))[0]
    red, green = 1 - drawn[1, 16], 1 - drawn[0, 16]  # what is not white, along a row through both boxes
    assert red[:32].tolist() == pytest.approx([float(abs(x - 8) <= 2 or abs(x - 24) <= 2) for x in range(32)])
    assert green[32:].tolist() == pytest.approx([float(x in (40, 56)) for x in range(32, 64)])


def test_blurred_windows_have_wide_lines() -> None:
    box = torch.tensor([[[2.0, 2.0, 6.0, 6.0]]])
    inked = []
    for std in (0.05, 0.5, 100.0):
        frame = Frame(torch.zeros(1, 1, 8, 8), box, line_widths=torch.tensor([[std]]))
        inked.append(draw_frame(frame, (64, 64))[0, 0, 32, :32].sum().item())
    assert inked == pytest.approx([1, 4, 8]), "at least a pixel, half a pixel of the image, at most an eighth of all"


def test_animation_and_storyboard_of_frames_of_unlike_size(tmp_path: Path) -> None:
    watcher = Trajectory(num_samples=4, columns=2, storyboard_steps=3, every_n_epochs=1)
    run = trainer(tmp_path, watcher)
    model = Growing(SHAPE, 2, small, small)
    run.fit(model, data())
    run.test(model, data(), verbose=False)
    with Image.open(tmp_path / "images" / "val" / "trajectory" / "00000005.gif") as gif:
        assert gif.n_frames == 4
        levels = []
        for number in range(4):
            gif.seek(number)
            picture = np.asarray(gif.convert("RGB"))
            assert picture.shape == (2 * 66 + 2, 2 * 66 + 2, 3)
            levels.append(picture[60, 60, 0])  # within the first image, outside of its window
        assert np.abs(np.array(levels, dtype=int) - [0, 85, 170, 255]).max() <= 2
    storyboard = np.asarray(Image.open(tmp_path / "images" / "val" / "storyboard" / "00000005.png"))
    assert storyboard.shape == (4 * 66 + 2, 3 * 66 + 2, 3)
    assert [storyboard[60, 60 + 66 * column, 0] for column in range(3)] == [0, 170, 255]
    assert (tmp_path / "images" / "test" / "trajectory").is_dir()


def test_boxes_are_enlarged_with_their_images() -> None:
    images = torch.zeros(1, 1, 8, 8)
    box = torch.tensor([[[2.0, 1.0, 6.0, 4.0]]])
    drawn = draw_frame(Frame(images, box), (64, 64))[0]
    red = (drawn[0] > 0.5) & (drawn[1] < 0.5)
    rows, columns = red.any(1).nonzero(), red.any(0).nonzero()
    assert (int(columns.min()), int(columns.max())) == (16, 48)
    assert (int(rows.min()), int(rows.max())) == (8, 32)
    assert not red[20, 30], "a frame, not a filled rectangle"


def test_boxes_beyond_the_image_stay_within_it() -> None:
    drawn = draw_frame(Frame(torch.zeros(1, 3, 8, 8), torch.tensor([[[-5.0, -5.0, 20.0, 20.0]]])), (64, 64))[0]
    assert drawn[0, 0].min() == 1
    assert drawn[0, -1].min() == 1


def test_voxels_are_shown_in_the_round() -> None:
    voxels = (torch.rand(2, 1, 4, 8, 8) < 0.3).float()
    assert torch.equal(draw_frame(Frame(voxels), (96, 96)), render_voxels(voxels))


@pytest.mark.parametrize("total", [1, 2, 9, 10, 11, 95, 1000])
def test_long_ways_are_thinned_evenly(total: int) -> None:
    def frames() -> Iterator[Frame]:
        for number in range(total):
            yield Frame(torch.tensor([float(number)]))

    shown: list[Tensor] = [frame.images for frame in thin(frames(), 10)]
    numbers = [int(image) for image in shown]
    assert numbers[0] == 0
    assert numbers[-1] == total - 1
    assert len(numbers) == min(total, 10)
    gaps = np.diff(numbers)
    assert total == 1 or (gaps.min() > 0 and gaps.max() <= 2 * gaps.min() + 2)


def test_spread_takes_both_ends() -> None:
    assert spread(5, 9) == [0, 1, 2, 3, 4]
    assert spread(100, 3) == [0, 50, 99]


def test_no_frames() -> None:
    with pytest.raises(ValueError, match="at least the sample itself"):
        thin(iter(()), 5)
