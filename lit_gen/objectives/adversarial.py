"""Objectives of adversarial networks, on logits, one value per image.

Goodfellow et al. 2014, Generative adversarial networks (https://arxiv.org/abs/1406.2661); Mao et al. 2017, Least
squares generative adversarial networks (https://arxiv.org/abs/1611.04076); Arjovsky et al. 2017, Wasserstein GAN
(https://arxiv.org/abs/1701.07875); Gulrajani et al. 2017, Improved training of Wasserstein GANs
(https://arxiv.org/abs/1704.00028); Mescheder et al. 2018, Which training methods for GANs do actually converge?
(https://arxiv.org/abs/1801.04406).

A probability D = sigmoid(logit) never appears: where the discriminator is sure, it would leave no gradient.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

Critic = Callable[[Tensor], Tensor]
"""Images ``(B, ...)`` to logits ``(B,)``."""


class DiscriminatorTerms(NamedTuple):
    """What a discriminator says of a batch."""

    loss: Tensor
    """(B,) what it minimises, without any penalty."""
    real_logit: Tensor
    """(B,) of the images."""
    fake_logit: Tensor
    """(B,) of the generated ones."""


def cross_entropy(logits: Tensor, target: float) -> Tensor:
    """-target log D - (1 - target) log(1 - D) of each image, nats, with D = sigmoid(logit).

    Args:
        logits: ``(B,)``.
        target: 1 for real, 0 for generated; in between for smoothed labels.
    """
    return softplus(logits) - target * logits


def least_squares(logits: Tensor, target: float) -> Tensor:
    """Half the squared distance of each output from its target, ``(B,)`` (Mao et al. 2017, equation 2)."""
    return 0.5 * (logits - target).square()


def hinge(logits: Tensor, side: float) -> Tensor:
    """max(0, 1 - side * logit) of each image: zero beyond the margin on its own side, 1 for real, -1 for generated."""
    return torch.relu(1 - side * logits)


def input_gradient(critic: Critic, inputs: Tensor) -> Tensor:
    """Gradient of each logit in its own image, of the shape of ``inputs``, differentiable in the critic's parameters.

    Where logits depend on other images of the batch too (batch normalisation), it is that of their sum.
    """
    with torch.enable_grad():
        inputs = inputs.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(inputs).sum(), inputs, create_graph=True)
    return gradient


def gradient_penalty(gradient: Tensor) -> Tensor:
    """(norm - 1)^2 of each gradient, ``(B, ...) -> (B,)`` (Gulrajani et al. 2017, equation 3).

    The gradient of the square root is kept finite where a critic is flat.
    """
    return ((squared_norm(gradient) + 1e-12).sqrt() - 1).square()


def squared_norm(gradient: Tensor) -> Tensor:
    """Squared length of each gradient, ``(B, ...) -> (B,)``: the penalty R1 but for its weight."""
    return gradient.flatten(1).square().sum(1)


def between(real: Tensor, fake: Tensor, weights: Tensor) -> Tensor:
    """Points on the straight lines from generated images to real ones, one weight for each pair.

    Args:
        real: ``(B, ...)``.
        fake: of the same shape.
        weights: ``(B,)``, 1 at the real image.
    """
    return torch.lerp(fake, real, weights.view(-1, *[1] * (real.ndim - 1)))
