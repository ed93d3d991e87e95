"""LAPGAN: levels that learn apart, samples from coarse to fine, classes, and who waits for whom."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from lit_gen.callbacks import Trajectory
from lit_gen.models import LAPGAN, R1, ClassLAPGAN, ErrorBalance, GradientPenalty, RatioBalance, load_model
from lit_gen.models.lapgan import pyramid_sizes
from lit_gen.networks import (
    MLP,
    CoarseDiscriminator,
    ConvEncoder,
    DCGANDiscriminator,
    PlaneDiscriminator,
    PlaneGenerator,
    Shape,
)
from lit_gen.networks.laplacian import collapse_pyramid, laplacian_pyramid, resize
from tests.callbacks.tiny import data, trainer

SHAPE: Shape = (1, 8, 8)
SIZES = [4, 6, 8]


def small(input_shape: Shape, output_shape: Shape) -> MLP:
    return MLP(input_shape, output_shape, hidden_dims=[12])


def plane(input_shape: Shape, output_shape: Shape) -> PlaneGenerator:
    return PlaneGenerator(input_shape, output_shape, channels=[4, 4], kernel_sizes=[3, 3, 3])


def critic(input_shape: Shape, output_shape: Shape) -> PlaneDiscriminator:
    return PlaneDiscriminator(input_shape, output_shape, channels=4, dropout=0)


def adam(parameters: Any) -> Adam:
    return Adam(parameters, lr=0.01)


def sgd(parameters: Any) -> SGD:
    return SGD(parameters, lr=0.5)


def lapgan(**arguments: Any) -> LAPGAN:
    torch.manual_seed(1)
    options: dict[str, Any] = {"generator_optimizer": adam, "discriminator_optimizer": adam, "sizes": SIZES}
    return LAPGAN(
        SHAPE,
        latent_dim=5,
        **{
            "base_generator": small,
            "base_discriminator": small,
            "generator": plane,
            "discriminator": critic,
            **options,
            **arguments,
        },
    )


def class_lapgan(sizes: list[int] | None = None) -> ClassLAPGAN:
    torch.manual_seed(1)
    return ClassLAPGAN(
        SHAPE, 3, sizes or SIZES, 5, small, small, plane, critic, generator_optimizer=adam, discriminator_optimizer=adam
    )


def still(model: LAPGAN) -> None:
    """Let the generators of finer levels add nothing."""
    for network in list(model.generators)[:-1]:
        for parameter in network.parameters():
            nn.init.zeros_(parameter)


# ---- the pyramid


@pytest.mark.parametrize(
    ("shape", "sides", "expected"),
    [
        ((3, 28, 28), None, [28, 14, 8]),
        ((3, 32, 32), None, [32, 16, 8]),
        ((3, 64, 64), None, [64, 32, 16, 8, 4]),
        ((1, 8, 8), None, [8, 4]),
        ((3, 96, 96), [8, 16, 32, 64, 96], [96, 64, 32, 16, 8]),
        ((1, 5, 5), None, [5]),
    ],
)
def test_sizes_are_those_of_the_paper(shape: Shape, sides: list[int] | None, expected: list[int]) -> None:
    assert pyramid_sizes(shape, sides) == [(side, side) for side in expected]
    assert pyramid_sizes((3, 28, 20)) == [(28, 20), (14, 10)]


@pytest.mark.parametrize("sides", [[4, 6], [8, 8], [6, 4, 8], [0, 8], []])
def test_sizes_must_grow_to_the_image(sides: list[int]) -> None:
    with pytest.raises(ValueError, match=r"sizes must grow from the coarsest level to 8, .* got \["):
        lapgan(sizes=sides)


def test_levels_of_real_images_are_their_laplacian_pyramid() -> None:
    model, images = lapgan(), torch.rand(3, *SHAPE)
    rungs = model.rungs(images)
    residuals = [level if rung.coarse is None else level - rung.coarse for level, rung in rungs]
    for ours, theirs in zip(residuals, laplacian_pyramid(2 * images - 1, model.level_sizes), strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(collapse_pyramid(residuals), 2 * images - 1, rtol=0, atol=1e-6)


def test_without_residuals_samples_are_enlarged() -> None:
    model = lapgan()
    still(model)
    z = model.prior.sample(torch.Size([3]))
    coarsest, *_, finest = model.climb(z)
    torch.testing.assert_close(coarsest, model.base_generator(z[:, :5]))
    torch.testing.assert_close(finest, resize(resize(coarsest, (6, 6)), (8, 8)))


def test_a_sample_is_the_collapsed_pyramid_of_its_parts() -> None:
    model = lapgan()
    z = model.prior.sample(torch.Size([2]))
    noise = [z[:, 41:].view(2, 1, 8, 8), z[:, 5:41].view(2, 1, 6, 6), z[:, :5]]
    assert model.latent_shape == (5 + 36 + 64,)
    for ours, theirs in zip(model.noise_of(z), noise, strict=True):
        assert torch.equal(ours, theirs)
    coarsest, middle, finest = model.climb(z)
    residuals = []
    for level, coarse in ((1, resize(coarsest, (6, 6))), (0, resize(middle, (8, 8)))):
        residuals.insert(0, model.generators[level](torch.cat([noise[level], coarse], 1)))
    torch.testing.assert_close(finest, collapse_pyramid([*residuals, coarsest]))
    assert (residuals[0].abs() > 1e-3).any()


def test_generation_is_differentiable_in_the_noise_of_every_level() -> None:
    model = lapgan()
    z = model.prior.sample(torch.Size([3])).requires_grad_()
    model.generate(z).sum().backward()
    assert z.grad is not None
    for part in model.noise_of(z.grad):
        assert part.abs().amax(tuple(range(1, part.ndim))).min() > 0


def test_bounded_images_keep_a_scale_that_batch_normalisation_hides() -> None:
    """Without biases, but for what is added to variances, such a discriminator says the same of ten times the image."""

    def normalised(input_shape: Shape, output_shape: Shape) -> DCGANDiscriminator:
        return DCGANDiscriminator(input_shape, output_shape, width=4)

    torch.manual_seed(0)
    model, free = (lapgan(base_discriminator=normalised, bounded=bounded) for bounded in (True, False))
    free.load_state_dict(model.state_dict())
    images, rung = model.rungs(torch.rand(6, *SHAPE))[-1]
    large, larger = (model.logits(scale * images, rung) for scale in (1e4, 1e5))
    torch.testing.assert_close(large, larger, rtol=1e-3, atol=1e-5)
    for parameter in [*model.base_generator.parameters(), *free.base_generator.parameters()]:
        parameter.data.mul_(5)
    noise = model.noise_of(model.sample_latents(6))[-1]
    bounded, coarse = (one.imagine(rung, noise, averaged=False) for one in (model, free))
    assert coarse.abs().max() > 1
    torch.testing.assert_close(bounded, coarse.tanh())


def test_trajectory_goes_from_coarse_to_fine(tmp_path: Path) -> None:
    model = lapgan()
    torch.manual_seed(4)
    frames = list(model.trajectory(3))
    assert [frame.images.shape for frame in frames] == [(3, 1, 4, 4), (3, 1, 6, 6), (3, 1, 8, 8)]
    torch.manual_seed(4)
    assert torch.equal(model.sample(3), frames[-1].images)
    trainer(tmp_path, Trajectory(num_samples=2), limit_train_batches=1).fit(model, data())


def test_a_level_is_sampled_for_real_coarse_images() -> None:
    model, images = lapgan(), torch.rand(4, *SHAPE)
    assert [model.sample_level(level, images).shape[-1] for level in range(3)] == [8, 6, 4]
    still(model)
    coarse = resize(resize(images, (6, 6)), (8, 8))
    torch.testing.assert_close(model.sample_level(0, images), coarse)
    with pytest.raises(ValueError, match=r"level must lie in 0\.\.2, 0 for the finest, got 3"):
        model.sample_level(3, images)


def test_real_images_on_both_sides_cannot_be_told_apart() -> None:
    model, images = lapgan().eval(), torch.rand(20, *SHAPE)
    for level, rung in model.rungs(images):
        terms = model.discriminator_loss(level, level, rung)
        assert torch.equal(terms.real_logit, terms.fake_logit)
        assert (terms.loss >= 2 * torch.tensor(2.0).log() - 1e-6).all(), "no discriminator gets below 2 log 2"


# ---- training


def test_every_level_learns_as_if_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A level ends where it would if no other had moved."""
    ended = []
    for alone in (False, True):
        model = lapgan(generator_optimizer=sgd, discriminator_optimizer=sgd)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        noise = model.prior.sample(torch.Size([10]))
        monkeypatch.setattr(model, "sample_latents", lambda count, condition=None, noise=noise: noise[:count])
        if alone:
            monkeypatch.setattr(model, "play", partial(play_middle, model))
        trainer(tmp_path, limit_train_batches=2, limit_val_batches=0).fit(model, data(seed=3))
        ended.append(model.state_dict())
    together, alone_only = ended
    for name, value in alone_only.items():
        if name.startswith(("generators.1", "discriminators.1")):
            assert not torch.equal(value, before[name]), name
            torch.testing.assert_close(together[name], value, rtol=0, atol=1e-6)
        else:
            assert torch.equal(value, before[name]), f"{name} is of another level"
            assert not torch.equal(together[name], value), name


