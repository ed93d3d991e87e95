"""Discrete generators: estimates of their gradient against sums over all images, and a distribution that is learnt."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_gen.data import Arrays
from lit_gen.inference.enumeration import binary_states
from lit_gen.models import BGAN, R1, BoundarySeeking, DiscreteEstimator, FusedAdam, Hinge, PolicyGradient, Wasserstein
from lit_gen.models.adversarial_losses import AdversarialLossFactory, NonSaturating
from lit_gen.models.discrete_estimators import DiscreteEstimatorFactory
from lit_gen.networks import MLP, Network, Shape
from lit_gen.objectives.discrete import boundary_advantages, leave_one_out, pooled_boundary_advantages, score_surrogate
from tests.callbacks.tiny import trainer

PIXELS = 4
IMAGES = binary_states(PIXELS)
"""All sixteen, (16, 4)."""


def log_prob(parameters: Tensor) -> Tensor:
    """log g(x) of all images by the logits of their pixels, ``(16,)``."""
    return (IMAGES * parameters - torch.nn.functional.softplus(parameters)).sum(1)


def gradient(value: Tensor, parameters: Tensor) -> Tensor:
    return torch.autograd.grad(value, parameters)[0]


def setting(seed: int = 0) -> tuple[Tensor, Tensor]:
    """A generator of one z, and a discriminator's logits of all images."""
    torch.manual_seed(seed)
    return torch.randn(PIXELS, dtype=torch.float64, requires_grad=True), 2 * torch.randn(16, dtype=torch.float64)


def expected_estimate(
    estimator: DiscreteEstimator, loss: Any, parameters: Tensor, logits: Tensor, draws: int
) -> Tensor:
    """The mean of the estimated gradient over every tuple of draws, by their probabilities."""
    tuples = torch.tensor(list(product(range(16), repeat=draws))).T
    log_probs = log_prob(parameters)[tuples]
    surrogate = score_surrogate(log_probs, estimator.advantages(logits[tuples], loss))
    probability = log_probs.detach().sum(0).exp()
    assert probability.sum().item() == pytest.approx(1)
    return gradient((probability * surrogate).sum(), parameters)


@pytest.mark.parametrize("draws", [2, 3, 4])
@pytest.mark.parametrize("loss", [NonSaturating(), Wasserstein()])
def test_policy_gradient_has_no_bias_whatever_the_number_of_draws(draws: int, loss: Any) -> None:
    parameters, logits = setting()
    exact = gradient((log_prob(parameters).exp() * loss.generator(logits)).sum(), parameters)
    torch.testing.assert_close(expected_estimate(PolicyGradient(), loss, parameters, logits, draws), exact)


def test_reward_of_the_log_ratio_is_the_gradient_of_the_reverse_divergence() -> None:
    parameters, logits = setting(1)
    log_g = log_prob(parameters)
    target = torch.log_softmax((log_g + logits).detach(), 0)
    exact = gradient((log_g.exp() * (log_g - target)).sum(), parameters)
    found = expected_estimate(PolicyGradient("log_ratio"), NonSaturating(), parameters, logits, 3)
    torch.testing.assert_close(found, exact)


def boundary_gradient(parameters: Tensor, logits: Tensor) -> Tensor:
    """That of KL(p~ || g) with p~ = w g / alpha held fast, over all images."""
    log_g = log_prob(parameters)
    target = torch.softmax((log_g + logits).detach(), 0)
    return gradient((target * (target.log() - log_g)).sum(), parameters)


def test_boundary_seeking_tends_to_the_gradient_of_its_divergence() -> None:
    parameters, logits = setting(2)
    exact = boundary_gradient(parameters, logits)
    errors = [
        (expected_estimate(BoundarySeeking(), NonSaturating(), parameters, logits, draws) - exact).norm().item()
        for draws in (1, 2, 3, 4)
    ]
    assert errors[0] == pytest.approx(exact.norm().item()), "one draw says nothing"
    assert errors == sorted(errors, reverse=True)
    # By many draws: the bias is of order 1/M.
    many = torch.multinomial(log_prob(parameters).detach().exp(), 400_000, replacement=True).view(4000, 100)
    surrogate = score_surrogate(log_prob(parameters)[many], boundary_advantages(logits[many]))
    torch.testing.assert_close(gradient(surrogate.mean(), parameters), exact, rtol=0.03, atol=0.01)


