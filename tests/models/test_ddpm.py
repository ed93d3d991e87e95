"""DDPM against quadrature of a two-step chain, its own formulas, and samplers whose result is known."""

import math
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from lit_gen.cli.command import main
from lit_gen.data import Synthetic
from lit_gen.models import DDPM, AncestralSampler, ClassDDPM, CosineSchedule, DDIMSampler, LinearSchedule
from lit_gen.models.class_ddpm import GuidedClass
from lit_gen.networks import BumpMLP, Shape, TimedNetwork, UNet
from lit_gen.objectives import epsilon_weights, gaussian_chain, linear_rates

PIXEL: Shape = (1, 1, 1)


def dense(input_shape: Shape, output_shape: Shape, num_classes: int) -> BumpMLP:
    return BumpMLP(input_shape, output_shape, num_classes, hidden_dims=[8])


def unet(input_shape: Shape, output_shape: Shape, num_classes: int) -> UNet:
    return UNet(input_shape, output_shape, num_classes, channels=4, multipliers=[1, 2], blocks=1, groups=2)


def test_bound_by_quadrature() -> None:
    torch.manual_seed(0)
    model = DDPM(PIXEL, dense, lambda: LinearSchedule(2, 0.3, 0.8), "small", levels=3).eval()
    images = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1)
    grid = torch.linspace(-6, 6, 601).view(-1, 1, 1, 1)
    log_step = math.log(12 / 600)
    with torch.no_grad():
        t = torch.full((601,), 2)
        middle = model.reverse(grid, t)  # of every x_2
        log_x1 = torch.stack([middle.log_prob(x.expand_as(grid)) for x in grid], 1)  # (x_2, x_1)
        log_x1 = torch.logsumexp(model.noise.log_prob(grid)[:, None] + log_x1 + log_step, 0)
        given = torch.stack([model.data_log_prob(x.expand_as(grid), grid) for x in model.to_state(images)])
        log_p = torch.logsumexp(given + log_x1 + log_step, 1)
    assert log_p.logsumexp(0).item() == pytest.approx(0, abs=1e-3)
    rows = images.repeat(3000, 1, 1, 1)
    with torch.no_grad():
        summed, estimated = model.summed_bound(rows).elbo, model.estimated_bound(rows).elbo
    assert summed is not None
    assert estimated is not None
    summed, estimated = summed.view(3000, 3), estimated.view(3000, 3)
    assert (summed.mean(0) < log_p).all()
    error = (summed.var(0) + estimated.var(0)).div(3000).sqrt()
    assert ((summed.mean(0) - estimated.mean(0)).abs() < 4.5 * error).all()
    torch.testing.assert_close(model.lower_bound(images, 20_000), log_p, rtol=0, atol=0.03)


def test_step_kl_is_the_weighted_error_of_epsilon() -> None:
    model = DDPM(PIXEL, dense)
    chain = gaussian_chain(linear_rates(1000))
    data = torch.full((1, 1, 1, 1), 0.1)
    for step in (2, 10, 500, 1000):
        t = torch.tensor([step])
        torch.manual_seed(step)
        noise = (model.diffused(data, t) - chain.signal[step] * data) / chain.noise[step]
        wrong = 0.3 * chain.signal[step].item()  # little enough for the guess of the image to need no clipping
        model.epsilon = lambda x, t, condition=None, guess=noise + wrong: guess.float()  # type: ignore[method-assign]
        torch.manual_seed(step)
        ratio = (chain.posterior_variance[step] / chain.beta[step]).item()
        constant = 0.5 * (ratio - 1 - math.log(ratio))
        expected = epsilon_weights(chain, chain.beta)[step - 1].item() * wrong**2 + constant
        assert model.step_kl(data, t).item() == pytest.approx(expected, rel=2e-3, abs=2e-6)


class Exact(TimedNetwork):
    """E[noise given x_t] for pixels N(0, std^2)."""

    def __init__(self, input_shape: Shape, output_shape: Shape, num_classes: int = 0, std: float = 0.25) -> None:
        super().__init__(input_shape, output_shape, num_classes)
        self.std = std
        self.chain = gaussian_chain(CosineSchedule(200).rates())

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:  # type: ignore[override]
        t = (200 * time).round().long()
        signal, noise = (values[t].float().view(-1, 1, 1, 1) for values in (self.chain.signal, self.chain.noise))
        return noise * x / (signal.square() * self.std**2 + noise.square())


