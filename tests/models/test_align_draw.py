"""alignDRAW against its equations, published sizes, and DRAW."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from lit_gen.captions import Caption
from lit_gen.models import DRAW, AlignDRAW
from lit_gen.models.drawing import Moments
from lit_gen.networks import (
    AttentiveReader,
    AttentiveWriter,
    BidirectionalLSTM,
    ConvLSTMCell,
    ConvReader,
    ConvWriter,
    DiscretizedLogisticLikelihood,
    FixedSentence,
    Shape,
    SoftAlignment,
)
from tests.compiled import assert_a_compiled_step_is_the_step

VOCABULARY = ["<pad>", ".", "a", "cat", "dog", "sat"]
CAPTIONS = Caption(torch.tensor([[2, 3, 5, 1], [4, 1, 0, 0], [2, 4, 1, 0]]), torch.tensor([4, 2, 3]))


def reading(size: int) -> Callable[[Shape, int], AttentiveReader]:
    return lambda shape, dim: AttentiveReader(shape, dim, size)


def writing(size: int) -> Callable[[Shape, Shape], AttentiveWriter]:
    return lambda hidden, canvas: AttentiveWriter(hidden, canvas, size)


def lively(model: Any) -> Any:
    """In float64, with weights large enough for every part to matter."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.double().eval()


def model(**arguments: Any) -> AlignDRAW:
    sizes = {"steps": 3, "latent_dim": 2, "hidden_dim": 5, "reader": reading(3)}
    parts = {
        "sentence_encoder": lambda n: BidirectionalLSTM(n, 3),
        "sentence_reader": lambda w, s: SoftAlignment(w, s, 4),
    }
    return lively(AlignDRAW((1, 5, 4), VOCABULARY, **{**sizes, **parts, **arguments}))


def images(count: int, shape: Shape = (1, 5, 4)) -> Tensor:
    return (torch.rand(count, *shape) > 0.5).double()


@pytest.mark.parametrize(
    ("shape", "words", "grid", "hidden_dim", "latent_dim", "total", "of_words"),
    [
        ((1, 60, 60), 23, 8, 300, 150, 2_371_746, 23_552),
        ((3, 32, 32), 25_323, 9, 550, 275, 33_098_147, 25_930_752),
    ],
    ids=["mnist-captions", "coco"],
)
def test_sizes_of_the_paper(
    shape: Shape, words: int, grid: int, hidden_dim: int, latent_dim: int, total: int, of_words: int
) -> None:
    vocabulary = ["<pad>", *(str(number) for number in range(words - 1))]
    with torch.device("meta"):
        built = AlignDRAW(shape, vocabulary, (), 32, latent_dim, hidden_dim, reader=reading(grid), writer=writing(grid))
    counts = {name: parameter.numel() for name, parameter in built.named_parameters()}
    assert counts["sentence_encoder.word_gates.weight"] == of_words
    assert sum(counts.values()) == total


def test_kl_to_the_learned_prior_of_the_step_before() -> None:
    # The toy numbers: q = N(0.2, 0.8^2), p = N(-0.1, 1.3^2).
    assert kl_divergence(Normal(0.2, 0.8), Normal(-0.1, 1.3)).item() == pytest.approx(0.20148415)
    drawing, x = model(), images(3)
    noise = torch.randn(3, 3, 2).double()
    hiddens: list[Tensor] = []
    drawing.writer.register_forward_hook(lambda module, inputs, stroke: hiddens.append(inputs[0]))
    steps = list(drawing.unroll(noise, x, CAPTIONS))
    drawn = drawing.infer(x, noise, CAPTIONS)
    first = steps[0].prior
    assert not first.mean.any()
    assert not first.log_std.any()
    for number, step in enumerate(steps):
        if number:
            numbers = torch.tanh(hiddens[number - 1] @ drawing.prior_head.weight.T + drawing.prior_head.bias)
            torch.testing.assert_close(torch.cat(list(step.prior), 1), numbers)
        assert step.posterior is not None
        (mean, log_std), (prior_mean, prior_log_std) = step.posterior, step.prior
        ratio = ((mean - prior_mean).square() + (2 * log_std).exp()) / (2 * prior_log_std).exp()
        torch.testing.assert_close(drawn.kl[number], 0.5 * (ratio - 1 - 2 * log_std + 2 * prior_log_std).sum(1))
    torch.manual_seed(0)
    terms = drawing.objective(x, CAPTIONS)
    torch.manual_seed(0)
    again = drawing.infer(x, drawing.noise(3), CAPTIONS)
    torch.testing.assert_close(terms.kl, again.kl.sum(0))


