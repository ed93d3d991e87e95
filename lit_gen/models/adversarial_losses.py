"""Losses of adversarial networks, to be injected into a model: what either side minimises."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from lit_gen.networks import Recorded
from lit_gen.objectives.adversarial import cross_entropy, hinge, least_squares


class AdversarialLoss(Recorded, ABC):
    """Losses of single images, ``(B,)`` each, by their logits ``(B,)``.

    The discriminator minimises the mean of :meth:`real` plus that of :meth:`fake`, the generator that of
    :meth:`generator`.
    """

    @abstractmethod
    def real(self, logits: Tensor) -> Tensor:
        """The discriminator's, of images."""

    @abstractmethod
    def fake(self, logits: Tensor) -> Tensor:
        """The discriminator's, of generated images."""

    @abstractmethod
    def generator(self, logits: Tensor) -> Tensor:
        """The generator's."""


class NonSaturating(AdversarialLoss):
    """The generator maximises log D, which has a gradient where the discriminator is sure (Goodfellow et al. 2014).

    Args:
        real_target: what D shall say of images; 0.9 smooths their labels, and theirs alone (Salimans et al. 2016,
            https://arxiv.org/abs/1606.03498, section 3.4).
    """

    def __init__(self, real_target: float = 1.0) -> None:
        self.real_target = _target(real_target)

    def real(self, logits: Tensor) -> Tensor:
        return cross_entropy(logits, self.real_target)

    def fake(self, logits: Tensor) -> Tensor:
        return cross_entropy(logits, 0.0)

    def generator(self, logits: Tensor) -> Tensor:
        return cross_entropy(logits, 1.0)


class Minimax(NonSaturating):
    """The generator minimises log(1 - D): the two-player game itself (Goodfellow et al. 2014, equation 1).

    At the optimal discriminator this is the Jensen-Shannon divergence; the gradient vanishes as the discriminator wins.

    Args:
        real_target: what D shall say of images; below 1 smooths their labels.
    """

    def generator(self, logits: Tensor) -> Tensor:
        return -cross_entropy(logits, 0.0)


class LeastSquares(AdversarialLoss):
    """Squared distances from the targets 1 and 0, and from 1 for the generator (Mao et al. 2017, equation 9).

    Args:
        real_target: what the discriminator shall give for images; below 1 smooths their labels.
    """

    def __init__(self, real_target: float = 1.0) -> None:
        self.real_target = _target(real_target)

    def real(self, logits: Tensor) -> Tensor:
        return least_squares(logits, self.real_target)

    def fake(self, logits: Tensor) -> Tensor:
        return least_squares(logits, 0.0)

    def generator(self, logits: Tensor) -> Tensor:
        return least_squares(logits, 1.0)


class Hinge(AdversarialLoss):
    """Margins of 1 for the discriminator, the bare logit for the generator (Lim & Ye 2017; Miyato et al. 2018)."""

    def real(self, logits: Tensor) -> Tensor:
        return hinge(logits, 1.0)

    def fake(self, logits: Tensor) -> Tensor:
        return hinge(logits, -1.0)

    def generator(self, logits: Tensor) -> Tensor:
        return -logits


class Wasserstein(AdversarialLoss):
    """Differences of bare logits: the earth mover's distance if the critic is 1-Lipschitz (Arjovsky et al. 2017).

    Nothing here makes it so: take a regularizer beside it (:class:`GradientPenalty`, :class:`WeightClipping`) or
    spectral normalisation.
    """

    def real(self, logits: Tensor) -> Tensor:
        return -logits

    def fake(self, logits: Tensor) -> Tensor:
        return logits

    def generator(self, logits: Tensor) -> Tensor:
        return -logits


AdversarialLossFactory = Callable[[], AdversarialLoss]


def _target(value: float) -> float:
    if not 0.5 < value <= 1:
        raise ValueError(f"real_target must lie above 0.5 and be at most 1 (0.9 smooths labels), got {value}")
    return value
