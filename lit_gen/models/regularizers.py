"""Regularizers of a discriminator, to be injected into a model."""

from abc import ABC
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lit_gen.networks import Recorded
from lit_gen.objectives.adversarial import Critic, between, gradient_penalty, input_gradient, squared_norm


class Regularizer(Recorded, ABC):
    """Keeps a discriminator smooth: by a penalty beside its loss, by what is done to its weights, or both."""

    differentiates_twice = False
    """Whether the penalty is a gradient itself: torch.compile cannot take the discriminator then."""
    images_alone = False
    """Whether the penalty takes each image by itself, so that no batch normalisation may mix them."""

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor | None:
        """What is added to the loss of the discriminator, ``(B,)``, weighted; None for nothing.

        Args:
            critic: the discriminator, without autocast.
            real: ``(B, C, H, W)``, as the discriminator sees them.
            fake: generated ones, of the same shape, without gradient.
        """
        return None

    def after_step(self, discriminator: nn.Module) -> None:
        """Called after each step of the discriminator's optimizer, without gradient."""


class GradientPenalty(Regularizer):
    """Gradients of length 1 between real and generated images: WGAN-GP (Gulrajani et al. 2017, equation 3).

    Args:
        weight: lambda of the paper.
    """

    differentiates_twice = True
    images_alone = True

    def __init__(self, weight: float = 10.0) -> None:
        self.weight = _positive("weight", weight)

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        weights = torch.rand(len(real), device=real.device, dtype=real.dtype)
        return self.weight * gradient_penalty(input_gradient(critic, between(real, fake, weights)))


class R1(Regularizer):
    """Small gradients at real images: gamma / 2 times their squared length (Mescheder et al. 2018, equation 9).

    Args:
        gamma: weight; the authors' program, with 10, leaves the half out, which is 20 here.
    """

    differentiates_twice = True

    def __init__(self, gamma: float = 10.0) -> None:
        self.gamma = _positive("gamma", gamma)

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        return 0.5 * self.gamma * squared_norm(input_gradient(critic, real))


class WeightClipping(Regularizer):
    """Weights cut off at a bound after each step: the critic of the first Wasserstein GAN (Arjovsky et al. 2017).

    Args:
        limit: largest magnitude of a parameter.
    """

    def __init__(self, limit: float = 0.01) -> None:
        self.limit = _positive("limit", limit)

    def after_step(self, discriminator: nn.Module) -> None:
        for parameter in discriminator.parameters():
            parameter.clamp_(-self.limit, self.limit)


RegularizerFactory = Callable[[], Regularizer]


def _positive(name: str, value: float) -> float:
    if value <= 0:
        raise ValueError(f"{name} must be positive, got {value}; leave the regularizer out to do without")
    return value