def test_standard_deviation_of_the_prior_is_bounded() -> None:
    drawing = model()
    with torch.no_grad():
        drawing.prior_head.weight.mul_(1e3)
    std = drawing.step_prior(1, torch.randn(50, 5).double(), None).log_std.exp()
    assert std.min().item() == pytest.approx(0.36787944)
    assert std.max().item() == pytest.approx(2.71828183)


def test_decoder_takes_latent_and_aligned_words() -> None:
    drawing, noise = model(), torch.randn(3, 3, 2).double()
    sentence = drawing.sentence_encoder(*CAPTIONS)
    prepared = drawing.sentence_reader.prepare(sentence)
    state = drawing.decoder.start(drawing.initial_decoder, 3)
    for number, step in enumerate(drawing.unroll(noise, condition=CAPTIONS)):
        vector, weights = drawing.sentence_reader(prepared, state.hidden)
        torch.testing.assert_close(step.weights, weights)
        mean, log_std = drawing.step_prior(number, state.hidden, None)
        state = drawing.decoder(torch.cat([mean + log_std.exp() * noise[:, number], vector], 1), state)
        torch.testing.assert_close(step.latent, mean + log_std.exp() * noise[:, number])


class LearnedPrior(DRAW):
    """DRAW with a prior learned as in alignDRAW, and no captions."""

    prior_head: torch.nn.Linear

    def step_prior(self, step: int, hidden: Tensor, context: Any) -> Moments:
        return (
            super().step_prior(step, hidden, context)
            if step == 0
            else Moments(*self.prior_head(hidden).tanh().chunk(2, 1))
        )


@pytest.mark.parametrize("pooling", [None, "last", "mean"])
def test_deaf_to_words_it_is_draw_with_a_learned_prior(pooling: Any) -> None:
    other: dict[str, Any] = {} if pooling is None else {"sentence_reader": lambda w, s: FixedSentence(w, s, pooling)}
    ours = model(**other)
    with torch.no_grad():
        ours.decoder.linear.weight[:, 2 : 2 + 6] = 0
    draw = LearnedPrior((1, 5, 4), 3, 2, 5, reading(3))
    draw.prior_head = torch.nn.Linear(5, 4)
    draw = draw.double().eval()
    weights = {name: value for name, value in ours.state_dict().items() if not name.startswith("sentence")}
    kept = ours.decoder.linear.weight
    weights["decoder.linear.weight"] = torch.cat([kept[:, :2], kept[:, 8:]], 1)
    draw.load_state_dict(weights)
    x, z = images(3), torch.randn(3, 3, 2).double()
    torch.testing.assert_close(ours.decode(z, CAPTIONS).mean, draw.decode(z).mean)
    for seed, run in ((1, lambda m, c: m.objective(x, c).loss), (2, lambda m, c: m.lower_bound(x, 4, c))):
        found = []
        for one, condition in ((ours, CAPTIONS), (draw, None)):
            torch.manual_seed(seed)
            found.append(run(one, condition))
        torch.testing.assert_close(*found)


def test_padding_and_company_change_nothing() -> None:
    drawing, x, noise = model(), images(3), torch.randn(3, 3, 2).double()
    longer = Caption(torch.cat([CAPTIONS.tokens, torch.full((3, 2), 3)], 1), CAPTIONS.lengths)
    wanted = drawing.infer(x, noise, CAPTIONS)
    torch.testing.assert_close(drawing.infer(x, noise, longer).canvas, wanted.canvas)
    alone = Caption(CAPTIONS.tokens[1:2, :2], CAPTIONS.lengths[1:2])
    torch.testing.assert_close(drawing.infer(x[1:2], noise[1:2], alone).canvas, wanted.canvas[1:2])
    other = Caption(CAPTIONS.tokens.roll(1, 0), CAPTIONS.lengths.roll(1, 0))
    assert not torch.allclose(drawing.infer(x, noise, other).canvas, wanted.canvas), "captions must matter"


