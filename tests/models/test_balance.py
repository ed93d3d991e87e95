"""The balancing rule of DeePSiM as a machine of states."""

from typing import Any

import pytest
import torch

from lit_gen.models import (
    DeePSiM,
    Equilibrium,
    ErrorBalance,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    RatioBalance,
    Wasserstein,
)
from lit_gen.models.adversarial import Turns

BOTH, GENERATOR, DISCRIMINATOR = Turns(True, True), Turns(False, True), Turns(True, False)


def play(rule: RatioBalance, *ratios: float) -> list[Turns]:
    # Any split of the discriminator's loss, and any scale of all losses.
    return [rule.turns(0.25 * ratio * scale, 0.75 * ratio * scale, scale) for ratio, scale in zip(ratios, (2, 7, 1, 3))]


@pytest.mark.parametrize(
    ("ratios", "turns"),
    [
        ([0.3], [BOTH]),
        ([0.05], [GENERATOR]),
        ([0.05, 0.3], [GENERATOR, GENERATOR]),
        ([0.05, 0.6], [GENERATOR, BOTH]),
        ([0.05, 0.6, 0.3, 0.05], [GENERATOR, BOTH, BOTH, GENERATOR]),
        ([11.0], [DISCRIMINATOR]),
        # Nothing but its own pause resumes the generator.
        ([11.0, 5.0, 0.3, 0.05], [DISCRIMINATOR, DISCRIMINATOR, DISCRIMINATOR, GENERATOR]),
        ([0.05, 11.0], [GENERATOR, DISCRIMINATOR]),
    ],
)
def test_the_published_machine(ratios: list[float], turns: list[Turns]) -> None:
    assert play(RatioBalance(), *ratios) == turns


def test_who_is_paused_is_part_of_its_state() -> None:
    rule, other = RatioBalance(), RatioBalance()
    play(rule, 0.05)
    other.load_state_dict(rule.state_dict())
    assert play(other, 0.3) == [GENERATOR]


def test_a_generator_loss_of_zero_is_an_infinite_ratio() -> None:
    assert RatioBalance().turns(0.1, 0.1, 0.0) == DISCRIMINATOR


def test_thresholds_are_checked() -> None:
    with pytest.raises(ValueError, match=r"needs 0 < pause < resume < ahead, got 0\.6, 0\.5 and 10\.0"):
        RatioBalance(pause=0.6)
    assert torch.equal(RatioBalance().training_now, torch.tensor([True, True]))


@pytest.mark.parametrize("rule", [Equilibrium, ErrorBalance, RatioBalance])
@pytest.mark.parametrize("loss", [NonSaturating, Minimax, LeastSquares, Hinge, Wasserstein])
def test_losses_that_say_nothing_to_a_rule_are_refused(rule: Any, loss: Any) -> None:
    refused = {RatioBalance: (Minimax, Hinge, Wasserstein)}.get(rule, (Wasserstein,))
    if loss in refused:
        with pytest.raises(ValueError, match=f"{rule.__name__} .* {loss.__name__}"):
            rule().check(loss())
        with pytest.raises(ValueError, match=f"{rule.__name__} .* {loss.__name__}"):
            DeePSiM((1, 8, 8), loss=loss, balance=rule)
    else:
        rule().check(loss())
    # A discriminator that is not there needs no rule.
    assert DeePSiM((1, 8, 8), loss=loss, balance=rule, adversarial_weight=0).balance is None
