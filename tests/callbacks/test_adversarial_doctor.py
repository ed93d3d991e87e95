"""What the doctor finds in games between networks, and that it finds nothing in health."""

import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_gen.callbacks import Doctor
from lit_gen.callbacks.game import Duel, duel, even_coverage, variety
from lit_gen.callbacks.remedies import Remedies, clipping
from lit_gen.cli import main
from lit_gen.data import Digits
from lit_gen.metrics import DensityCoverage
from lit_gen.models import (
    BGAN,
    DBN,
    DCGAN,
    GAN,
    LAPGAN,
    R1,
    VAEGAN,
    ErrorBalance,
    GradientPenalty,
    Hinge,
    Minimax,
    Wasserstein,
)
from lit_gen.models.base import LitGenModule
from lit_gen.networks import MLP, DCGANDiscriminator, VAEGANDiscriminator, VAEGANEncoder, VAEGANGenerator
from tests.callbacks.test_doctor import told
from tests.callbacks.tiny import SHAPE, data, small, trainer

DRAWN = Digits().load("train").images[-600:].float() / 255


class Drawing(GAN):
    """Its samples are what a test makes of images of the data, whatever the generator has learnt."""

    make: Callable[[int], Tensor]

    def draw(self, num_samples: int, condition: Any = None) -> Tensor:
        return self.make(num_samples)


def drawing(make: Callable[[int], Tensor]) -> Drawing:
    model = Drawing(SHAPE, 4, generator=small, discriminator=small)
    model.make = make
    return model


def one_image(count: int) -> Tensor:
    return (DRAWN[:1] + 0.02 * torch.randn(count, *SHAPE)).clamp(0, 1)


def ten_images(count: int) -> Tensor:
    return (DRAWN[torch.randint(10, (count,))] + 0.02 * torch.randn(count, *SHAPE)).clamp(0, 1)


def one_class(count: int) -> Tensor:
    """Different images, but zeros all of them."""
    zeros = DRAWN[Digits().load("train").targets[-600:] == 0]
    return zeros[torch.randint(len(zeros), (count,))] * (0.8 + 0.2 * torch.rand(count, 1, 1, 1))


DECK: list[int] = []


def healthy(count: int) -> Tensor:
    """Images that the model is not judged by, each once before any comes again."""
    if len(DECK) < count:
        DECK[:] = torch.randperm(len(DRAWN)).tolist()
    return DRAWN[[DECK.pop() for _ in range(count)]]


def noise(count: int) -> Tensor:
    """Bad images, but no collapse."""
    return torch.rand(count, *SHAPE)


def examine(folder: Path, model: LitGenModule, epochs: int = 3, **arguments: Any) -> Any:
    run = trainer(folder, Doctor(**arguments), max_epochs=epochs, log_every_n_steps=1)
    run.fit(model, Digits(batch_size=50, subset=100))
    return run


