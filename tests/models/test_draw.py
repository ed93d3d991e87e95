"""DRAW against its equations, pinned values and quadrature."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits

from lit_gen.models import DRAW, ConvDRAW, load_model
from lit_gen.models.drawing import Moments
from lit_gen.networks import (
    AttentiveReader,
    AttentiveWriter,
    ConvLSTMCell,
    ConvReader,
    ConvWriter,
    DiscretizedLogisticLikelihood,
    FullReader,
    FullWriter,
    GaussianLikelihood,
    Shape,
)
from tests.compiled import assert_a_compiled_step_is_the_step


def reading(size: int) -> Callable[[Shape, int], AttentiveReader]:
    return lambda shape, dim: AttentiveReader(shape, dim, size)


def writing(size: int) -> Callable[[Shape, Shape], AttentiveWriter]:
    return lambda hidden, canvas: AttentiveWriter(hidden, canvas, size)


def writing_maps(hidden: Shape, canvas: Shape) -> ConvWriter:
    return ConvWriter(hidden, canvas, channels=[])


def lively(model: DRAW) -> DRAW:
    """In float64, with weights large enough for every part to matter."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.double().eval()


def model(**arguments: Any) -> DRAW:
    return lively(DRAW((1, 5, 4), **{"steps": 3, "latent_dim": 2, "hidden_dim": 5, "reader": reading(3), **arguments}))


def images(count: int, shape: Shape = (1, 5, 4)) -> Tensor:
    return (torch.rand(count, *shape) > 0.5).double()


@pytest.mark.parametrize(
    ("shape", "arguments", "weights", "all_parameters"),
    [
        ((1, 28, 28), {}, 959_467, 960_763),
        ((1, 28, 28), {"reader": FullReader, "writer": FullWriter}, 2_749_400, 2_750_696),
        ((3, 54, 54), {"hidden_dim": 800, "reader": reading(12), "writer": writing(12)}, 11_285_442, 11_295_790),
        ((3, 32, 32), {"latent_dim": 200, "hidden_dim": 400, "reader": reading(5)}, 2_677_685, 2_681_557),
    ],
)
def test_sizes_of_the_paper(shape: Shape, arguments: dict[str, Any], weights: int, all_parameters: int) -> None:
    with torch.device("meta"):
        built = DRAW(shape, **arguments)
    counts = {name: parameter.numel() for name, parameter in built.named_parameters()}
    assert sum(counts.values()) == all_parameters
    assert sum(count for name, count in counts.items() if not name.startswith("initial")) == weights


def test_zero_weights() -> None:
    built = DRAW((1, 28, 28), steps=1, latent_dim=3, hidden_dim=4, reader=FullReader, writer=FullWriter)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.zero_()
    terms = built.objective((torch.rand(2, 1, 28, 28) > 0.5).float())
    assert terms.reconstruction is not None
    assert terms.kl is not None
    assert terms.reconstruction.tolist() == pytest.approx([-543.4274] * 2)
    assert terms.kl.tolist() == [0, 0]


def test_objective_follows_the_equations() -> None:
    drawing, x = model(), images(6)
    torch.manual_seed(1)
    terms = drawing.objective(x)
    torch.manual_seed(1)
    noise = torch.randn(6, 3, 2, dtype=torch.float64)
    reader, writer = drawing.reader, drawing.writer
    assert isinstance(reader, AttentiveReader)
    assert isinstance(writer, AttentiveWriter)
    bank = writer.filter_bank
    canvas = drawing.initial_canvas.expand(6, 1, 5, 4)
    encoder = drawing.encoder.start(drawing.initial_encoder, 6)
    decoder = drawing.decoder.start(drawing.initial_decoder, 6)
    kl = torch.zeros(6).double()
    for step in range(3):
        error = x - torch.sigmoid(canvas)
        window = reader.filter_bank.window(reader.linear(decoder.hidden))
        patches = [reader.filter_bank.read(part, window).flatten(1) for part in (x, error)]
        encoder = drawing.encoder(torch.cat([*patches, decoder.hidden], 1), encoder)
        mean, log_std = drawing.posterior_head(encoder.hidden).split(2, 1)
        decoder = drawing.decoder(mean + log_std.exp() * noise[:, step], decoder)
        numbers = writer.linear(decoder.hidden)
        canvas = canvas + bank.write(numbers[:, 5:].view(6, 1, 5, 5), bank.window(numbers[:, :5]))
        variance = (2 * log_std).exp()
        kl = kl + 0.5 * (mean.square() + variance - variance.log() - 1).sum(1)
    cross_entropy = binary_cross_entropy_with_logits(canvas, x, reduction="none").sum((1, 2, 3))
    torch.testing.assert_close(terms.reconstruction, -cross_entropy)
    torch.testing.assert_close(terms.kl, kl)
    torch.testing.assert_close(terms.loss, cross_entropy + kl)


