"""Grids of samples, reconstructions and ways through latent space."""

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.distributions import Independent, Normal, Uniform

from lit_gen.callbacks import LatentGrid, ReconstructionGrid, SampleGrid, arithmetic_grid
from lit_gen.callbacks.images import interleave
from lit_gen.callbacks.latents import interpolate_latents, slerp
from lit_gen.models import VAE, ConditionalVAE
from lit_gen.models.base import Conditional
from tests.callbacks.tiny import SHAPE, data, small, trainer, vae


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def tiles(grid: np.ndarray, rows: int, columns: int, size: int = 64, padding: int = 2) -> np.ndarray:
    """The single images of a grid as ``(rows, columns, size, size)``, grey."""
    step = size + padding
    assert grid.shape == (rows * step + padding, columns * step + padding, 3)
    inner = grid[padding:, padding:, 0].reshape(rows, step, columns, step)
    return inner[:, :size, :, :size].transpose(0, 2, 1, 3)


def test_samples_keep_their_noise_through_time(tmp_path: Path) -> None:
    model = vae(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    run = trainer(tmp_path, SampleGrid(num_samples=12, columns=4), max_epochs=2)
    run.fit(model, data())
    run.test(model, data(), verbose=False)
    first, second = (read(tmp_path / "images" / "val" / "samples" / f"{step:08d}.png") for step in (5, 11))
    assert np.array_equal(first, second)
    (tested,) = (tmp_path / "images" / "test" / "samples").glob("*.png")
    assert np.array_equal(first, read(tested))
    assert len({tile.tobytes() for tile in tiles(first, 3, 4).reshape(12, -1)}) == 12


@pytest.mark.filterwarnings("ignore:Total length of .list. across ranks is zero:UserWarning")
def test_samples_without_validation(tmp_path: Path) -> None:
    trainer(tmp_path, SampleGrid(), max_epochs=2).fit(vae(), data(num_val=0))
    assert sorted(path.name for path in (tmp_path / "images" / "train" / "samples").iterdir()) == [
        "00000006.png",
        "00000012.png",
    ]


def test_samples_of_classes_have_a_column_for_each(tmp_path: Path) -> None:
    model = ConditionalVAE(SHAPE, 3, 4, small, small, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    with torch.no_grad():
        # All that the decoder sees is the class, which makes images black, grey or white.
        for parameter in model.decoder.parameters():
            parameter.zero_()
        first, last = (layer for layer in model.decoder.layers if isinstance(layer, torch.nn.Linear))
        first.weight[0, -3:] = torch.tensor([-9.0, 0.0, 9.0])
        last.weight[:, 0] = 20.0
    trainer(tmp_path, SampleGrid(num_samples=8), max_epochs=1).fit(model, data())
    (path,) = (tmp_path / "images" / "val" / "samples").glob("*.png")
    shades = tiles(read(path), 2, 3).mean((2, 3))
    assert shades[:, 0].max() < 1
    assert np.abs(shades[:, 1] - 127).max() < 2
    assert shades[:, 2].min() > 254


def test_interleaved_rows() -> None:
    above, below = torch.arange(5.0), torch.arange(5.0) + 10
    assert interleave(above, below, 3).view(4, 3).tolist() == [[0, 1, 2], [10, 11, 12], [3, 4, 0], [13, 14, 0]]


class Inverting(VAE):
    """Reconstructs an image by its negative."""

    def reconstruct(self, images: Tensor, condition: Any = None) -> Tensor:
        return 1 - images


def test_originals_lie_above_reconstructions(tmp_path: Path) -> None:
    trainer(tmp_path, ReconstructionGrid(num_images=6, columns=3)).fit(Inverting(SHAPE, 2), data())
    shown = tiles(read(tmp_path / "images" / "val" / "reconstructions" / "00000005.png"), 4, 3)
    module = data()
    module.setup("fit")
    images = (next(iter(module.val_dataloader()))[0][:6, 0] * 255).byte().numpy()
    assert np.array_equal(shown[[0, 2]][:, :, ::8, ::8].reshape(6, 8, 8), images)
    assert np.array_equal(shown[[1, 3]], 255 - shown[[0, 2]])


def test_great_circle_keeps_the_length_and_turns_evenly() -> None:
    start, end = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    for weight in (0.0, 0.25, 0.5, 1.0):
        angle = weight * math.pi / 2
        expected = torch.tensor([[3 * math.cos(angle), 3 * math.sin(angle)]])
        assert torch.allclose(slerp(start, end, weight), expected, atol=1e-6)


@pytest.mark.parametrize("end", [[1.0, 2.0], [2.0, 4.0], [-1.0, -2.0]])
def test_great_circle_of_parallel_latents_is_a_line(end: list[float]) -> None:
    middle = slerp(torch.tensor([[1.0, 2.0]]), torch.tensor([end]), 0.5)
    assert torch.allclose(middle, (torch.tensor([[1.0, 2.0]]) + torch.tensor([end])) / 2)


def test_the_way_depends_on_the_prior() -> None:
    start, end = torch.tensor([[5.0, 1.0]]), torch.tensor([[1.0, 5.0]])
    shifted = Independent(Normal(torch.ones(2), 2 * torch.ones(2)), 1)
    middle = interpolate_latents(start, end, 0.5, shifted)
    # (2, 0) and (0, 2) about the mean, in units of the deviation: the middle of the circle is (sqrt 2, sqrt 2).
    assert torch.allclose(middle, torch.full((1, 2), 1 + 2 * math.sqrt(2)))
    uniform = Independent(Uniform(torch.zeros(2), torch.ones(2)), 1)
    assert torch.allclose(interpolate_latents(start, end, 0.5, uniform), torch.full((1, 2), 3.0))


class ShowsLatent(VAE):
    """Decodes a two-dimensional latent to an image of one grey: the probability below its first coordinate."""

    def decode(self, z: Tensor, condition: Any = None) -> Any:
        below = Normal(0.0, 1.0).cdf(z)
        return below[:, :1, None, None].expand(-1, *SHAPE).logit(eps=1e-6).sigmoid()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.last_values = {}
        return self.encoder(batch[0]).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass


def test_manifold_is_even_in_the_probability_of_the_prior(tmp_path: Path) -> None:
    model = ShowsLatent(SHAPE, 2, small, small)
    trainer(tmp_path, LatentGrid(manifold_size=5, rows=2, steps=4)).fit(model, data())
    shown = tiles(read(tmp_path / "images" / "val" / "manifold" / "00000005.png"), 5, 5)[:, :, 32, 32]
    assert np.abs(shown / 255 - np.array([0.1, 0.3, 0.5, 0.7, 0.9])).max() < 0.003
    steps = tiles(read(tmp_path / "images" / "val" / "interpolations" / "00000005.png"), 2, 4)[:, :, 32, 32]
    assert len(set(steps.flatten().tolist())) > 4


def test_ways_between_images_start_and_end_at_their_codes(tmp_path: Path) -> None:
    model = vae(latent_dim=3)
    trainer(tmp_path, LatentGrid(rows=3, steps=5)).fit(model, data())
    assert not (tmp_path / "images" / "val" / "manifold").exists()
    path = tmp_path / "images" / "val" / "image_interpolations" / "00000005.png"
    shown = tiles(read(path), 3, 5)[:, :, ::8, ::8] / 255
    module = data()
    module.setup("fit")
    reconstructions = model.eval().reconstruct(next(iter(module.val_dataloader()))[0][:6])[:, 0].numpy()
    assert np.abs(shown[:, 0] - reconstructions[:3]).max() <= 0.5 / 255 + 1e-6
    assert np.abs(shown[:, 4] - reconstructions[3:]).max() <= 0.5 / 255 + 1e-6


class Bright(VAE, Conditional):
    """A conditional model: the class is the grey level of the image."""

    condition_fields = {"class": int}

    def make_condition(self, fields: dict[str, Any], num_samples: int) -> Tensor:
        return torch.full((num_samples,), fields["class"])

    def sample_condition(self, num_samples: int) -> Tensor:
        return torch.randint(3, (num_samples,))

    def target_condition(self, target: Any) -> Tensor:
        return target

    def decode_images(self, z: Tensor, condition: Any = None) -> Tensor:
        assert len(condition) == len(z)
        return (condition / 2.0).view(-1, 1, 1, 1).expand(-1, *SHAPE)


def test_conditional_models_are_shown_with_conditions(tmp_path: Path) -> None:
    grids: list[pl.Callback] = [SampleGrid(), ReconstructionGrid(num_images=4, columns=2), LatentGrid(rows=2, steps=3)]
    trainer(tmp_path, *grids).fit(Bright(SHAPE, 2, small, small), data())
    module = data()
    module.setup("fit")
    target = next(iter(module.val_dataloader()))[1]
    assert target is not None
    expected = np.array([0, 128, 255])[target[:4].numpy()].reshape(2, 2)
    shown = tiles(read(tmp_path / "images" / "val" / "reconstructions" / "00000005.png"), 4, 2)[[1, 3], :, 32, 32]
    assert np.array_equal(shown, expected)
    ways = tiles(read(tmp_path / "images" / "val" / "image_interpolations" / "00000005.png"), 2, 3)[:, :, 32, 32]
    assert np.array_equal(ways, expected.reshape(4)[:2, None].repeat(3, 1))
    samples = tiles(read(tmp_path / "images" / "val" / "samples" / "00000005.png"), 8, 8)[:, :, 32, 32]
    assert set(samples.flatten().tolist()) == {0, 128, 255}


def test_arithmetic_shows_concepts_and_the_result() -> None:
    """A decoder whose image is one grey level for each code."""

    class Grey(VAE):
        def decode_images(self, z: Tensor, condition: Any = None) -> Tensor:
            return z[:, :1, None, None].clamp(0, 1).expand(-1, *SHAPE)

    model = Grey(SHAPE, 2, small, small)
    king, man, woman = ([[0.8, 0.0], [1.0, 0.0]], [[0.3, 0.0], [0.5, 0.0]], [[0.2, 0.0], [0.2, 0.0]])
    concepts = [torch.tensor(codes) for codes in (king, woman, man)]
    picture = arithmetic_grid(model, concepts[:2], concepts[2:], radius=0.1)
    shades = tiles((picture.permute(1, 2, 0).numpy() * 255).round(), 3, 7).mean((2, 3)) / 255
    expected = np.array([[0.8, 0.2, 0.3], [1.0, 0.2, 0.5], [0.9, 0.2, 0.4]])
    assert np.abs(shades[:, :3] - expected).max() < 0.01, "codes above, their mean below"
    assert np.abs(shades[:, 3] - 0.5).max() < 0.01
    assert abs(shades[1, 5] - 0.7) < 0.01, "king - man + woman in the middle"
    others = np.delete(shades[:, 4:].flatten(), 4)
    assert len(set(others)) > 3
    assert np.abs(others - 0.7).max() <= 0.11
    with pytest.raises(ValueError, match="rows must be an odd number, so that one image is in the middle; got 2"):
        arithmetic_grid(model, concepts, rows=2)
