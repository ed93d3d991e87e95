"""What users of adversarial networks on Lightning stumble over: steps, several optimizers, precision, averages."""

import copy
import csv
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from lit_gen.callbacks import BestAndLast, Compile, GenerationMetrics
from lit_gen.cli import main
from lit_gen.models import (
    GAN,
    R1,
    AdversarialLoss,
    GradientPenalty,
    LeastSquares,
    NonSaturating,
    Wasserstein,
    WeightClipping,
    load_model,
)
from lit_gen.networks import ConvDecoder, ConvEncoder, MovingAverage, Shape
from tests.callbacks.tiny import data, trainer
from tests.models.deterministic_gan import LATENTS, SHAPE, Deterministic, small


def adam(parameters: Any) -> Adam:
    return Adam(parameters, lr=0.01, betas=(0.5, 0.9))


def sgd(parameters: Any) -> SGD:
    return SGD(parameters, lr=0.1)


def gan(kind: type[GAN] = GAN, **arguments: Any) -> GAN:
    torch.manual_seed(1)
    options = {"generator_optimizer": adam, "discriminator_optimizer": adam, **arguments}
    return kind(SHAPE, LATENTS, "normal", **{"generator": small, "discriminator": small, **options})


def updates(run: pl.Trainer) -> list[int]:
    """Steps that the optimizers of discriminator and generator took."""
    return [int(next(iter(optimizer.state.values()))["step"]) for optimizer in run.optimizers]


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


# ---- one step is one batch


@pytest.mark.parametrize(
    ("discriminator_steps", "generator_steps", "expected"), [(1, 1, [5, 5]), (2, 1, [5, 2]), (1, 3, [5, 15])]
)
def test_a_step_is_a_batch(discriminator_steps: int, generator_steps: int, expected: list[int], tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="")
    every = ModelCheckpoint(tmp_path / "every", filename="{step}", every_n_train_steps=2, save_top_k=-1)
    model = gan(discriminator_steps=discriminator_steps, generator_steps=generator_steps)
    run = trainer(tmp_path, every, max_epochs=-1, max_steps=5, logger=logger, log_every_n_steps=1, limit_val_batches=0)
    run.fit(model, data())
    assert run.global_step == 5
    assert updates(run) == expected
    assert sorted(path.name for path in (tmp_path / "every").iterdir()) == ["step=2.ckpt", "step=4.ckpt"]
    with open(Path(logger.log_dir) / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [0, 1, 2, 3, 4]
    names = {"train/discriminator_loss", "train/generator_loss", "train/real_logit", "train/fake_logit"}
    assert names <= rows[-1].keys()
    assert all(row["train/generator_loss"] for row in rows[discriminator_steps - 1 :]), "at its turn, and from then on"


def test_training_is_that_of_a_bare_loop(tmp_path: Path) -> None:
    model = gan()
    generator, discriminator = copy.deepcopy(model.generator), copy.deepcopy(model.discriminator)
    images = next(iter(loaded(60)))[0]
    torch.manual_seed(7)
    trainer(tmp_path, max_epochs=3, limit_val_batches=0).fit(model, data(batch_size=60, seed=3))

    bce = nn.BCEWithLogitsLoss()
    optimizers = adam(discriminator.parameters()), adam(generator.parameters())
    torch.manual_seed(7)
    ones, zeros = torch.ones(60, 1), torch.zeros(60, 1)
    for epoch in range(3):
        images = next(iter(loaded(60, epoch)))[0]
        fakes = torch.sigmoid(generator(torch.randn(60, LATENTS)))
        optimizers[0].zero_grad()
        (bce(discriminator(images), ones) + bce(discriminator(fakes.detach()), zeros)).backward()
        optimizers[0].step()
        optimizers[1].zero_grad()
        bce(discriminator(fakes), ones).backward()
        optimizers[1].step()
    for ours, theirs in ((model.generator, generator), (model.discriminator, discriminator)):
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], value, rtol=0, atol=1e-5)


