"""What the steps of :class:`~lit_gen.models.DRAW` and its variants give."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from lit_gen.networks import LSTMState, Window
from lit_gen.objectives import kl_divergence


class Moments(NamedTuple):
    """A diagonal Gaussian over the latents of one step."""

    mean: Tensor
    """(B, *latent)."""
    log_std: Tensor
    """(B, *latent)."""

    def carry(self, noise: Tensor) -> Tensor:
        """The draw that this standard normal noise ``(B, *latent)`` stands for."""
        return torch.addcmul(self.mean, torch.exp(self.log_std), noise)


class Progress(NamedTuple):
    """What B images have come to, between two steps."""

    canvas: Tensor
    """(B, *parameter_shape) c_t."""
    encoder: LSTMState
    decoder: LSTMState


class Step(NamedTuple):
    """One step of drawing B images."""

    canvas: Tensor
    """(B, *parameter_shape) c_t, the parameters of the likelihood so far."""
    latent: Tensor
    """(B, *latent) z_t."""
    prior: Moments
    """p(z_t given z_1 .. z_t-1)."""
    posterior: Moments | None
    """q(z_t given x, z_1 .. z_t-1); None where images are generated."""
    read: Window | None
    """Where the reader looked; None without attention, or without an image."""
    write: Window | None
    """Where the writer wrote; None without attention."""
    weights: Tensor | None
    """(B, K) attention over the parts of a condition; None without any."""


class Drawing(NamedTuple):
    """What T steps of drawing B images came to."""

    canvas: Tensor
    """(B, *parameter_shape) c_T."""
    latents: Tensor
    """(T, B, *latent)."""
    posterior: Distribution
    """q(z_t given x, z_1 .. z_t-1), batch shape (T, B)."""
    prior: Distribution
    """p(z_t given z_1 .. z_t-1), batch shape (T, B)."""

    @property
    def kl(self) -> Tensor:
        """(T, B) KL(q || p) of each step, nats."""
        return kl_divergence(self.posterior, self.prior, self.latents)


def collect(steps: Iterable[Step], dimensions: int) -> Drawing:
    """All steps of drawing given images, the canvases but the last forgotten as they come.

    Args:
        steps: at least one, each with a posterior.
        dimensions: of the latent of one step.
    """
    latents: list[Tensor] = []
    moments: list[tuple[Tensor, ...]] = []
    canvas = torch.empty(0)
    for step in steps:
        assert step.posterior is not None, "only given images have a posterior"
        canvas = step.canvas
        latents.append(step.latent)
        moments.append((*step.posterior, *step.prior))
    mean, log_std, prior_mean, prior_log_std = (torch.stack(parts) for parts in zip(*moments, strict=True))
    posterior = Normal(mean, torch.exp(log_std), validate_args=False)
    prior = Normal(prior_mean, torch.exp(prior_log_std), validate_args=False)
    return Drawing(
        canvas,
        torch.stack(latents),
        Independent(posterior, dimensions, validate_args=False),
        Independent(prior, dimensions, validate_args=False),
    )
