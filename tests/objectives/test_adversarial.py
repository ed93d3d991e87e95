"""Adversarial losses against closed forms, and penalties of critics whose gradient is known."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from lit_gen.models import (
    R1,
    AdversarialLoss,
    GradientPenalty,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Wasserstein,
)
from lit_gen.objectives.adversarial import between, cross_entropy, gradient_penalty, hinge, input_gradient, squared_norm

LOSSES = [Minimax, NonSaturating, LeastSquares, Hinge, Wasserstein]


@pytest.mark.parametrize("target", [0.0, 0.9, 1.0])
def test_cross_entropy_is_torchs(target: float) -> None:
    logits = torch.linspace(-20, 20, 9, dtype=torch.float64)
    expected = binary_cross_entropy_with_logits(logits, torch.full_like(logits, target), reduction="none")
    torch.testing.assert_close(cross_entropy(logits, target), expected)


def test_values_where_the_discriminator_knows_nothing() -> None:
    nothing = torch.zeros(3)
    expected = {Minimax: (2 * math.log(2), -math.log(2)), NonSaturating: (2 * math.log(2), math.log(2))}
    expected |= {LeastSquares: (0.5, 0.5), Hinge: (2.0, 0.0), Wasserstein: (0.0, 0.0)}
    for kind, (discriminator, generator) in expected.items():
        loss = kind()
        torch.testing.assert_close(loss.real(nothing) + loss.fake(nothing), torch.full((3,), discriminator))
        torch.testing.assert_close(loss.generator(nothing), torch.full((3,), generator))


def test_hinge_ends_at_the_margin() -> None:
    torch.testing.assert_close(hinge(torch.tensor([1.0, 1.5, 0.5]), 1.0), torch.tensor([0.0, 0.0, 0.5]))
    torch.testing.assert_close(hinge(torch.tensor([-1.0, -1.5, 0.5]), -1.0), torch.tensor([0.0, 0.0, 1.5]))


def slope(loss: AdversarialLoss, logit: float) -> float:
    """Derivative of the generator's loss by the logit, in float32."""
    logits = torch.tensor([logit], requires_grad=True)
    loss.generator(logits).sum().backward()
    assert logits.grad is not None
    return logits.grad.item()


@pytest.mark.parametrize("logit", [-30.0, -2.0, 0.0, 3.0])
def test_slopes_of_the_generators_losses(logit: float) -> None:
    probability = 1 / (1 + math.exp(-logit))
    assert slope(Minimax(), logit) == pytest.approx(-probability, rel=1e-5)
    # Not saturated: still -1 where log of a probability in float32 would have lost it.
    assert slope(NonSaturating(), logit) == pytest.approx(-(1 - probability), rel=1e-5)
    assert slope(LeastSquares(), logit) == pytest.approx(logit - 1)
    assert slope(Hinge(), logit) == slope(Wasserstein(), logit) == -1


P = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
Q = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


def trained_discriminator(loss: AdversarialLoss) -> tuple[Tensor, float]:
    """The best logit at each of four points for data ~ P and a generator ~ Q, and the loss there."""
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = (P * loss.real(logits) + Q * loss.fake(logits)).sum()
        value.backward()
        return value

    optimizer.step(closure)
    return logits.detach(), closure().item()


def test_best_discriminator_is_the_density_ratio_and_its_value_the_divergence() -> None:
    logits, value = trained_discriminator(NonSaturating())
    torch.testing.assert_close(logits, (P / Q).log(), rtol=0, atol=1e-5)
    mixture = (P + Q) / 2
    jensen_shannon = 0.5 * ((P * (P / mixture).log()).sum() + (Q * (Q / mixture).log()).sum()).item()
    # Theorem 1 of the paper: C(G) = -ln 4 + 2 JSD, and this is its negative.
    assert value == pytest.approx(math.log(4) - 2 * jensen_shannon, abs=1e-9)


def test_smoothed_labels_lower_the_ratio_on_the_real_side_alone() -> None:
    logits, _ = trained_discriminator(Minimax(real_target=0.9))
    # Salimans et al. 2016, section 3.4, with alpha = 0.9 and beta = 0.
    torch.testing.assert_close(logits.sigmoid(), 0.9 * P / (P + Q), rtol=0, atol=1e-6)
    logits, _ = trained_discriminator(LeastSquares(real_target=0.9))
    torch.testing.assert_close(logits, 0.9 * P / (P + Q), rtol=0, atol=1e-6)


def test_best_hinge_discriminator_is_a_sign() -> None:
    logits = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64, requires_grad=True)
    value = (P * Hinge().real(logits) + Q * Hinge().fake(logits)).sum()
    assert value.item() == pytest.approx(2 * torch.minimum(P, Q).sum().item())


@pytest.mark.parametrize("kind", [NonSaturating, Minimax, LeastSquares])
def test_labels_cannot_be_turned_over(kind: type[NonSaturating]) -> None:
    with pytest.raises(ValueError, match=r"real_target must lie above 0.5 .* got 0.1"):
        kind(real_target=0.1)


@pytest.mark.parametrize("length", [2.0, 1.0, 0.5])
def test_penalties_of_a_linear_critic(length: float) -> None:
    direction = torch.randn(3, 4, dtype=torch.float64)
    weights = (length * direction / direction.norm()).requires_grad_()
    real, fake = torch.randn(2, 5, 3, 4, dtype=torch.float64)

    def critic(images: Tensor) -> Tensor:
        return (images * weights).sum((1, 2))

    expected = 10 * (length - 1) ** 2
    penalty = GradientPenalty(10.0).penalty(critic, real, fake)
    torch.testing.assert_close(penalty, torch.full((5,), expected, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(penalty.mean(), weights)
    torch.testing.assert_close(gradient, 20 * (length - 1) * weights.detach() / length, atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(R1(10.0).penalty(critic, real, fake), torch.full_like(penalty, 5 * length**2))


def test_penalty_of_a_curved_critic_is_that_of_each_image() -> None:
    real = torch.randn(4, 6, dtype=torch.float64)

    def critic(images: Tensor) -> Tensor:
        return images.pow(3).sum(1) / 3

    gradient = input_gradient(critic, real)
    torch.testing.assert_close(gradient, real.square())
    torch.testing.assert_close(squared_norm(gradient), real.pow(4).sum(1))
    torch.testing.assert_close(gradient_penalty(gradient), (real.pow(4).sum(1).sqrt() - 1).square())


def test_gradient_penalty_of_a_flat_critic_has_a_finite_gradient() -> None:
    weights = torch.zeros(3, requires_grad=True)
    penalty = gradient_penalty(input_gradient(lambda images: images @ weights, torch.randn(4, 3)))
    penalty.sum().backward()
    assert weights.grad is not None
    assert weights.grad.isfinite().all()


def test_every_pair_has_a_weight_of_its_own() -> None:
    real, fake = torch.ones(3, 1, 2, 2), torch.zeros(3, 1, 2, 2)
    middle = between(real, fake, torch.tensor([0.0, 0.25, 1.0]))
    torch.testing.assert_close(middle.mean((1, 2, 3)), torch.tensor([0.0, 0.25, 1.0]))


@pytest.mark.parametrize("make", [lambda: GradientPenalty(0.0), lambda: R1(-1.0)])
def test_weights_of_penalties_are_positive(make: type[GradientPenalty]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        make()