def loaded(batch_size: int, epoch: int = 0) -> Any:
    source = data(batch_size=batch_size, seed=3)
    source.prepare_data()
    source.setup("fit")
    loader = source.train_dataloader()
    loader.set_epoch(epoch)
    return loader


class Watched(GAN):
    """Notes what carries a graph, and which gradients there are when a player has stepped."""

    graphs: list[bool]
    gradients: list[Tensor]

    def _discriminator_turn(self, piece: Any) -> Any:
        self.graphs = [*vars(self).get("graphs", []), piece.fakes.requires_grad]
        return super()._discriminator_turn(piece)

    def after_step(self, player: str) -> None:
        super().after_step(player)
        self.gradients = [part.grad.clone() for part in self.discriminator.parameters() if part.grad is not None]
        if player == "discriminator":
            self.before = self.gradients
            assert all(part.grad is None or self.trainer.global_step for part in self.generator.parameters())
        else:
            assert all(torch.equal(now, then) for now, then in zip(self.gradients, self.before, strict=True))


def test_nothing_is_computed_in_vain(tmp_path: Path) -> None:
    model = gan(Watched, discriminator_steps=2)
    trainer(tmp_path, limit_val_batches=0, limit_train_batches=4).fit(model, data())
    assert model.graphs == [False, True, False, True], "a graph only where the generator goes on from it"


# ---- parts of a batch, clipping, schedules


@pytest.mark.parametrize("regularizer", [None, R1])
def test_parts_of_a_batch_give_the_step_of_the_whole(regularizer: Any, tmp_path: Path) -> None:
    ended = []
    for micro_batches in (1, 3):
        model = gan(Deterministic, micro_batches=micro_batches, regularizer=regularizer)
        before = weights(model)
        # A last batch of 4 is cut into unequal parts.
        trainer(tmp_path, limit_val_batches=0).fit(model, data(num_train=64))
        ended.append(weights(model))
    for name, value in ended[0].items():
        torch.testing.assert_close(ended[1][name], value, rtol=0, atol=2e-6)
    assert (ended[0]["generator.layers.0.weight"] - before["generator.layers.0.weight"]).abs().mean() > 1e-3


def test_each_network_is_clipped_by_its_own_bound(tmp_path: Path) -> None:
    def plain(parameters: Any) -> SGD:
        return SGD(parameters, lr=1.0)

    moved = {}
    for clip in (None, 1e-3):
        model = gan(Deterministic, generator_optimizer=plain, discriminator_optimizer=plain, discriminator_clip=clip)
        before = weights(model)
        trainer(tmp_path, limit_val_batches=0, limit_train_batches=1).fit(model, data())
        for part in ("generator", "discriminator"):
            steps = [model.state_dict()[name] - value for name, value in before.items() if name.startswith(part)]
            moved[part, clip] = torch.cat([step.flatten() for step in steps]).norm().item()
    assert moved["discriminator", 1e-3] == pytest.approx(1e-3, rel=1e-3)
    assert moved["discriminator", None] > 2e-3
    assert moved["generator", 1e-3] > 2e-3


def test_each_network_has_its_own_schedule(tmp_path: Path) -> None:
    model = gan(
        generator_lr_scheduler=lambda optimizer: StepLR(optimizer, 1, gamma=0.5),
        discriminator_lr_scheduler=lambda optimizer: StepLR(optimizer, 2, gamma=0.1),
    )
    run = trainer(tmp_path, max_epochs=3, limit_train_batches=1, limit_val_batches=0)
    run.fit(model, data())
    rates = [optimizer.param_groups[0]["lr"] for optimizer in run.optimizers]
    assert rates == pytest.approx([0.01 * 0.1, 0.01 * 0.5**3])


# ---- precision


class Nothing(AdversarialLoss):
    """Leaves the penalty alone to move the discriminator."""

    def real(self, logits: Tensor) -> Tensor:
        return 0 * logits

    def fake(self, logits: Tensor) -> Tensor:
        return 0 * logits

    def generator(self, logits: Tensor) -> Tensor:
        return 0 * logits


