"""Estimators of the gradient of a generator whose samples are discrete: what :class:`~lit_gen.models.BGAN` learns by.

Hjelm et al. 2018, Boundary-seeking generative adversarial networks (https://arxiv.org/abs/1702.08431).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

from torch import Tensor

from lit_gen.models.adversarial_losses import AdversarialLoss, NonSaturating
from lit_gen.networks import Recorded
from lit_gen.objectives.discrete import boundary_advantages, leave_one_out, pooled_boundary_advantages

Reward = Literal["loss", "log_ratio"]


class DiscreteEstimator(Recorded, ABC):
    """How much the gradient of log g(x given z) of each of several samples counts."""

    @abstractmethod
    def advantages(self, logits: Tensor, loss: AdversarialLoss) -> Tensor:
        """Of samples with these logits of the discriminator, M for each z: ``(M, B) -> (M, B)``, without gradient."""

    def check(self, loss: AdversarialLoss) -> None:
        """Refuse a loss whose discriminator says nothing that the estimator could use.

        Raises:
            ValueError: it is such a loss.
        """


class BoundarySeeking(DiscreteEstimator):
    """Importance weights from the discriminator, which lead to where it finds nothing (Hjelm et al. 2018).

    KL(p~ || g) is minimised, where p~ is the generator reweighted by D / (1 - D).

    Args:
        pooled: weigh the draws of all z of a batch together (or of a part of it, with ``micro_batches``), so that a z
            whose images are rare counts more: fewer of them get lost, with more noise in the gradient. If not, those of
            each z by themselves, as the paper's experiments do.
    """

    def __init__(self, pooled: bool = False) -> None:
        self.pooled = pooled

    def advantages(self, logits: Tensor, loss: AdversarialLoss) -> Tensor:
        return pooled_boundary_advantages(logits) if self.pooled else boundary_advantages(logits)

    def check(self, loss: AdversarialLoss) -> None:
        _estimates_ratio("BoundarySeeking", loss)


class PolicyGradient(DiscreteEstimator):
    """The plain score-function estimator (REINFORCE), each sample against the mean of the others of the same z.

    Args:
        reward: ``loss``: minus the generator's loss, whatever it is; ``log_ratio``: the logit, log D / (1 - D), which
            gives the gradient of KL(g || p~) (Hjelm et al. 2018, equation 13).
    """

    def __init__(self, reward: Reward = "loss") -> None:
        if reward not in ("loss", "log_ratio"):
            raise ValueError(f"reward must be loss or log_ratio, got {reward!r}")
        self.reward = reward

    def advantages(self, logits: Tensor, loss: AdversarialLoss) -> Tensor:
        return leave_one_out(logits if self.reward == "log_ratio" else -loss.generator(logits))

    def check(self, loss: AdversarialLoss) -> None:
        if self.reward == "log_ratio":
            _estimates_ratio("the reward log_ratio", loss)


def _estimates_ratio(what: str, loss: AdversarialLoss) -> None:
    if not isinstance(loss, NonSaturating):
        raise ValueError(
            f"{what} needs the logit to be the log-ratio of the densities, which the cross-entropy of NonSaturating and"
            f" Minimax makes it, and {type(loss).__name__} does not: take one of these, or PolicyGradient with the"
            " reward loss"
        )


DiscreteEstimatorFactory = Callable[[], DiscreteEstimator]
