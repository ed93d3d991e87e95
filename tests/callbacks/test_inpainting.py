"""The picture of images that are completed."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from lit_gen.callbacks import Inpainting, default_callbacks
from lit_gen.callbacks.inpainting import unknown_pixels
from lit_gen.models import DPM2015, BinomialKernel
from tests.callbacks.tiny import SHAPE, data, trainer, vae


def diffusion() -> DPM2015:
    torch.manual_seed(0)
    return DPM2015(SHAPE, lambda shape: BinomialKernel(shape, 4))


def test_regions() -> None:
    shares = {name: unknown_pixels(name, (6, 8)).float().mean().item() for name in ("left", "right", "top", "bottom")}
    assert set(shares.values()) == {0.5}
    assert torch.equal(unknown_pixels("left", (6, 8)), unknown_pixels("right", (6, 8)).flip(1))
    assert torch.equal(unknown_pixels("top", (5, 7)), unknown_pixels("bottom", (5, 7)).flip(0))
    middle = unknown_pixels("center", (8, 8))
    assert middle.sum() == 16
    assert torch.equal(middle, middle.flip(0, 1))


def test_rows_of_image_what_is_known_and_completions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Tensor] = []

    def paint(self: DPM2015, images: Tensor, known: Tensor, condition: None = None) -> Tensor:
        asked.append(known)
        return torch.where(known, images, torch.ones_like(images))

    monkeypatch.setattr(DPM2015, "inpaint", paint)
    callback = Inpainting("left", num_images=3, num_draws=2)
    trainer(tmp_path, callback).test(diffusion(), data(), verbose=False)
    assert len(asked) == 2
    assert torch.equal(asked[0], ~unknown_pixels("left", (8, 8)))
    with Image.open(tmp_path / "images" / "test" / "inpainting" / "00000000.png") as picture:
        side = (picture.width - 2) // 4
        assert picture.size == (4 * side + 2, 3 * side + 2)
        shades = [picture.convert("L").getpixel((2 + column * side + 3, side // 2)) for column in range(4)]
    assert shades[1:] == [pytest.approx(127, abs=1), 255, 255]


def test_in_tests_alone_unless_asked_for(tmp_path: Path) -> None:
    trainer(tmp_path, Inpainting(num_images=2, num_draws=1)).fit(diffusion(), data())
    assert not (tmp_path / "images" / "val" / "inpainting").exists()
    trainer(tmp_path, Inpainting(num_images=2, num_draws=1, every_n_epochs=1)).fit(diffusion(), data())
    assert (tmp_path / "images" / "val" / "inpainting").exists()


def test_models_that_complete_images_have_it_by_default() -> None:
    assert any(isinstance(callback, Inpainting) for callback in default_callbacks(diffusion()))
    assert not any(isinstance(callback, Inpainting) for callback in default_callbacks(vae()))


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ValueError, match="region must be left, right, top, bottom or center, got 'half'"):
        Inpainting("half")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_draws must be at least 1, got 0"):
        Inpainting(num_draws=0)
    with pytest.raises(ValueError, match="every_n_epochs must be at least 1, got -1"):
        Inpainting(every_n_epochs=-1)
