"""What the doctor finds, and that it finds nothing in health."""

import math
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal
from torch.nn import Linear
from torch.optim import SGD

from lit_gen.callbacks import BestAndLast, Doctor
from lit_gen.callbacks.symptoms import Posteriors, jumped, kl_per_unit, sample_spread
from lit_gen.models import BGAN, DRAW, VAE
from lit_gen.networks import DiscretizedLogisticLikelihood, FullReader, FullWriter, GaussianLikelihood
from tests.callbacks.tiny import SHAPE, data, small, trainer, vae


def told(caplog: pytest.LogCaptureFixture) -> str:
    """What was said, without line breaks."""
    return " ".join(caplog.text.split())


class Breaks(VAE):
    """Its KL term becomes NaN, or infinite, in the third batch of the second epoch."""

    value = math.nan

    def objective(self, images: Tensor, condition: Any = None) -> Any:
        terms = super().objective(images, condition)
        if not self.training or self._trainer is None or self.trainer.global_step != 8:
            return terms
        return terms._replace(kl=terms.kl * self.value, elbo=terms.elbo * self.value, loss=terms.loss * self.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_stops_before_the_weights_are_spoilt(value: float, tmp_path: Path) -> None:
    model = Breaks(SHAPE, 2, small, small)
    model.value = value
    run = trainer(tmp_path, Doctor(), BestAndLast(), max_epochs=3)
    with pytest.raises(FloatingPointError, match=f"kl is {value} in epoch 1, batch 2, .*Lower the learning rate"):
        run.fit(model, data())
    assert run.global_step == 8
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 0


def test_weights_that_are_not_finite_overwrite_no_checkpoint(tmp_path: Path) -> None:
    class Spoils(VAE):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            if self.trainer.global_step == 12:
                with torch.no_grad():
                    self.decoder.layers[0].bias[1] = math.nan

    with pytest.raises(FloatingPointError, match=r"the weights decoder\.layers\.0\.bias are no longer finite"):
        trainer(tmp_path, Doctor(), BestAndLast(), max_epochs=3).fit(Spoils(SHAPE, 2, small, small), data())
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 0
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())


@pytest.mark.parametrize(
    ("losses", "loss", "expected"),
    [
        ([100 + number % 5 for number in range(30)], 1000.0, True),
        ([100 + number % 5 for number in range(30)], 180.0, False),
        ([500 - 10 * number for number in range(30)], 600.0, False),
        ([-900 + number % 5 for number in range(30)], 2000.0, True),
        ([0.0] * 30, 0.1, True),
        ([100.0] * 10, 1e9, False),
    ],
    ids=["explodes", "noise", "fast descent", "negative", "constant", "too early"],
)
def test_jumps_of_the_loss(losses: list[float], loss: float, expected: bool) -> None:
    assert jumped(loss, deque(losses, maxlen=100)) is expected


def test_an_explosion_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Explodes(VAE):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx) * (1e4 if self.trainer.global_step >= 24 else 1)

    model = Explodes(SHAPE, 2, small, small, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e-9))
    trainer(tmp_path, Doctor(), max_epochs=5).fit(model, data())
    assert told(caplog).count("the loss jumped to") == 1
    assert "in epoch 4" in told(caplog)


