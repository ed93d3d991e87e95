"""Pictures of the attention to words."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_gen.callbacks import Alignment, alignment_picture, captioned_grid, refuse_leftovers, write_prompted
from lit_gen.callbacks.alignment import CANVAS, WORD
from lit_gen.data import CaptionedDigits
from lit_gen.models.base import Frame
from tests.callbacks.tiny import trainer, vae
from tests.captioned import CaptionVAE

CAPTIONS = [["a", "bird", "."], ["sky", "."]]


def frames(weights: torch.Tensor) -> list[Frame]:
    """An empty canvas, then one for each of the steps ``(B, words, steps)``."""
    canvas = torch.zeros(len(weights), 1, 8, 8)
    return [Frame(canvas), *(Frame(canvas + 0.5, None, step) for step in weights.unbind(2))]


def test_every_word_is_as_dark_as_its_weight() -> None:
    weights = torch.tensor([[[1.0, 0.0], [0.0, 0.25], [0.0, 0.75]], [[0.5, 0.5], [0.5, 0.5], [0.0, 0.0]]])
    picture = alignment_picture(frames(weights), CAPTIONS, storyboard_steps=3)
    assert picture.shape[0] == 3
    assert 0 <= picture.min() <= picture.max() <= 1
    width = 3 * (CANVAS + 2) - 2
    left = picture.shape[2] - 14 - width
    # The first caption's chart begins below a line of text and the canvases.
    top = 14 + WORD + CANVAS + 4
    cells = picture[0, top : top + 3 * WORD, left : left + width].unflatten(0, (3, WORD))[:, WORD // 2]
    shown = cells[:, [width // 4, 3 * width // 4]]
    expected = 1 + (0.12 - 1) * weights[0]  # the red of white and of the darkest
    assert torch.allclose(shown, expected, atol=1e-5)
    canvas = picture[:, 14 + WORD + CANVAS // 2, left + CANVAS + 2 + CANVAS // 2]
    assert torch.allclose(canvas, torch.full((3,), 0.5))


def test_a_model_without_attention_to_words_has_its_storyboard() -> None:
    steps = [Frame(torch.rand(2, 3, 8, 12)) for _ in range(5)]
    whole = alignment_picture(frames(torch.full((2, 3, 4), 1 / 3)), CAPTIONS)
    assert alignment_picture(steps, CAPTIONS).shape[1] < whole.shape[1]
    with pytest.raises(ValueError, match="2 captions need as many images in at least one frame, got 0 frames"):
        alignment_picture([], CAPTIONS)
    with pytest.raises(ValueError, match="got 5 frames of 2 images"):
        alignment_picture(steps, CAPTIONS[:1])


def test_callback_shows_the_captions_of_the_batch(tmp_path: Path) -> None:
    data = CaptionedDigits(num_train=20, num_val=10, num_test=10, batch_size=10, image_size=8)
    model = CaptionVAE(data.image_shape, data.vocabulary, data.captions)
    trainer(tmp_path, Alignment(num_samples=2)).fit(model, data)
    [file] = (tmp_path / "images" / "val" / "alignment").iterdir()
    height, width, _ = np.asarray(Image.open(file)).shape
    assert height > 2 * (CANVAS + 12 * WORD)
    assert width > 8 * CANVAS
    run = trainer(tmp_path / "other", Alignment())
    run.fit(vae(), CaptionedDigits(num_train=20, num_val=10, num_test=10, image_size=8))
    assert not (tmp_path / "other" / "images").exists()
    with pytest.raises(ValueError, match="storyboard_steps must be at least 2, got 1"):
        Alignment(storyboard_steps=1)


def test_prompted_images_are_named_and_laid_out_by_prompt(tmp_path: Path) -> None:
    images = torch.arange(6.0).view(2, 3, 1, 1, 1).div(5).expand(2, 3, 1, 8, 8)
    prompts = ["A red bird!", "a sky so wide that no line holds all of its words, nor two of them, nor three"]
    grid = write_prompted(images, prompts, tmp_path, npz=True, storyboard=torch.zeros(3, 4, 4))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[:3] == [f"00000{i}_a-red-bird.png" for i in range(3)]
    assert names[3].startswith("000003_a-sky-so-wide-that")
    assert names[6:] == ["grid.png", "samples.npz", "storyboard.png"]
    for number, name in enumerate(names[:6]):
        assert np.asarray(Image.open(tmp_path / name)).max() == 51 * number
    assert np.load(tmp_path / "samples.npz")["samples"].shape == (2, 3, 1, 8, 8)
    drawn = captioned_grid(images, prompts)
    assert np.asarray(Image.open(grid)).shape == (*drawn.shape[1:], 3)
    # The second row of images lies below the first, in the same columns.
    column = drawn[0, :, 14 + CANVAS // 2]
    assert (column == 0).sum() >= CANVAS
    assert ((column - 0.6).abs() < 1e-5).sum() == CANVAS
    with pytest.raises(FileExistsError, match="000003_a-sky"):
        write_prompted(images[:1], prompts[:1], tmp_path, npz=True, storyboard=torch.zeros(3, 4, 4))
    with pytest.raises(FileExistsError, match=r"storyboard\.png"):
        write_prompted(images, prompts, tmp_path, npz=True)
    with pytest.raises(FileExistsError, match="000000_a-red-bird"):
        refuse_leftovers(tmp_path, 6, npz=True, storyboard=True)