@pytest.mark.parametrize(
    ("make", "found"),
    [(one_image, True), (ten_images, True), (one_class, True), (healthy, False), (noise, False)],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_mode_collapse(
    make: Callable[[int], Tensor], found: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = examine(tmp_path, drawing(make))
    assert told(caplog).count("this is mode collapse") == found
    assert ("--model.regularizer R1" in told(caplog)) is found
    duplicates, spread = (run.callback_metrics[f"val/{name}"].item() for name in ("duplicates", "sample_spread"))
    if make is one_image:
        assert duplicates == 1
        assert spread < 0.1
        assert "as if drawn from about 1 different images" in told(caplog)
    if make is ten_images:
        assert duplicates == 1
        assert re.search(r"as if drawn from about (9|10|11)(\.\d+)? different images", told(caplog))
    if make is healthy:
        assert duplicates < 0.05
        assert spread == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("make", "repeats", "crowds"),
    [(ten_images, True, True), (one_class, True, True), (healthy, False, False), (noise, False, False)],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_gives_a_collapse_away(make: Callable[[int], Tensor], repeats: bool, crowds: bool) -> None:
    images = Digits().load("train").images[:256].float() / 255
    found = variety(make(256), images)
    assert (found.repeats, found.crowds) == (repeats, crowds)
    assert found.collapsed is (repeats or crowds)


def test_few_images_are_judged_by_their_spread_alone() -> None:
    found = variety(one_image(100), DRAWN[:20])
    assert found.birthday is None
    assert found.neighbours is None
    assert found.collapsed


def test_large_images_are_made_small_before_they_are_compared() -> None:
    images = torch.rand(60, 3, 8, 8).repeat_interleave(32, 2).repeat_interleave(16, 3)
    found, expected = variety(images, images.flip(0)), variety(images[:, :, ::8, ::4], images[:, :, ::8, ::4].flip(0))
    assert found.birthday is not None
    assert found.birthday == pytest.approx(expected.birthday)
    assert found.spread == pytest.approx(expected.spread)


@pytest.mark.parametrize("density", [0.3, 1.0, 2.0])
def test_even_coverage_is_that_of_equal_distributions(density: float) -> None:
    metric = DensityCoverage(k=5)
    metric.update(torch.rand(1000, 2), real=True)
    metric.update(torch.rand(int(1000 * density), 2), real=False)
    coverage = metric.compute().coverage.item()
    assert coverage == pytest.approx(even_coverage(density, 5), abs=0.03)


def test_losses_of_a_game_are_not_judged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Swings(GAN):
        def generator_loss(self, fakes: Tensor, condition: Any = None) -> Tensor:
            return super().generator_loss(fakes, condition) * (1e4 if self.trainer.global_step >= 24 else 1)

    model = Swings(SHAPE, 4, generator=small, discriminator=small)
    model.make_generator_optimizer = lambda parameters: torch.optim.SGD(parameters, lr=1e-9)
    trainer(tmp_path, Doctor(patience=100), max_epochs=5).fit(model, data(binarization="none"))
    assert "Doctor" not in told(caplog)


def test_nan_names_options_that_a_game_has(tmp_path: Path) -> None:
    class Breaks(GAN):
        def generator_loss(self, fakes: Tensor, condition: Any = None) -> Tensor:
            return super().generator_loss(fakes, condition) * math.nan

    model = Breaks(SHAPE, 4, generator=small, discriminator=small)
    with pytest.raises(FloatingPointError, match=r"--model.generator_clip 1 --model.discriminator_clip 1") as caught:
        trainer(tmp_path, Doctor()).fit(model, data(binarization="none"))
    assert "gradient_clip_val" not in str(caught.value)
    assert "variance" not in str(caught.value)


def test_an_explosion_of_a_staged_model_names_no_clipping(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Explodes(DBN):
        def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
            super().manual_backward(loss * (1e6 if self.trainer.global_step >= 24 else 1), *args, **kwargs)

    trainer(tmp_path, Doctor(), max_epochs=5).fit(Explodes(SHAPE, [6, 6], pretraining_epochs=5, sample_steps=2), data())
    assert "the loss jumped to" in told(caplog)
    assert "gradient_clip_val" not in told(caplog)


class Talking(GAN):
    """Its discriminator says of real and of generated images what a test wants."""

    logit: tuple[float, float] = (0.0, 0.0)

    def discriminate(self, images: Tensor, condition: Any = None) -> Tensor:
        said = super().discriminate(images, condition)
        real = images.flatten(1)[:, 0] == 0.25
        wanted = torch.where(real, *self.logit)
        return wanted + 0.0 * said

    def unpack(self, batch: Any) -> Any:
        images, _ = super().unpack(batch)
        images = images.clone()
        images[:, 0, 0, 0] = 0.25
        return images, None


@pytest.mark.parametrize(
    ("logit", "loss", "words"),
    [
        ((9.0, -9.0), None, "the discriminator has won"),
        ((9.0, -9.0), Minimax, "--model.loss NonSaturating"),
        ((9.0, -9.0), Hinge, "the discriminator has won"),
        ((0.0, 0.0), None, "nearly the same logit to all it sees"),
        ((1.0, -1.0), None, None),
        ((8.0, -8.0), Wasserstein, None),
        ((800.0, -800.0), Wasserstein, "its loss has no lower end"),
    ],
)
def test_discriminators(
    logit: tuple[float, float], loss: Any, words: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = {} if loss is None else {"loss": loss}
    model = Talking(SHAPE, 4, generator=small, discriminator=small, **arguments)
    model.logit = logit
    examine(tmp_path, model, num_compared=2, patience=2)
    text = told(caplog).replace("this is mode collapse", "")
    found = [finding for finding in ("has won", "no lower end", "nearly the same logit") if finding in text]
    assert len(found) == (words is not None)
    assert words is None or words in text


def test_a_duel_by_hand() -> None:
    found = duel(torch.tensor([1.0, 2.0]), torch.tensor([2.0, -1.0]), torch.tensor([-1.0, -3.0]))
    assert found == Duel(loss=1.5, accuracy=0.75, separation=0.875, gap=2.5, spread=pytest.approx(1.785, abs=1e-3))


def test_discriminators_of_levels_are_told_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Sleeps(LAPGAN):
        def logits(self, images: Tensor, rung: Any) -> Tensor:
            return super().logits(images, rung) * (rung.level != 1)

    model = Sleeps(SHAPE, [4, 8], 4, small, small, generator=wide, discriminator=wide)
    examine(tmp_path, model, num_compared=2)
    assert "the discriminator of level1 gives nearly the same logit" in told(caplog)
    assert "level0" not in told(caplog)


def wide(input_shape: Any, output_shape: Any) -> MLP:
    return MLP(input_shape, output_shape, hidden_dims=[32])


def test_every_option_that_is_named_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for model in (DCGAN(SHAPE), DCGAN(SHAPE, loss=Minimax), GAN(SHAPE, regularizer=GradientPenalty, loss=Wasserstein)):
        remedies = Remedies(model)
        texts += [remedies.against_collapse(), remedies.against_victory(), remedies.against_slopes()]
        texts += [remedies.against_sleep(), *clipping(model)]
    hints = dict.fromkeys(hint for text in texts for hint in re.findall(r"\((--model[^)]*)\)", text))
    assert len(hints) == 12
    # Those on a part go where the part has them.
    words = " ".join(f"{hint} 1e-4" if hint.endswith(".lr") else hint for hint in hints)
    words = words.replace("LAYER", "convolutions").split()
    assert main(["fit", "-c", "dcgan/digits", *words, "--print_config"]) == 0
    assert "error" not in capsys.readouterr().err


def test_a_wasserstein_critic_is_recommended_where_it_can_be_had() -> None:
    critic = {"loss": Wasserstein, "regularizer": GradientPenalty}
    assert "Wasserstein" in Remedies(GAN(SHAPE)).against_collapse()
    GAN(SHAPE, **critic)
    assert "Wasserstein --model.regularizer GradientPenalty --model.discriminator.norm layer" in (
        Remedies(DCGAN(SHAPE)).against_collapse()
    )
    DCGAN(SHAPE, discriminator=lambda i, o: DCGANDiscriminator(i, o, norm="layer"), **critic)
    networks = [partial(network, channels=[4, 5]) for network in (VAEGANEncoder, VAEGANGenerator)]
    judge = partial(VAEGANDiscriminator, channels=[3, 4, 5])
    for refusing, made in ((BGAN, ()), (VAEGAN, (3, *networks, judge, "layers.convolution2"))):
        assert "R1" in Remedies(refusing(SHAPE, *made)).against_collapse()
        assert "Wasserstein" not in Remedies(refusing(SHAPE, *made)).against_collapse()
        with pytest.raises(ValueError, match=r"batch normalisation|Wasserstein does not"):
            refusing(SHAPE, *made, **critic)
    balanced = lapgan_of(ErrorBalance)
    assert "Wasserstein" not in Remedies(balanced).against_collapse()


def lapgan_of(balance: Any) -> LAPGAN:
    return LAPGAN(SHAPE, [4, 8], 4, small, small, generator=wide, discriminator=wide, balance=balance)


def test_what_is_there_already_is_not_recommended() -> None:
    assert "R1" in Remedies(GAN(SHAPE)).against_collapse()
    assert "larger weight of the regularizer" in Remedies(GAN(SHAPE, regularizer=R1)).against_collapse()
    assert "minibatch_deviation" in Remedies(DCGAN(SHAPE)).against_collapse()
    assert "minibatch_deviation" not in Remedies(GAN(SHAPE, discriminator=small)).against_collapse()
    assert "real_target" in Remedies(GAN(SHAPE)).against_victory()
    assert "real_target" not in Remedies(GAN(SHAPE, loss=Hinge)).against_victory()


def test_needs_two_samples() -> None:
    with pytest.raises(ValueError, match="num_compared must be at least 2"):
        Doctor(num_compared=1)