def play_middle(model: LAPGAN, images: Tensor, condition: Any = None) -> dict[str, Tensor]:
    image, rung = model.rungs(images, condition)[1]
    return model.duel(image, rung, True, "level1/discriminator", "level1/generator")


def test_all_levels_are_updated_on_every_batch_and_a_step_is_a_batch(tmp_path: Path) -> None:
    model = lapgan(discriminator_steps=2)
    run = trainer(tmp_path, max_epochs=-1, max_steps=5, limit_val_batches=0)
    run.fit(model, data())
    assert run.global_step == 5
    steps = [int(next(iter(optimizer.state.values()))["step"]) for optimizer in run.optimizers]
    assert steps == [5, 2, 5, 2, 5, 2], "discriminator and generator of each level"


def test_every_level_is_logged_and_summed(tmp_path: Path) -> None:
    model = lapgan(regularizer=R1)
    run = trainer(tmp_path, log_every_n_steps=1)
    run.fit(model, data())
    logged = run.callback_metrics
    for level in range(3):
        for name in ("generator_loss", "discriminator_loss", "real_logit", "fake_logit", "penalty"):
            assert f"train/level{level}/{name}" in logged
    for stage in ("train", "val"):
        for name in ("generator_loss", "discriminator_loss"):
            total = sum(logged[f"{stage}/level{level}/{name}"] for level in range(3))
            torch.testing.assert_close(logged[f"{stage}/{name}"], total)