def test_one_step_without_attention_is_a_vae() -> None:
    drawing, x = model(steps=1, reader=FullReader, writer=FullWriter), images(4)
    (step,) = drawing.unroll(torch.zeros(4, 1, 2).double(), x)
    seen = torch.cat([x, x - torch.sigmoid(drawing.initial_canvas)], 1).flatten(1)
    hidden = drawing.encoder(
        torch.cat([seen, drawing.initial_decoder.expand(4, 5)], 1),
        drawing.encoder.start(drawing.initial_encoder, 4),
    ).hidden
    assert step.posterior is not None
    torch.testing.assert_close(step.posterior.mean, drawing.posterior_head(hidden)[:, :2])
    assert step.read is step.write is None
    torch.testing.assert_close(drawing.decode(step.latent[:, None]).mean, torch.sigmoid(step.canvas))


def test_kl_of_each_step() -> None:
    drawn = model().infer(images(4), torch.randn(4, 3, 2).double())
    assert drawn.kl.shape == (3, 4)
    # A mean of 1/2 and a log standard deviation of -0.3, in one dimension.
    one = kl_divergence(Normal(0.5, math.exp(-0.3)), Normal(0.0, 1.0))
    assert one.item() == pytest.approx(0.19940582)
    drawing = model(latent_dim=1)
    with torch.no_grad():
        for parameter in drawing.posterior_head.parameters():
            parameter.zero_()
        bias = drawing.posterior_head.bias
        assert isinstance(bias, Tensor)
        bias.copy_(torch.tensor([0.5, -0.3]))
    kl = drawing.objective(images(2)).kl
    assert kl is not None
    assert kl.tolist() == pytest.approx([3 * 0.19940582] * 2)


def test_canvas_is_the_sum_of_writes() -> None:
    drawing, written = model(), []
    drawing.writer.register_forward_hook(lambda module, inputs, stroke: written.append(stroke.increment))
    canvases = [step.canvas for step in drawing.unroll(torch.randn(2, 3, 2).double())]
    for number, canvas in enumerate(canvases):
        torch.testing.assert_close(canvas, drawing.initial_canvas + sum(written[: number + 1]))


@pytest.mark.parametrize("kind", ["attention", "learned prior"])
def test_bounds_stay_below_quadrature_and_tighten(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "attention":
        drawing = lively(DRAW((1, 3, 2), 2, 1, 4, reading(2), writing(2)))
    else:
        drawing = lively(ConvDRAW((1, 2, 2), 2, 1, 3, lambda shape, dim: ConvReader(shape, dim, [2]), writing_maps))
    x = images(1, drawing.image_shape)
    # Both latents on a grid: what the decoder makes of standard normal noise, whatever the prior.
    axis = torch.linspace(-6, 6, 121).double()
    grid = torch.cartesian_prod(axis, axis).view(-1, *drawing.latent_shape)
    with torch.no_grad():
        joint = drawing.decode(grid).log_prob(x) + drawing.prior.log_prob(grid)
        truth = (torch.logsumexp(joint, 0) + 2 * torch.log(axis[1] - axis[0])).item()
        copies = x.expand(4000, *drawing.image_shape)
        one, elbo = drawing.lower_bound(copies), drawing.objective(copies).elbo
    assert elbo is not None
    # The same expectation, the one from draws of log q - log p, the other with the KL in closed form.
    error = math.sqrt((one.var() + elbo.var()).item() / 4000)
    assert one.mean().item() == pytest.approx(elbo.mean().item(), abs=4 * error)
    assert elbo.mean().item() + 4 * error < truth
    assert drawing.lower_bound(x, 20_000).item() == pytest.approx(truth, abs=0.05)


class Shifted(DRAW):
    """A prior that moves with the step, a decoder that is told the step's share of the condition."""

    def step_prior(self, step: int, hidden: Tensor, context: Any) -> Moments:
        prior = super().step_prior(step, hidden, context)
        return Moments(prior.mean + step, prior.log_std)

    def context(self, condition: Any) -> Any:
        return condition / 2

    def decoder_input(
        self, latent: Tensor, hidden: Tensor, canvas: Tensor, context: Any
    ) -> tuple[Tensor, Tensor | None]:
        return latent + context, torch.ones(len(latent), 1)


def test_posterior_draws_average_over_the_steps_before() -> None:
    """Against Gauss-Hermite quadrature over z_1."""
    made, x = model(steps=2, latent_dim=1), images(3)
    first, second = made.posterior_draws(x, 4000)
    assert first.shape == second.shape == (4000, 3, 1)
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(40))
    noise = torch.stack([nodes, torch.zeros_like(nodes)], 1)[:, :, None]
    for number, image in enumerate(x):
        means = made.infer(image.expand(40, 1, 5, 4), noise).posterior.mean
        exact = (weights * means[..., 0]).sum(1) / weights.sum()
        assert torch.allclose(first[:, number, 0], exact[0])
        spread = second[:, number, 0].std().item()
        assert spread > 0.01, "what was drawn before matters"
        assert second[:, number, 0].mean().item() == pytest.approx(exact[1].item(), abs=4 * spread / 4000**0.5)


