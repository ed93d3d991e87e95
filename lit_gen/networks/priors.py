"""Priors over latents, injected into models as factories.

A prior may look at the encoder of its owner: the best prior of a VAE is the aggregated posterior, the mean of q(z given
x) over the data, and mixtures approach it (Tomczak & Welling 2018, VAE with a VampPrior,
https://arxiv.org/abs/1705.07120).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    Normal,
    TransformedDistribution,
)

from lit_gen.networks.flows import Flow, FlowFactory, PlanarFlow
from lit_gen.networks.network import Recorded, Shape, build

Encoder = Callable[[Tensor], Distribution]
"""Images ``(B, *image_shape)`` -> q(z given x), as :meth:`~lit_gen.models.VAE.encode` gives it."""


class Prior(Recorded, nn.Module, ABC):
    """A distribution over latents that training may change.

    Args:
        latent_dim: number of latent units, D.
        image_shape: ``(C, H, W)``.
    """

    sizes = 2

    def __init__(self, latent_dim: int, image_shape: Shape) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.image_shape = tuple(image_shape)

    @abstractmethod
    def forward(self, encode: Encoder) -> Distribution:
        """p(z), batch shape ``()``, event shape ``(D,)``.

        Args:
            encode: of the owner.
        """

    def start(self, training_images: Callable[[int], Tensor]) -> None:
        """Called when a training starts; a prior that begins at the data looks at it once in its life.

        Args:
            training_images: n -> up to n of them, ``(n, *image_shape)``.
        """


PriorFactory = Callable[[int, Shape], Prior]


class StandardNormal(Prior):
    """N(0, I), which learns nothing.

    Args:
        latent_dim: number of latent units, D.
        image_shape: ``(C, H, W)``.
    """

    zeros: Tensor

    def __init__(self, latent_dim: int, image_shape: Shape) -> None:
        super().__init__(latent_dim, image_shape)
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)

    def forward(self, encode: Encoder) -> Distribution:
        return _standard_normal(self.zeros)


class MixtureOfGaussians(Prior):
    """Diagonal Gaussians with learned means, variances and weights.

    Args:
        latent_dim: number of latent units, D.
        image_shape: ``(C, H, W)``.
        components: number of Gaussians.
    """

    def __init__(self, latent_dim: int, image_shape: Shape, components: int = 20) -> None:
        super().__init__(latent_dim, image_shape)
        self.components = _positive(components)
        self.mean = nn.Parameter(torch.randn(components, latent_dim))
        self.log_std = nn.Parameter(torch.zeros(components, latent_dim))
        self.logits = nn.Parameter(torch.zeros(components))

    def forward(self, encode: Encoder) -> Distribution:
        gaussians = Independent(Normal(self.mean, self.log_std.exp(), validate_args=False), 1, validate_args=False)
        return _mixture(self.logits, gaussians)


class VampPrior(Prior):
    r"""What the encoder says of learned pseudo-inputs: :math:`p(z) = \frac1K \sum_k q(z \mid u_k)` (equation 9).

    The pseudo-inputs u begin at training images, and take part in the encoder like these, once in every training step:
    best an encoder without batch normalization, whose statistics they would enter.

    Args:
        latent_dim: number of latent units, D.
        image_shape: ``(C, H, W)``.
        components: number of pseudo-inputs, K; 500 in the paper.
    """

    knows_data: Tensor

    def __init__(self, latent_dim: int, image_shape: Shape, components: int = 500) -> None:
        super().__init__(latent_dim, image_shape)
        self.components = _positive(components)
        self.pseudo_inputs = nn.Parameter(torch.rand(components, *self.image_shape))
        self.register_buffer("knows_data", torch.tensor(False))

    def forward(self, encode: Encoder) -> Distribution:
        # Pixels stay in [0, 1]; the gradient goes on past the edge, so that one that has left can return.
        inputs = self.pseudo_inputs
        posteriors = encode(inputs + (inputs.clamp(0, 1) - inputs).detach())
        return _mixture(inputs.new_zeros(self.components), posteriors)

    @torch.no_grad()
    def start(self, training_images: Callable[[int], Tensor]) -> None:
        """Put the pseudo-inputs on training images, once; where there are too few, the others stay random."""
        if not self.knows_data:
            images = training_images(self.components)
            self.pseudo_inputs[: len(images)] = images.to(self.pseudo_inputs)
            self.knows_data.fill_(True)


class FlowPrior(Prior):
    """N(0, I) carried along a normalizing flow.

    The flow maps z to the normal variable, so that a density costs one pass and a draw takes the inverse, because
    training needs densities: with :class:`~lit_gen.networks.InverseAutoregressiveFlow` it is the masked autoregressive
    flow of Papamakarios et al. 2017 (https://arxiv.org/abs/1705.07057).

    Args:
        latent_dim: number of latent units, D.
        image_shape: ``(C, H, W)``.
        flow: maps of latents, built for their number; what an encoder would give them is learned.
    """

    def __init__(self, latent_dim: int, image_shape: Shape, flow: FlowFactory = PlanarFlow) -> None:
        super().__init__(latent_dim, image_shape)
        self.flow: Flow = build(flow, latent_dim)
        self.parameters_of_flow = nn.Parameter(0.1 * torch.randn(self.flow.num_parameters))

    def forward(self, encode: Encoder) -> Distribution:
        maps = self.flow(self.parameters_of_flow)
        base = _standard_normal(self.parameters_of_flow.new_zeros(self.latent_dim))
        return TransformedDistribution(base, [transform.inv for transform in reversed(maps)], validate_args=False)

    def specification(self, skip: int = 0) -> dict[str, Any]:
        """With the flow that was made in place of its factory, which may be a function."""
        specification = super().specification(skip)
        specification["init_args"]["flow"] = self.flow
        return specification


def _standard_normal(zeros: Tensor) -> Distribution:
    return Independent(Normal(zeros, torch.ones_like(zeros), validate_args=False), 1, validate_args=False)


class _MixtureOfDiagonals(MixtureSameFamily):
    """Of K diagonal normal distributions: the density of N points takes matrix products, not (N, K, D) numbers."""

    def log_prob(self, value: Tensor) -> Tensor:
        parts = self.component_distribution
        if value.device.type == "mps":  # has no double precision
            return super().log_prob(value)
        # In double precision, because squares that nearly cancel are told apart by their last digits.
        z, mean, std = value.reshape(-1, value.shape[-1]).double(), parts.mean.double(), parts.stddev.double()
        precision = std.reciprocal().square()
        squares = z.square() @ precision.T - 2 * (z @ (mean * precision).T) + (mean.square() * precision).sum(1)
        log_volume = std.log().sum(1) + 0.5 * math.log(2 * math.pi) * mean.shape[1]
        log_weights = self.mixture_distribution.logits.log_softmax(0)
        density = (log_weights - log_volume - 0.5 * squares).logsumexp(1)
        return density.to(value.dtype).reshape(value.shape[:-1])


def _mixture(logits: Tensor, parts: Distribution) -> Distribution:
    diagonal = isinstance(parts, Independent) and isinstance(parts.base_dist, Normal)
    kind = _MixtureOfDiagonals if diagonal else MixtureSameFamily
    return kind(Categorical(logits=logits, validate_args=False), parts, validate_args=False)


def _positive(components: int) -> int:
    if components < 1:
        raise ValueError(f"components must be at least 1, got {components}")
    return components