SAMPLERS = {
    "ancestral": lambda: AncestralSampler(),
    "ancestral-small": lambda: AncestralSampler(variance="small"),
    "ddim": lambda: DDIMSampler(100),
    "ddim-noisy": lambda: DDIMSampler(50, eta=0.5),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_give_the_distribution_of_the_data(name: str) -> None:
    model = DDPM(PIXEL, Exact, lambda: CosineSchedule(200), sampler=SAMPLERS[name])
    torch.manual_seed(0)
    *_, last = model.states(20_000)
    assert last.mean().item() == pytest.approx(0, abs=0.01)
    assert last.std().item() == pytest.approx(0.25, abs=0.02)


def test_ddim_with_noise_is_the_ancestral_sampler_and_without_is_a_function() -> None:
    kept = torch.cumprod(1 - linear_rates(1000), 0).tolist()
    x, data = torch.randn(5, 1, 2, 2), torch.rand(5, 1, 2, 2)
    for now, then in ((999, 998), (700, 300), (1, 0), (500, 499)):
        stepped = []
        for sampler in (AncestralSampler(variance="small"), DDIMSampler(eta=1.0)):
            torch.manual_seed(now)
            stepped.append(sampler.step(x, data, kept[now], kept[then]))
        torch.testing.assert_close(stepped[0], stepped[1], rtol=1e-4, atol=1e-5)
        assert torch.equal(
            DDIMSampler().step(x, data, kept[now], kept[then]), DDIMSampler().step(x, data, kept[now], kept[then])
        )
    # Next to each other, large variances are the beta of the step; the last step adds nothing.
    torch.manual_seed(0)
    draws = AncestralSampler().step(torch.zeros(100_000), torch.zeros(100_000), kept[499], kept[498])
    assert draws.var().item() == pytest.approx(linear_rates(1000)[499].item(), rel=0.02)
    for sampler in (AncestralSampler(), DDIMSampler(eta=1.0)):
        torch.testing.assert_close(sampler.step(x, data, kept[0], 1.0), data, rtol=0, atol=1e-5)


def test_samplers_visit_what_they_are_asked_to() -> None:
    assert AncestralSampler().visited(4) == [4, 3, 2, 1]
    assert DDIMSampler(5).visited(100) == [100, 80, 60, 40, 20]
    assert DDIMSampler(1).visited(100) == [100]
    with pytest.raises(ValueError, match="a sampler of 50 steps needs a chain of as many, this one has 4; give fewer"):
        DDPM(PIXEL, dense, lambda: LinearSchedule(4, 0.1, 0.5), sampler=DDIMSampler)
    with pytest.raises(ValueError, match=r"eta must lie in 0\.\.1, got 2"):
        DDIMSampler(eta=2)
    for wrong in (lambda: AncestralSampler(variance="smal"), lambda: DDPM(PIXEL, dense, variance="smal")):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"variance must be large \(beta\) or small .*, got 'smal'"):
            wrong()
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        AncestralSampler(0)
    with pytest.raises(ValueError, match=r"0 < first <= last < 1, got 0\.5 and 0\.1"):
        LinearSchedule(4, 0.5, 0.1)
    with pytest.raises(ValueError, match="at least 2 steps, got 1"):
        CosineSchedule(1)


def test_inpainting_and_trajectory() -> None:
    model = DDPM((1, 8, 8), unet, lambda: CosineSchedule(8), sampler=lambda: DDIMSampler(4)).eval()
    images, known = torch.rand(3, 1, 8, 8), torch.arange(8) < 4
    completed = model.inpaint(images, known)
    assert torch.equal(completed[..., :4], images[..., :4])
    assert completed[..., 4:].isfinite().all()
    frames = list(model.trajectory(2))
    assert len(frames) == 5
    assert all(frame.images.min() >= 0 and frame.images.max() <= 1 for frame in frames)


def test_training_logs_no_bound_and_evaluation_does(tmp_path: Path) -> None:
    model = DDPM((1, 8, 8), unet, lambda: CosineSchedule(8), sampler=lambda: DDIMSampler(2))
    data = Synthetic(image_shape=(1, 8, 8), num_train=20, num_val=10, num_test=10, batch_size=10)
    run = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        default_root_dir=tmp_path,
    )
    run.fit(model, data)
    assert {name for name in run.callback_metrics if name.startswith("train/")} == {"train/loss"}
    assert {"val/loss", "val/elbo", "val/kl", "val/reconstruction", "val/bits_per_dim"} <= set(run.callback_metrics)
    results = run.test(model, data, verbose=False)[0]
    assert results["test/bits_per_dim"] == pytest.approx(-results["test/elbo"] / (64 * math.log(2)), rel=1e-5)
    assert results["test/elbo"] == pytest.approx(results["test/reconstruction"] - results["test/kl"], rel=1e-5)
    # L_simple is a mean over pixels: a network that says nothing has 1.
    assert DDPM((1, 8, 8), unet).objective(torch.rand(50, 1, 8, 8)).loss.mean().item() == pytest.approx(1, abs=0.1)


