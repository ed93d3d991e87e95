"""Rules that say which of two adversarial networks is to be trained next, to be injected into a model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lit_gen.models.adversarial import AdversarialModel, Piece, Turns
from lit_gen.models.adversarial_losses import AdversarialLoss, LeastSquares, Minimax, NonSaturating, Wasserstein
from lit_gen.networks import Recorded, build


class BalancingRule(Recorded, ABC):
    """Lets a network that is far ahead wait for the other."""

    remembers = False
    """Whether who is updated depends on batches before: such a rule serves one pair of networks alone."""

    @abstractmethod
    def turns(self, real_error: float, fake_error: float, generator_error: float) -> Turns:
        """Who is updated.

        Args:
            real_error: mean loss of the discriminator on images of a batch, before any update on it.
            fake_error: the same on generated ones.
            generator_error: mean adversarial loss of the generator on them.
        """

    def check(self, loss: AdversarialLoss) -> None:
        """Refuse a loss whose values say nothing to the rule.

        Raises:
            ValueError: it is such a loss.
        """
        if isinstance(loss, Wasserstein):
            raise ValueError(
                f"{type(self).__name__} compares errors of the discriminator with fixed numbers, and those of"
                " Wasserstein have neither a least value nor a scale: leave out --model.balance, or take another loss"
            )


class Equilibrium(BalancingRule):
    """The rule in the program of Larsen et al. 2016: both errors are to stay near that of a coin, log 2.

    The discriminator waits where either of its errors is below the equilibrium by more than the margin, the generator
    where either is above it by more than that; where both would have to wait, both are updated.

    Args:
        center: nats of the error at the equilibrium.
        margin: nats by which errors may be off.
    """

    def __init__(self, center: float = 0.68, margin: float = 0.35) -> None:
        if center <= 0 or margin < 0:
            raise ValueError(f"center must be positive and margin at least 0, got {center} and {margin}")
        self.center = center
        self.margin = margin

    def turns(self, real_error: float, fake_error: float, generator_error: float) -> Turns:
        ahead = min(real_error, fake_error) < self.center - self.margin
        behind = max(real_error, fake_error) > self.center + self.margin
        return Turns(discriminator=not ahead or behind, generator=not behind or ahead)


class ErrorBalance(BalancingRule):
    """The rule of Denton et al. 2015 for their large images, as the authors' program has it.

    The discriminator alone is updated where it errs more on generated images than on real ones, by more than a margin;
    otherwise the generator is, and the discriminator with it only where its error on real images is large.

    As published, a discriminator that has learned nothing yet (both errors near log 2) waits: a generator that cannot
    move its logits leaves it so. Discriminators with small initial weights stall in this way.

    Args:
        margin: nats by which the error on generated images may be the larger one.
        ceiling: nats of the error on real images above which the discriminator is updated in any case.
    """

    def __init__(self, margin: float = 0.3, ceiling: float = 0.7) -> None:
        if margin < 0 or ceiling <= 0:
            raise ValueError(f"margin must be at least 0 and ceiling positive, got {margin} and {ceiling}")
        self.margin = margin
        self.ceiling = ceiling

    def turns(self, real_error: float, fake_error: float, generator_error: float) -> Turns:
        behind = fake_error > real_error + self.margin
        return Turns(discriminator=behind or real_error > self.ceiling, generator=not behind)


class RatioBalance(BalancingRule, nn.Module):
    """The rule of Dosovitskiy & Brox 2016, as published programs have it: a network that wins is paused.

    The ratio of the discriminator's loss (both parts) to the adversarial loss of the generator decides. Below ``pause``
    the discriminator is paused, until the ratio rises above ``resume``; above ``ahead`` the generator is paused, until
    the discriminator is so good that it is paused itself. Both begin in training, and a checkpoint knows who is paused.
    The losses must be positive, as those of ``NonSaturating`` and ``LeastSquares`` are.

    Args:
        pause: ratio below which the discriminator is paused.
        resume: ratio above which a paused discriminator trains again, and both do.
        ahead: ratio above which the generator is paused.

    Raises:
        ValueError: not 0 < pause < resume < ahead.
    """

    remembers = True
    training_now: Tensor
    """(2,) bool: the discriminator, the generator."""

    def __init__(self, pause: float = 0.1, resume: float = 0.5, ahead: float = 10.0) -> None:
        super().__init__()
        if not 0 < pause < resume < ahead:
            raise ValueError(f"RatioBalance needs 0 < pause < resume < ahead, got {pause}, {resume} and {ahead}")
        self.pause = pause
        self.resume = resume
        self.ahead = ahead
        self.register_buffer("training_now", torch.tensor([True, True]))

    def check(self, loss: AdversarialLoss) -> None:
        if isinstance(loss, Minimax) or not isinstance(loss, NonSaturating | LeastSquares):
            raise ValueError(
                f"RatioBalance divides by the generator's loss, which {type(loss).__name__} lets fall below zero: take"
                " NonSaturating or LeastSquares, or another balance"
            )

    def turns(self, real_error: float, fake_error: float, generator_error: float) -> Turns:
        discriminator, generator = self.training_now.tolist()
        ratio = (real_error + fake_error) / max(generator_error, 1e-12)
        if ratio < self.pause and discriminator:
            discriminator, generator = False, True
        elif ratio > self.resume and not discriminator:
            discriminator, generator = True, True
        # In the order of the program: who has just been resumed may be paused at once.
        if ratio > self.ahead and generator:
            discriminator, generator = True, False
        self.training_now.copy_(torch.tensor([discriminator, generator]))
        return Turns(discriminator, generator)


BalancingRuleFactory = Callable[[], BalancingRule]


def build_balance(make: BalancingRuleFactory | None, loss: AdversarialLoss) -> BalancingRule | None:
    """A rule for this loss, or None for none.

    Raises:
        ValueError: the values of the loss say nothing to the rule.
    """
    if make is None:
        return None
    rule = build(make)
    rule.check(loss)
    return rule


class Balanced(AdversarialModel):
    """An adversarial model of which one network waits for the other by a rule, where it has one.

    A subclass builds both attributes.
    """

    loss: AdversarialLoss
    balance: BalancingRule | None

    def turns(self, pieces: Sequence[Piece], generator_turn: bool) -> Turns:
        if self.balance is None:
            return super().turns(pieces, generator_turn)
        return balanced_turns(self.balance, self, self.loss, pieces, generator_turn)

    def takes_critic(self) -> bool:
        return self.balance is None  # rules compare losses that a critic does not have


@torch.no_grad()
def balanced_turns(
    rule: BalancingRule, model: AdversarialModel, loss: AdversarialLoss, pieces: Sequence[Piece], generator_turn: bool
) -> Turns:
    """Who is updated by a rule, the same in all processes: what :meth:`AdversarialModel.turns` returns.

    Args:
        rule: of the model.
        model: attached to a trainer.
        loss: of the model.
        pieces: of the batch, with generated images.
        generator_turn: whether it would be the generator's turn.
    """
    errors = torch.zeros(3, device=model.device)
    for piece in pieces:
        assert piece.fakes is not None
        terms = model.discriminator_loss(piece.images, piece.fakes, piece.condition)
        real, fake = terms.real_logit, terms.fake_logit
        parts = [loss.real(real).mean(), loss.fake(fake).mean(), loss.generator(fake).mean()]
        errors += piece.share * torch.stack(parts)
    turns = rule.turns(*model.trainer.strategy.reduce(errors, reduce_op="mean").tolist())
    return Turns(turns.discriminator, turns.generator and generator_turn)
