"""The variational lower bound of Kingma & Welling 2013, Auto-Encoding Variational Bayes (https://arxiv.org/abs/1312.6114)."""

import math
from typing import NamedTuple

from torch import Tensor
from torch.distributions import Distribution
from torch.distributions import kl_divergence as closed_form_kl


class LikelihoodTerms(NamedTuple):
    """What a likelihood model says of a batch; the parts that a model does not have are None."""

    loss: Tensor
    """(B,) what training minimises."""
    elbo: Tensor | None = None
    """(B,) lower bound on log p(x), nats."""
    reconstruction: Tensor | None = None
    """(B,) E_q log p(x given z), nats."""
    kl: Tensor | None = None
    """(B,) KL(q(z given x) || p(z)), nats."""


def kl_divergence(posterior: Distribution, prior: Distribution, z: Tensor) -> Tensor:
    """KL(q || p) of each image, nats, summed over latents: in closed form where torch knows one, else from the sample.

    Args:
        posterior: q with batch shape ``(B,)``.
        prior: p with batch shape ``()`` or ``(B,)``.
        z: ``(B, *latent_shape)`` drawn from q by reparametrisation; only used without a closed form.

    Returns:
        ``(B,)``.
    """
    try:
        return closed_form_kl(posterior, prior)
    except NotImplementedError:
        return posterior.log_prob(z) - prior.log_prob(z)


def variational_bound(reconstruction: Tensor, kl: Tensor, kl_weight: float = 1.0) -> LikelihoodTerms:
    """The bound and its loss: equation 3 of the paper; ``elbo`` keeps weight 1 whatever the weight in the loss.

    Args:
        reconstruction: ``(B,)`` E_q log p(x given z), nats.
        kl: ``(B,)`` nats.
        kl_weight: weight of the KL term in the loss (1 for the bound; beta of a beta-VAE; below 1 while warming up).

    Returns:
        The terms, each ``(B,)``.
    """
    return LikelihoodTerms(kl_weight * kl - reconstruction, reconstruction - kl, reconstruction, kl)


def bits_per_dim(log_likelihood: Tensor, dimensions: int, is_density: bool = False) -> Tensor:
    """Nats of an image to bits per dimension, the one place where units change.

    Args:
        log_likelihood: nats per image.
        dimensions: number of pixels times channels.
        is_density: the value is a density over pixels in [0, 1]; 8 bits a pixel turn it into one over 256 grey levels,
            which bounds the discrete likelihood only for uniformly dequantized data.
    """
    bits = -log_likelihood / (dimensions * math.log(2.0))
    return bits + 8.0 if is_density else bits
