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
from lit_gen.callbacks.rendering import render_voxels
from lit_gen.callbacks.trajectory import draw_frame, spread, thin
from lit_gen.models import VAE
from lit_gen.models.base import Frame, HasTrajectory
from tests.callbacks.tiny import SHAPE, data, small, trainer


class Growing(VAE, HasTrajectory):
    """Grows from 2x2 to 8x8 pixels and from black to white, while a window narrows to the upper left corner."""

    def trajectory(self, num_samples: int, condition: Any = None) -> Iterator[Frame]:
        for step, size in enumerate((2, 4, 4, 8)):
            box = torch.tensor([0.0, 0.0, size / (step + 1), size / (step + 1)])
            boxes = box.expand(num_samples, 1, 4) if step else None
            yield Frame(torch.full((num_samples, 1, size, size), step / 3), boxes)


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