def test_hooks_of_a_variant_reach_all_that_is_drawn() -> None:
    torch.manual_seed(0)
    plain = model()
    torch.manual_seed(0)
    shifted = lively(Shifted((1, 5, 4), 3, 2, 5, reading(3)))
    noise, condition = torch.randn(2, 3, 2).double(), torch.ones(2, 2).double()
    moved = noise + torch.arange(3).double()[:, None] + 0.5
    torch.testing.assert_close(shifted.decode(noise, condition).mean, plain.decode(moved).mean)
    frames = list(shifted.trajectory(2, condition))
    assert [frame.weights is None for frame in frames] == [True, False, False, False]


def test_trajectory_shows_canvases_and_windows() -> None:
    drawing, x = model(), images(2)
    torch.manual_seed(3)
    frames = list(drawing.trajectory(2))
    torch.manual_seed(3)
    steps = list(drawing.unroll(drawing.sample_latents(2)))
    assert len(frames) == 1 + len(steps) == 4
    assert frames[0].boxes is None
    torch.testing.assert_close(frames[0].images[0].double(), torch.sigmoid(drawing.initial_canvas), rtol=0, atol=1e-6)
    for frame, step in zip(frames[1:], steps, strict=True):
        assert step.write is not None
        assert frame.line_widths is not None
        torch.testing.assert_close(frame.boxes, step.write.boxes[:, None])
        torch.testing.assert_close(frame.line_widths[:, 0], step.write.std)
        torch.testing.assert_close(frame.images.double(), torch.sigmoid(step.canvas), rtol=0, atol=1e-6)
    for frame in list(drawing.reconstruction_trajectory(x))[1:]:
        assert frame.boxes is not None
        assert frame.boxes.shape == (2, 2, 4), "the window that was written to, and the one that was read from"


@pytest.mark.parametrize("likelihood", [GaussianLikelihood, DiscretizedLogisticLikelihood])
def test_colour_images_that_are_not_square(likelihood: Any) -> None:
    drawing, x = DRAW((3, 6, 9), 2, 2, 5, reading(3), likelihood=likelihood), torch.rand(2, 3, 6, 9)
    assert drawing.initial_canvas.shape == (6, 6, 9)
    assert drawing.error_image(x, torch.zeros(2, 6, 6, 9)).equal(x - 0.5)
    drawing.objective(x).loss.mean().backward()
    assert all(parameter.grad is not None for parameter in drawing.parameters())
    assert drawing.sample(2).shape == x.shape


def test_parts_are_replaceable_one_by_one() -> None:
    maps = DRAW((1, 8, 6), 2, 3, 5, ConvReader, ConvWriter, lambda i, s: ConvLSTMCell(i, s, 5))
    assert maps.latent_shape == (2, 3, 2, 2)
    assert maps.sample(2).shape == (2, 1, 8, 6)
    half = DRAW((1, 8, 6), 2, 3, 5, reading(3), FullWriter)
    steps = list(half.unroll(half.noise(2), images(2, (1, 8, 6)).float()))
    assert all(step.read is not None and step.write is None for step in steps)


def test_checkpoint_rebuilds_the_parts(tmp_path: Any) -> None:
    import lightning.pytorch as pl

    maps = DRAW((1, 8, 6), 2, 3, 5, ConvReader, ConvWriter, lambda i, s: ConvLSTMCell(i, s, 5))
    trainer = pl.Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    trainer.strategy.connect(maps)
    trainer.save_checkpoint(tmp_path / "maps.ckpt")
    loaded = load_model(tmp_path / "maps.ckpt")
    assert isinstance(loaded, DRAW)
    z = maps.noise(2)
    assert torch.equal(loaded.decode(z).mean, maps.decode(z).mean)


def test_bad_sizes() -> None:
    with pytest.raises(ValueError, match="steps, latent_dim and hidden_dim must be at least 1, got 0, 100 and 256"):
        DRAW((1, 8, 8), steps=0)


def conv_model() -> DRAW:
    return lively(ConvDRAW((1, 6, 8), steps=3, latent_dim=2, hidden_dim=4))


# torch hides this warning of its own by a filter that comes after the one of the tests.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize(("build", "shape"), [(model, (1, 5, 4)), (conv_model, (1, 6, 8))], ids=["DRAW", "ConvDRAW"])
def test_a_compiled_step_is_the_step(build: Callable[[], DRAW], shape: Shape) -> None:
    assert_a_compiled_step_is_the_step(build().train(), images(4, shape))