def test_averages_follow_the_generator_of_their_level(tmp_path: Path) -> None:
    model = lapgan(ema_decay=0.5)
    before = [parameter.clone() for parameter in model.generators.parameters()]
    trainer(tmp_path, limit_train_batches=1, limit_val_batches=0).fit(model, data())
    assert model.averages is not None
    averages = [value for part in model.averages for value in part.parameters()]
    for start, now, average in zip(before, model.generators.parameters(), averages, strict=True):
        torch.testing.assert_close(average, (start + now) / 2)
    z = model.prior.sample(torch.Size([3]))
    assert not torch.equal(model.decode(z), model.generate(z))
    model.sample_average = False
    assert torch.equal(model.decode(z), model.generate(z))


def test_a_gradient_penalty_refuses_batch_normalisation_and_stays_uncompiled() -> None:
    def normalised(input_shape: Shape, output_shape: Shape) -> ConvEncoder:
        return ConvEncoder(input_shape, output_shape, channels=(4,), batch_norm=True)

    with pytest.raises(ValueError, match="batch normalisation mixes the images"):
        lapgan(discriminator=normalised, regularizer=GradientPenalty)
    model = lapgan(regularizer=R1)
    assert model.compiled_parts() == list(model.generators)
    assert len(lapgan().compiled_parts()) == 6


# ---- balance


