"""Structural similarity of samples: against its formula, and over whole data sets."""

from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from torch import Tensor

from lit_gen.callbacks import CaptionSimilarity, default_callbacks
from lit_gen.callbacks.caption_similarity import similarity
from lit_gen.data import CaptionedDigits
from lit_gen.models import VAE
from lit_gen.models.base import CaptionConditional, GenerativeModel

SIZE = 20


class Remembering(GenerativeModel, CaptionConditional):
    """Draws, image by image, what it was given in the order of the test images, or noise around it."""

    def __init__(self, images: Tensor, vocabulary: list[str], noise: float = 0.0) -> None:
        super().__init__((1, SIZE, SIZE))
        self.keep_vocabulary(vocabulary)
        self.images, self.noise, self.drawn = images, noise, 0

    def draw(self, num_samples: int, condition: Any = None) -> Tensor:
        images = self.images[self.drawn : self.drawn + num_samples]
        self.drawn += num_samples
        return (images + self.noise * torch.randn(images.shape)).clamp(0, 1)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def test_step(self, batch: Any, batch_idx: int) -> None:
        pass


def scenes() -> CaptionedDigits:
    data = CaptionedDigits(image_size=SIZE, num_train=10, num_val=10, num_test=25, batch_size=10)
    data.setup("test")
    return data


def measured(model: GenerativeModel, data: CaptionedDigits, **arguments: Any) -> dict[str, float]:
    trainer = pl.Trainer(
        accelerator="cpu",
        inference_mode=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[CaptionSimilarity(**arguments)],
    )
    return dict(trainer.test(model, data, verbose=False)[0])


def index(one: np.ndarray, other: np.ndarray) -> float:
    """Wang et al. 2004, equation 13, of an image (H, W), with an 11x11 Gaussian window of 1.5 pixels."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window /= window.sum()

    def blurred(x: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(x, window, 0, mode="mirror"), window, 1, mode="mirror")

    a, b = blurred(one), blurred(other)
    variance, variance_of_other = blurred(one**2) - a**2, blurred(other**2) - b**2
    covariance, c1, c2 = blurred(one * other) - a * b, 0.01**2, 0.03**2
    values = (2 * a * b + c1) * (2 * covariance + c2)
    return float((values / ((a**2 + b**2 + c1) * (variance + variance_of_other + c2))).mean())


def test_index_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    images, others = torch.rand(3, 2, 12, 17), torch.rand(3, 2, 12, 17)
    others[0] = images[0]
    found = similarity(images, others)
    wanted = [
        np.mean([index(a.double().numpy(), b.double().numpy()) for a, b in zip(one, other, strict=True)])
        for one, other in zip(images, others, strict=True)
    ]
    torch.testing.assert_close(found.double(), torch.tensor(wanted), atol=1e-4, rtol=0)
    assert found[0].item() == pytest.approx(1)


def test_mean_and_deviation_over_all_images() -> None:
    data = scenes()
    images = torch.cat([batch for batch, _ in data.test_dataloader()])
    torch.manual_seed(1)
    other = (images + 0.3 * torch.randn(images.shape)).clamp(0, 1)
    values = similarity(other, images)
    found = measured(Remembering(other, data.vocabulary), data)
    assert found["test/ssi"] == pytest.approx(values.mean().item(), abs=1e-5)
    assert found["test/ssi_std"] == pytest.approx(values.std(correction=0).item(), abs=1e-4)
    few = measured(Remembering(other, data.vocabulary), data, num_images=13)
    assert few["test/ssi"] == pytest.approx(values[:13].mean().item(), abs=1e-5)


def test_what_ignores_the_caption_is_no_better_than_shuffled() -> None:
    data = scenes()
    images = torch.cat([batch for batch, _ in data.test_dataloader()])
    knowing = measured(Remembering(images, data.vocabulary), data)
    assert knowing["test/ssi"] == pytest.approx(1, abs=1e-5)
    assert knowing["test/ssi_std"] == pytest.approx(0, abs=2e-3)
    assert knowing["test/ssi_shuffled"] < 0.6
    deaf = measured(Remembering(images.mean(0, keepdim=True).expand(25, -1, -1, -1), data.vocabulary), data)
    assert deaf["test/ssi"] == pytest.approx(deaf["test/ssi_shuffled"], abs=0.05)


def test_it_is_there_in_tests_of_models_of_captions() -> None:
    data = scenes()
    model = Remembering(torch.zeros(0), data.vocabulary)
    assert any(isinstance(callback, CaptionSimilarity) for callback in default_callbacks(model))
    plain = VAE((1, 8, 8), 2)
    assert not any(isinstance(callback, CaptionSimilarity) for callback in default_callbacks(plain))
    with pytest.raises(TypeError, match="needs a model of captions, and VAE is none: leave it out"):
        CaptionSimilarity().setup(pl.Trainer(logger=False, enable_progress_bar=False), plain, "test")
    with pytest.raises(ValueError, match="num_images must be at least 1, got 0"):
        CaptionSimilarity(0)