@pytest.mark.parametrize("regularizer", [R1, GradientPenalty])
def test_penalties_are_of_full_precision_and_so_is_their_gradient(regularizer: Any, tmp_path: Path) -> None:
    ended = {}
    for precision in ("32-true", "bf16-mixed"):
        model = gan(Deterministic, loss=Nothing, regularizer=regularizer, discriminator_optimizer=sgd)
        before = weights(model)
        torch.manual_seed(2)
        # Under bf16 generated images would be others.
        model.fakes = lambda images, condition=None: images.flip(3)  # type: ignore[method-assign, assignment]
        model.generator_turn = lambda: False  # type: ignore[method-assign]
        run = trainer(tmp_path, limit_val_batches=0, precision=precision, limit_train_batches=3)
        run.fit(model, data())
        ended[precision] = weights(model)
    for name, value in ended["32-true"].items():
        assert torch.equal(ended["bf16-mixed"][name], value), f"{name} went through half precision"
    name = "discriminator.layers.0.weight"
    assert not torch.equal(ended["32-true"][name], before[name]), "a penalty that moves nothing would prove nothing"


def test_fp16_scales_and_unscales_each_optimizer_once(tmp_path: Path) -> None:
    ended = []
    for plugins in ([], [MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))]):
        model = gan(
            Deterministic, generator_optimizer=sgd, discriminator_optimizer=sgd, generator_clip=0.1, regularizer=R1
        )
        before = weights(model)
        run = trainer(tmp_path, limit_val_batches=0, plugins=plugins, max_epochs=2)
        run.fit(model, data())
        ended.append(weights(model))
    for name, value in ended[0].items():
        if value.is_floating_point():
            change = (value - before[name]).norm()
            assert (ended[1][name] - value).norm() < 0.03 * change, name


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_half_precision_throughout_is_refused(precision: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"in precision {precision} .* use {precision.replace('true', 'mixed')}"):
        trainer(tmp_path, precision=precision).fit(gan(), data())


# torch hides this warning of its own by a filter that comes after the one of the tests.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_gradient_penalty_trains_compiled(tmp_path: Path) -> None:
    torch._dynamo.reset()
    compiled = gan(Deterministic, regularizer=GradientPenalty)
    assert compiled.compiled_parts() == [compiled.generator]
    assert gan(regularizer=WeightClipping).compiled_parts() != [compiled.generator]
    plain = gan(Deterministic, regularizer=GradientPenalty)
    for model, callbacks in ((plain, []), (compiled, [Compile(backend="eager")])):
        torch.manual_seed(5)
        trainer(tmp_path, *callbacks, limit_train_batches=3, limit_val_batches=0).fit(model, data())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, rtol=0, atol=1e-5)


# ---- the average of the generator


def test_average_after_n_updates_is_a_closed_form() -> None:
    network = nn.Linear(1, 1)
    nn.init.zeros_(network.weight)
    average = MovingAverage(network, 0.999)
    nn.init.ones_(network.weight)
    for _ in range(1000):
        average.update(network)
    assert average.network.weight.item() == pytest.approx(1 - 0.999**1000, abs=1e-5)
    assert not any(parameter.requires_grad for parameter in average.parameters())


def convolutional(input_shape: Shape, output_shape: Shape) -> ConvDecoder:
    return ConvDecoder(input_shape, output_shape, channels=(8, 4), batch_norm=True)


def test_average_is_what_samples_and_evaluation_use(tmp_path: Path) -> None:
    model = gan(generator=convolutional, ema_decay=0.9)
    run = trainer(tmp_path, max_epochs=2)
    run.fit(model, data())
    assert model.average is not None
    statistics = [name for name in model.generator.state_dict() if "running_mean" in name]
    assert statistics
    for name in statistics:
        assert torch.equal(model.average.network.state_dict()[name], model.generator.state_dict()[name])
    model.eval()
    z = model.prior.sample(torch.Size([5]))
    averaged, trained = model.decode(z), model.generate(z)
    assert not torch.allclose(averaged, trained)
    assert torch.equal(averaged, model.to_image(model.average.network(z)))
    torch.manual_seed(3)
    drawn = model.sample(5)
    torch.manual_seed(3)
    assert torch.equal(model.fakes(torch.zeros(5, *SHAPE)), drawn), "validation sees the same"
    model.sample_average = False
    torch.manual_seed(3)
    assert not torch.allclose(model.sample(5), drawn)