@pytest.mark.parametrize(
    ("real_error", "fake_error", "discriminator", "generator"),
    [
        (0.69, 0.69, False, True),
        (0.30, 0.59, False, True),  # not by more than the margin
        (0.30, 0.61, True, False),
        (0.75, 0.60, True, True),
        (0.75, 1.10, True, False),
    ],
)
def test_the_published_rule(real_error: float, fake_error: float, discriminator: bool, generator: bool) -> None:
    assert ErrorBalance().turns(real_error, fake_error, 1.0) == (discriminator, generator)


def test_a_discriminator_that_is_behind_trains_alone(tmp_path: Path) -> None:
    def sure(input_shape: Shape, output_shape: Shape) -> CoarseDiscriminator:
        network = CoarseDiscriminator(input_shape, output_shape, [4], dropout=0)
        last = network.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, bias)
        return network

    moved = {}
    # A logit of 2 for all: error 0.13 on real images, 2.13 on generated ones; of -2 the other way round.
    for bias in (2.0, -2.0, 0.0):
        model = lapgan(base_discriminator=sure, balance=ErrorBalance, micro_batches=2)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        trainer(tmp_path, limit_train_batches=1, limit_val_batches=0).fit(model, data())
        moved[bias] = [
            any(not torch.equal(value, before[name]) for name, value in model.state_dict().items() if part in name)
            for part in ("discriminators.2", "generators.2")
        ]
    assert moved == {2.0: [True, False], -2.0: [True, True], 0.0: [False, True]}


def test_a_rule_with_a_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="RatioBalance remembers which network is paused, and a pyramid has a pair"):
        lapgan(balance=RatioBalance)


def test_margins_are_checked() -> None:
    with pytest.raises(ValueError, match=r"margin must be at least 0 and ceiling positive, got -1 and 0\.7"):
        ErrorBalance(margin=-1)


# ---- classes


def test_class_changes_what_every_network_says() -> None:
    model = class_lapgan().eval()
    images, z = torch.rand(2, *SHAPE), model.prior.sample(torch.Size([2]))
    ones, twos = (torch.full((2,), number) for number in (1, 2))
    for first, second in zip(model.rungs(images, ones), model.rungs(images, twos), strict=True):
        assert (model.logits(*first) - model.logits(*second)).abs().min() > 1e-6
        noise = model.noise_of(z)[first[1].level]
        one, other = (model.imagine(rung, noise, averaged=False) for rung in (first[1], second[1]))
        assert (one - other).abs().amax((1, 2, 3)).min() > 1e-6
    torch.manual_seed(2)
    frames = list(model.trajectory(3, twos[:1].expand(3)))
    torch.manual_seed(2)
    assert torch.equal(model.sample(3, twos[:1].expand(3)), frames[-1].images)


@pytest.mark.parametrize("sizes", [SIZES, [8]])
def test_a_checkpoint_has_the_networks_of_every_level(sizes: list[int], tmp_path: Path) -> None:
    model = class_lapgan(sizes)
    run = trainer(tmp_path, limit_train_batches=1)
    run.fit(model, data())
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = load_model(tmp_path / "model.ckpt")
    assert isinstance(loaded, ClassLAPGAN)
    assert loaded.level_sizes == model.level_sizes
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_classes_are_needed() -> None:
    with pytest.raises(ValueError, match="needs labels of at least 2 classes, the data has 0"):
        ClassLAPGAN(SHAPE, 0)


# ---- likelihood


@pytest.mark.parametrize("make", [lapgan, class_lapgan])
def test_likelihood_is_a_sum_over_levels(make: Any) -> None:
    model = make().eval()
    images, validation, classes = torch.rand(5, *SHAPE), torch.rand(4, *SHAPE), torch.arange(5) % 3
    given = (classes, classes[:4]) if isinstance(model, ClassLAPGAN) else (None, None)
    found = model.log_likelihood_parzen(images, validation, *given, num_samples=40, num_residuals=6, max_rows=3)
    assert found.log_likelihoods.shape == (5,)
    total = sum(level.log_likelihoods for level in found.levels) + sum(found.log_volumes)
    torch.testing.assert_close(found.log_likelihoods, total)
    assert found.standard_error > 0
    with pytest.raises(ValueError, match="no validation images"):
        model.log_likelihood_parzen(images, None, *given)