def test_gradients_reach_words_that_are_there_and_no_others() -> None:
    drawing = model()
    drawing.objective(images(3), CAPTIONS).loss.mean().backward()
    gradient = drawing.sentence_encoder.word_gates.weight.grad
    assert gradient is not None
    forwards, backwards = gradient.abs().sum(1).split(len(VOCABULARY))
    for rows in (forwards, backwards):
        assert not rows[0], "padding learns nothing"
        assert rows[1:].all()
    assert all(parameter.grad is not None for parameter in drawing.parameters())


def test_trajectory_shows_the_weights_of_the_words() -> None:
    frames = list(model().trajectory(3, CAPTIONS))
    assert frames[0].weights is None
    for frame in frames[1:]:
        assert frame.weights is not None
        assert frame.boxes is not None
        torch.testing.assert_close(frame.weights.sum(1), torch.ones(3).double())
        assert not frame.weights[~CAPTIONS.mask].any()
    assert all(frame.weights is None for frame in model(sentence_reader=FixedSentence).trajectory(3, CAPTIONS))


def test_bound_stays_below_quadrature_and_tightens() -> None:
    drawing = lively(AlignDRAW((1, 3, 2), VOCABULARY, (), 2, 1, 4, 0.0, reading(2), writing(2)))
    x, one = images(1, (1, 3, 2)), Caption(CAPTIONS.tokens[:1], CAPTIONS.lengths[:1])
    axis = torch.linspace(-6, 6, 121).double()
    grid = torch.cartesian_prod(axis, axis).view(-1, 2, 1)

    def captions(count: int) -> Caption:
        return Caption(*(part.expand(count, *part.shape[1:]) for part in one))

    with torch.no_grad():
        joint = drawing.decode(grid, captions(len(grid))).log_prob(x) + drawing.prior.log_prob(grid)
        truth = (torch.logsumexp(joint, 0) + 2 * torch.log(axis[1] - axis[0])).item()
        elbo = drawing.objective(x.expand(2000, 1, 3, 2), captions(2000)).elbo
    assert elbo.mean().item() + 4 * elbo.std().item() / 2000**0.5 < truth
    assert drawing.lower_bound(x, 10_000, one).item() == pytest.approx(truth, abs=0.05)


def test_bad_values() -> None:
    with pytest.raises(ValueError, match="the data has none; use CaptionedDigits"):
        AlignDRAW((1, 8, 8), [])
    with pytest.raises(ValueError, match="the states here are maps"):
        AlignDRAW((1, 8, 8), VOCABULARY, reader=ConvReader, writer=ConvWriter, cell=ConvLSTMCell)
    with pytest.raises(ValueError, match="must be captions, got None"):
        model().decode(torch.zeros(1, 3, 2).double())


def test_the_canvas_starts_dark_and_its_scale_does_not() -> None:
    dark = AlignDRAW(
        (1, 5, 4), VOCABULARY, steps=1, latent_dim=2, hidden_dim=5, canvas_start=-3.0,
        likelihood=DiscretizedLogisticLikelihood,
    )  # fmt: skip
    assert dark.initial_canvas.shape[0] == 2
    assert (dark.initial_canvas[0] == -3).all()
    assert (dark.initial_canvas[1] == 0).all()
    brighter = dark.initial_canvas.detach().clone()
    brighter[0] += 1
    likelihood = dark.likelihood
    means = [likelihood.distribution(canvas[None]).mean for canvas in (dark.initial_canvas.detach(), brighter)]
    assert (means[1] > means[0]).all(), "the first plane is that of the mean"


# torch hides this warning of its own by a filter that comes after the one of the tests.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_compiled_step_is_the_step() -> None:
    assert_a_compiled_step_is_the_step(model().train(), images(3), CAPTIONS)