def test_decay_is_checked() -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\), got 1"):
        gan(ema_decay=1.0)


# ---- which checkpoint is the best


def test_best_is_the_lowest_fid_where_it_is_measured_else_the_newest(tmp_path: Path) -> None:
    newest = BestAndLast(dirpath=str(tmp_path / "newest"))
    trainer(tmp_path, newest, max_epochs=2).fit(gan(), data())
    assert newest.monitor is None
    assert Path(newest.best_model_path).name == "epoch001-step0000012.ckpt"
    best = BestAndLast(dirpath=str(tmp_path / "best"))
    run = trainer(tmp_path, best, GenerationMetrics("pixels", ["fid"]), max_epochs=2)
    run.fit(gan(), data())
    assert (best.monitor, best.mode) == ("val/fid", "min")
    assert best.best_model_score is not None
    assert best.best_model_score <= run.callback_metrics["val/fid"]
    other = BestAndLast(dirpath=str(tmp_path / "other"))
    trainer(tmp_path, other, GenerationMetrics("pixels", ["fid"], stages=["test"])).fit(gan(), data())
    assert other.monitor is None


# ---- what is refused, and what regularizers do


def test_clipping_holds_the_weights(tmp_path: Path) -> None:
    model = gan(loss=Wasserstein, regularizer=lambda: WeightClipping(0.01))
    trainer(tmp_path, limit_val_batches=0).fit(model, data())
    assert max(part.abs().max().item() for part in model.discriminator.parameters()) <= 0.01
    assert max(part.abs().max().item() for part in model.generator.parameters()) > 0.01


def test_a_gradient_penalty_refuses_batch_normalisation() -> None:
    def normalised(input_shape: Shape, output_shape: Shape) -> ConvEncoder:
        return ConvEncoder(input_shape, output_shape, channels=(4,), batch_norm=True)

    with pytest.raises(ValueError, match="batch normalisation mixes the images"):
        gan(discriminator=normalised, regularizer=GradientPenalty)


@pytest.mark.parametrize("name", ["discriminator_steps", "generator_steps", "micro_batches"])
def test_counts_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        gan(**{name: 0})


def test_bounds_of_gradients_are_positive() -> None:
    with pytest.raises(ValueError, match="generator_clip must be positive"):
        gan(generator_clip=0.0)


def test_a_plateau_is_refused(tmp_path: Path) -> None:
    model = gan(generator_lr_scheduler=ReduceLROnPlateau)
    with pytest.raises(ValueError, match="the generator of GAN has no value that a ReduceLROnPlateau could watch"):
        trainer(tmp_path).fit(model, data())


@pytest.mark.parametrize("option", ["gradient_clip_val=1", "accumulate_grad_batches=2"])
def test_options_of_the_trainer_that_cannot_hold_are_refused(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["fit", "--model", "GAN", "--data", "Synthetic", f"--trainer.{option}", "--trainer.max_epochs=1"]
    assert main(words) != 0
    assert "GAN steps its optimizers by itself" in capsys.readouterr().err


def test_losses_and_regularizers_come_back_from_a_checkpoint(tmp_path: Path) -> None:
    model = gan(loss=lambda: LeastSquares(0.8), regularizer=lambda: GradientPenalty(3.0))
    run = trainer(tmp_path, limit_train_batches=1)
    run.fit(model, data())
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded_model = load_model(tmp_path / "model.ckpt")
    assert isinstance(loaded_model, GAN)
    assert isinstance(loaded_model.loss, LeastSquares)
    assert loaded_model.loss.real_target == 0.8
    assert isinstance(loaded_model.regularizer, GradientPenalty)
    assert loaded_model.regularizer.weight == 3.0
    assert isinstance(gan().loss, NonSaturating)