def test_pooled_weights_tend_to_the_gradient_of_all_z_together() -> None:
    torch.manual_seed(5)
    table = torch.randn(3, PIXELS, dtype=torch.float64, requires_grad=True)
    logits = 2 * torch.randn(16, dtype=torch.float64)
    log_g = torch.stack([log_prob(parameters) for parameters in table])
    target = torch.softmax((log_g.detach() + logits).flatten(), 0).view_as(log_g)
    exact = gradient(-(target * log_g).sum(), table)
    # Batches of 90 z, 30 of each, and two draws of each of them.
    z = torch.arange(3).repeat(30)
    estimates = []
    for _ in range(500):
        log_g = torch.stack([log_prob(parameters) for parameters in table])
        draws = torch.multinomial(log_g.detach().exp(), 60, replacement=True).view(3, 30, 2).permute(2, 1, 0).flatten(1)
        advantages = pooled_boundary_advantages(logits[draws])
        estimates.append(gradient(score_surrogate(log_g[z, draws], advantages).mean(), table))
    torch.testing.assert_close(torch.stack(estimates).mean(0), exact, rtol=0.1, atol=0.01)
    # Each z counts by the mean weight of its images.
    within = torch.stack([boundary_gradient(parameters, logits) for parameters in table])
    alphas = torch.logsumexp(log_g.detach() + logits, 1).softmax(0)
    torch.testing.assert_close(within * alphas[:, None], exact)


def test_at_the_best_discriminator_boundary_seeking_is_maximum_likelihood() -> None:
    parameters, _ = setting(3)
    data = torch.softmax(torch.randn(16, dtype=torch.float64), 0)
    best = data.log() - log_prob(parameters).detach()
    # What the discriminator that minimises its loss says (Goodfellow et al. 2014, proposition 1).
    loss, logits = NonSaturating(), best.clone().requires_grad_()
    fakes = log_prob(parameters).detach().exp()
    slope = gradient((data * loss.real(logits) + fakes * loss.fake(logits)).sum(), logits)
    torch.testing.assert_close(slope, torch.zeros_like(slope))
    # The reweighted generator is the data, and its gradient that of the likelihood of the data.
    torch.testing.assert_close(torch.softmax(log_prob(parameters).detach() + best, 0), data)
    likelihood = gradient(-(data * log_prob(parameters)).sum(), parameters)
    torch.testing.assert_close(boundary_gradient(parameters, best), likelihood)


def test_nothing_moves_where_the_discriminator_sees_no_difference() -> None:
    flat = torch.full((5, 3), 1.7)
    for estimator in (BoundarySeeking(), BoundarySeeking(pooled=True), PolicyGradient(), PolicyGradient("log_ratio")):
        torch.testing.assert_close(estimator.advantages(flat, NonSaturating()), torch.zeros(5, 3))


def test_baseline_of_a_draw_is_the_mean_of_the_others() -> None:
    rewards = torch.tensor([[1.0, 0.0], [2.0, 4.0], [6.0, 8.0]])
    expected = torch.tensor([[1 - 4.0, 0 - 6.0], [2 - 3.5, 4 - 4.0], [6 - 1.5, 8 - 2.0]])
    torch.testing.assert_close(leave_one_out(rewards), expected)


class Table(Network):
    """A logit of its own for every binary image."""

    def __init__(self, input_shape: Shape, output_shape: Shape) -> None:
        super().__init__(input_shape, output_shape)
        self.values = nn.Parameter(torch.randn(16))

    def forward(self, x: Tensor) -> Tensor:
        places = (x.flatten(1).long() * torch.tensor([8, 4, 2, 1])).sum(1)
        return self.values[places][:, None]


def linear(input_shape: Shape, output_shape: Shape) -> MLP:
    return MLP(input_shape, output_shape, hidden_dims=[])


def wide(input_shape: Shape, output_shape: Shape) -> MLP:
    return MLP(input_shape, output_shape, hidden_dims=[32], activation="leaky_relu")


def tiny(estimator: DiscreteEstimatorFactory, num_samples: int, **options: Any) -> BGAN:
    torch.manual_seed(4)
    arguments: dict[str, Any] = {"generator": linear, "discriminator": Table, **options}
    return BGAN((1, 2, 2), 2, estimator=estimator, num_samples=num_samples, **arguments)