def test_a_test_passes_some_steps_or_all_through_the_network() -> None:
    for bound_steps, passes in ((None, 2 + 7), (1, 2 + 1), (5, 2 + 5)):  # 2: of L_simple and the step to pixels
        model = DDPM(
            (1, 8, 8), unet, lambda: CosineSchedule(8), bound_steps=bound_steps, sampler=lambda: DDIMSampler(2)
        )
        model.max_rows = 20
        rows: list[int] = []
        model.network.register_forward_hook(lambda _, inputs, __, rows=rows: rows.append(len(inputs[0])))
        with torch.no_grad():
            model.eval().measure("test", torch.rand(10, 1, 8, 8))
        assert sum(rows) == 10 * passes
        assert max(rows) <= 20
    for wrong in (0, 8):
        with pytest.raises(ValueError, match=rf"bound_steps must lie in 1\.\.7, or be left out .*, got {wrong}"):
            DDPM((1, 8, 8), unet, lambda: CosineSchedule(8), bound_steps=wrong, sampler=lambda: DDIMSampler(2))


# ---- guidance


def guided() -> ClassDDPM:
    torch.manual_seed(0)
    schedule = lambda: LinearSchedule(4, 0.1, 0.5)  # noqa: E731
    model = ClassDDPM((1, 2, 2), 3, guidance_scale=1.0, label_dropout=0.5, network=dense, schedule=schedule)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model.eval()


def test_guidance_scale() -> None:
    model = guided()
    x, t, classes = torch.randn(5, 1, 2, 2), torch.full((5,), 2), torch.tensor([0, 1, 2, 0, 1])

    def at(scale: float) -> Tensor:
        return model.guided_epsilon(x, t, GuidedClass(classes, torch.full((5,), scale)))

    told, untold = model.epsilon(x, t, classes), model.epsilon(x, t, torch.full((5,), 3))
    assert (told - untold).abs().min() > 1e-4
    assert torch.equal(at(1.0), told)
    assert torch.equal(model.guided_epsilon(x, t, classes), told)
    torch.testing.assert_close(at(0.0), untold)
    torch.testing.assert_close(at(3.0), untold + 3 * (told - untold))
    # Each sample may have a scale of its own.
    mixed = model.guided_epsilon(x, t, GuidedClass(classes, torch.tensor([0.0, 1.0, 0.0, 1.0, 2.0])))
    torch.testing.assert_close(mixed[[0, 2]], untold[[0, 2]])
    torch.testing.assert_close(mixed[[1, 3]], told[[1, 3]])


def test_some_training_images_do_not_tell_their_class() -> None:
    model, seen = guided(), []
    model.epsilon = lambda x, t, condition=None: seen.append(condition) or x  # type: ignore[method-assign, func-returns-value]
    images, classes = torch.rand(4000, 1, 2, 2), torch.arange(4000) % 3
    model.objective(images, classes)
    model.train().objective(images, classes)
    assert torch.equal(seen[0], classes)
    told = seen[1] != 3
    assert torch.equal(seen[1][told], classes[told])
    assert told.float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_conditions_of_a_user(tmp_path: Path) -> None:
    model = guided()
    condition = model.make_condition({"class": 2, "guidance": 2.5}, 3)
    assert condition.classes.tolist() == [2, 2, 2]
    assert condition.scale.tolist() == [2.5, 2.5, 2.5]
    assert model.make_condition({"class": 1}, 2).scale.tolist() == [1.0, 1.0]
    assert len(model.make_condition({"guidance": 0.0}, 5).classes) == 5
    with pytest.raises(ValueError, match=r"class must lie in 0\.\.2, got 3"):
        model.make_condition({"class": 3}, 1)
    with pytest.raises(ValueError, match="guidance must be a number from 0, got -1"):
        model.make_condition({"class": 1, "guidance": -1.0}, 1)
    with pytest.raises(ValueError, match="needs labels of at least 2 classes, the data has 0; use labelled data"):
        ClassDDPM((1, 2, 2), 0)
    with pytest.raises(ValueError, match=r"label_dropout must lie in 0\.\.1"):
        ClassDDPM((1, 2, 2), 3, label_dropout=1.0)
    run = pl.Trainer(
        logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu", max_epochs=0
    )
    run.fit(model, Synthetic(image_shape=(1, 2, 2), num_classes=3, num_train=6, num_val=2, num_test=2))
    run.save_checkpoint(tmp_path / "model.ckpt")
    words = ["sample", str(tmp_path / "model.ckpt"), "-n", "2", "-o", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*words, "--condition", "class=1", "guidance=2"]) == 0
    assert (tmp_path / "out" / "grid.png").is_file()