def test_the_scale_of_fp16_is_no_part_of_the_loss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The scaler is moved by hand, as it moves itself in a long run: the loss must not seem to jump with it."""
    losses: list[float] = []

    class Scaled(VAE):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            if self.trainer.global_step == 24:
                scaler.update(2.0**16)
            loss = super().training_step(batch, batch_idx)
            losses.append(loss.item())
            return loss

    scaler, doctor = torch.amp.GradScaler("cpu", init_scale=2.0**8), Doctor()
    precision = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    model = Scaled(SHAPE, 2, small, small)
    run = trainer(tmp_path, doctor, max_epochs=5, plugins=[precision])
    run.fit(model, data())
    assert list(doctor._losses) == losses
    assert "the loss jumped to" not in told(caplog)


class Collapsed(VAE):
    """Only its first latent unit depends on the image; of the others the posterior is the prior."""

    active = 0

    def encode(self, images: Tensor, condition: Any = None) -> Distribution:
        mean = torch.zeros(len(images), self.latent_dim)
        mean[:, : self.active] = 30 * images.mean((1, 2, 3))[:, None]
        return Independent(Normal(mean, torch.ones_like(mean)), 1)


@pytest.mark.parametrize("active", [0, 5])
def test_posterior_collapse(active: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = Collapsed(SHAPE, 10, small, small)
    model.active = active
    run = trainer(tmp_path, Doctor(patience=2), max_epochs=4)
    run.fit(model, data())
    assert run.callback_metrics["val/active_units"] == active
    assert told(caplog).count("posterior collapse") == (active == 0)
    if active == 0:
        text = told(caplog)
        assert "0 of 10 latent units are active" in text
        assert "largest KL of a unit is 0 nats" in text
        assert "--model.kl_warmup_steps" in text


@pytest.mark.parametrize("looks", [False, True])
def test_collapse_of_a_model_that_draws_in_steps(looks: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model = DRAW(SHAPE, 2, 10, 8, FullReader, FullWriter, optimizer=lambda parameters: SGD(parameters, lr=0.0))
    (head,) = (part for part in model.posterior_head.modules() if isinstance(part, Linear))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        # The means of the first unit see the image, or none do.
        head.weight[int(looks) : 10] = 0
    run = trainer(tmp_path, Doctor(patience=2), max_epochs=3)
    run.fit(model, data())
    assert run.callback_metrics["val/active_units"] == (2 if looks else 0)
    assert told(caplog).count("0 of 20 latent units are active") == (not looks)
    assert ("--trainer.gradient_clip_val" in told(caplog)) == (not looks)


def test_patience(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer(tmp_path, Doctor(patience=3), max_epochs=2).fit(Collapsed(SHAPE, 10, small, small), data())
    assert "posterior collapse" not in told(caplog)


def test_active_units_by_hand() -> None:
    means = torch.randn(50, 3) * torch.tensor([1.0, 0.2, 0.05])
    kl = torch.rand(50, 3)
    posteriors = Posteriors()
    for part in range(0, 50, 20):
        posteriors.add(means[part : part + 20], kl[part : part + 20])
    assert torch.allclose(posteriors.variances().float(), means.var(0, correction=0), rtol=1e-4)
    # Noise of a known variance in the means is taken off.
    noisy = Posteriors()
    noisy.add(means + torch.tensor([[1.0], [-1.0]]).repeat(25, 1), None, torch.full((50, 3), 0.25))
    shifted = means + torch.tensor([[1.0], [-1.0]]).repeat(25, 1)
    assert torch.allclose(noisy.variances().float(), shifted.var(0, correction=0) - 0.25, rtol=1e-4)
    assert noisy.kl() is None
    found = posteriors.kl()
    assert found is not None
    assert torch.allclose(found.float(), kl.mean(0))


def test_kl_of_each_unit() -> None:
    mean, std = torch.randn(4, 3), torch.rand(4, 3) + 0.5
    prior = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)
    kl = kl_per_unit(Independent(Normal(mean, std), 1), prior)
    assert kl is not None
    assert torch.allclose(kl, 0.5 * (mean**2 + std**2 - 1) - std.log(), atol=1e-6)
    assert kl_per_unit(MultivariateNormal(torch.zeros(3), torch.eye(3)), prior) is None


class SameSamples(VAE):
    def draw(self, num_samples: int, condition: Any = None) -> Tensor:
        return torch.full((num_samples, *SHAPE), 0.5) + 1e-3 * torch.rand(num_samples, *SHAPE)


def test_samples_that_are_all_alike(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer(tmp_path, Doctor(), max_epochs=4).fit(SameSamples(SHAPE, 2, small, small), data())
    assert told(caplog).count("this is mode collapse") == 1


def test_spread_of_samples() -> None:
    images = torch.rand(20, *SHAPE)
    assert sample_spread(images[:10], images[10:]) == pytest.approx(1, abs=0.1)
    assert sample_spread(0.1 * images[:10], images) == pytest.approx(0.1, abs=0.01)
    assert sample_spread(images[:1].expand(5, *SHAPE), images) == 0


def test_grey_pixels_under_a_binary_likelihood(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, run = vae(), trainer(tmp_path, Doctor(), max_epochs=2)
    run.fit(model, data(binarization="none"))
    run.test(model, data(binarization="none"), verbose=False)
    assert told(caplog).count("the images have grey levels") == 1
    assert "--data.binarization stochastic" in told(caplog)


def test_grey_pixels_under_a_density(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for dequantize in (False, True):
        caplog.clear()
        trainer(tmp_path, Doctor()).fit(
            vae(likelihood=GaussianLikelihood), data(binarization="none", dequantize=dequantize)
        )
        assert told(caplog).count("bits_per_dim bounds nothing") == (not dequantize)


def test_grey_pixels_before_a_discriminator_of_binary_draws(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = BGAN(SHAPE, 2, generator=small, discriminator=small)
    trainer(tmp_path, Doctor()).fit(model, data(binarization="none"))
    assert told(caplog).count("the images have grey levels, and the model draws zeros and ones") == 1
    caplog.clear()
    trainer(tmp_path, Doctor()).fit(model, data(binarization="threshold"))
    assert "grey levels" not in told(caplog)


def test_nothing_is_found_in_health(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for model, binarization in (
        (vae(optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2)), "threshold"),
        (vae(likelihood=DiscretizedLogisticLikelihood), "none"),
    ):
        trainer(tmp_path, Doctor(patience=100), max_epochs=3).fit(model, data(binarization=binarization))
    assert "Doctor" not in told(caplog)


def test_needs_two_samples() -> None:
    with pytest.raises(ValueError, match="num_samples must be at least 2"):
        Doctor(num_samples=1)