@pytest.mark.parametrize("estimator", [BoundarySeeking, PolicyGradient])
def test_the_loss_of_the_model_has_the_gradient_of_all_images(estimator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(estimator, 50)
    z = torch.tensor([[0.7, -1.2], [-0.4, 0.3]])
    monkeypatch.setattr(model, "sample_latents", lambda count, condition: z.repeat(count // 2, 1))
    loss = model.generator_loss(torch.zeros(20_000, 1, 2, 2)).mean()
    found = torch.autograd.grad(loss, list(model.generator.parameters()))

    exact = torch.zeros(())
    values = []
    for logits in model.generator(z).flatten(1).double():
        log_g, said = log_prob(logits), model.discriminator.values.double()
        values.append((log_g.exp() * NonSaturating().generator(said)).sum())
        target = torch.softmax(log_g + said, 0).detach()
        exact = exact + ((target * -log_g).sum() if estimator is BoundarySeeking else values[-1]) / 2
    expected = torch.autograd.grad(exact, list(model.generator.parameters()))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.006)
    # The value that is logged is the mean loss over the draws.
    assert loss.item() == pytest.approx(torch.stack(values).mean().item(), abs=0.01)
    assert model.discriminator.values.grad is None


def test_samples_are_draws_and_pixels_have_a_likelihood() -> None:
    model = tiny(BoundarySeeking, 2, ema_decay=0.5).eval()
    z = model.sample_latents(3)
    assert set(model.sample(500).unique().tolist()) == {0.0, 1.0}
    draws = torch.cat([model.generate(z) for _ in range(4000)]).view(-1, 3, 4).mean(0)
    torch.testing.assert_close(draws, torch.sigmoid(model.generator(z)).flatten(1).detach(), atol=0.03, rtol=0)
    assert model.generate(z).grad_fn is None
    every = IMAGES.view(16, 1, 1, 2, 2).float()
    torch.testing.assert_close(model.decode(z).log_prob(every).exp().sum(0), torch.ones(3))
    model.average.network.layers[-1].bias += 9
    assert (model.decode_images(z) > model.distribution(z).mean).all()


def correlated(count: int) -> Tensor:
    """Two columns that are alike in nine images of ten, and never both empty: ``(N, 4)``."""
    left = (torch.rand(count, 2) < 0.5).float()
    left[left.sum(1) == 0] = 1
    same = (torch.rand(count, 1) < 0.9).float()
    right = same * left + (1 - same) * left.flip(1)
    return torch.stack([left[:, 0], right[:, 0], left[:, 1], right[:, 1]], 1)


def distance(model: BGAN, images: Tensor) -> float:
    """Total variation between the samples and all images."""
    places = torch.tensor([8, 4, 2, 1])
    samples = model.sample(20_000).flatten(1)
    p, q = (torch.bincount((each.long() * places).sum(1), minlength=16) / len(each) for each in (images, samples))
    return 0.5 * (p - q).abs().sum().item()


def test_a_distribution_of_binary_images_is_learnt(tmp_path: Path) -> None:
    def adam(rate: float) -> Any:
        return lambda parameters: FusedAdam(parameters, lr=rate, betas=(0.5, 0.99))

    options = {"discriminator": wide, "generator_optimizer": adam(5e-3), "discriminator_optimizer": adam(1e-2)}
    model = tiny(lambda: BoundarySeeking(pooled=True), 10, generator=wide, ema_decay=0.98, **options)
    images = correlated(4000)
    before = distance(model, images)
    stored = (255 * images).view(-1, 1, 2, 2).to(torch.uint8).numpy()
    source = Arrays(images=stored, layout="NCHW", val_size=100, test_size=100, batch_size=200)
    trainer(tmp_path, max_epochs=-1, max_steps=500, limit_val_batches=0).fit(model, source)
    assert before > 0.4
    assert distance(model.eval(), images) < 0.12


@pytest.mark.parametrize("estimator", [BoundarySeeking, lambda: PolicyGradient("log_ratio")])
@pytest.mark.parametrize("loss", [Hinge, Wasserstein])
def test_ratios_are_those_of_a_cross_entropy(estimator: Any, loss: AdversarialLossFactory) -> None:
    with pytest.raises(ValueError, match=rf"needs the logit to be the log-ratio .* {loss.__name__} does not: take"):
        tiny(estimator, 4, loss=loss)
    assert tiny(PolicyGradient, 4, loss=loss, regularizer=R1).estimator.reward == "loss"


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="num_samples must be at least 2, got 1"):
        tiny(BoundarySeeking, 1)
    with pytest.raises(ValueError, match="reward must be loss or log_ratio, got 'likes'"):
        PolicyGradient("likes")  # type: ignore[arg-type]
