"""Rules that say which of two adversarial networks is to be trained next, to be injected into a model."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from lit_gen.models.adversarial import Turns
from lit_gen.networks import Recorded


class BalancingRule(Recorded, ABC):
    """Lets a network that is far ahead wait for the other."""

    @abstractmethod
    def turns(self, real_error: float, fake_error: float) -> Turns:
        """Who is updated.

        Args:
            real_error: mean loss of the discriminator on images of a batch, before any update on it.
            fake_error: the same on generated ones.
        """


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

    def turns(self, real_error: float, fake_error: float) -> Turns:
        behind = fake_error > real_error + self.margin
        return Turns(discriminator=behind or real_error > self.ceiling, generator=not behind)


BalancingRuleFactory = Callable[[], BalancingRule]
