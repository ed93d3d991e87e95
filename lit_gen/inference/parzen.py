"""Parzen-window log-likelihood: a kernel density estimate from samples of a model.

The protocol is that of Breuleux, Bengio & Vincent 2011, Quickly generating representative samples from an RBM-derived
process, as Goodfellow et al. 2014, Generative adversarial networks, table 1, used it (https://arxiv.org/abs/1406.2661):
10,000 samples, normal kernels with a standard deviation chosen on validation images.

It ranks models otherwise than their likelihoods do, and is off by hundreds of nats in hundreds of dimensions (Theis,
van den Oord & Bethge 2016, https://arxiv.org/abs/1511.01844): compare it with published estimates, and nothing else.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_gen.inference.ais import Progress, precise

GRID = tuple(10 ** (-1 + step / 9) for step in range(10))
"""Ten standard deviations from 0.1 to 1, evenly in the logarithm: those of the published program."""


class ParzenEstimate(NamedTuple):
    """A Parzen-window estimate of log p(x)."""

    log_likelihoods: Tensor
    """(N,) nats of each image, float64: a density of pixels in [0, 1]."""
    sigma: float
    """Standard deviation of the kernels, in pixel units."""

    @property
    def log_likelihood(self) -> float:
        """Mean over images, nats."""
        return self.log_likelihoods.mean().item()

    @property
    def standard_error(self) -> float:
        """Of the mean over images, given the samples and sigma; not a number for a single image."""
        return self.log_likelihoods.std().item() / math.sqrt(len(self.log_likelihoods))


@torch.no_grad()
def parzen_log_likelihood(
    images: Tensor,
    samples: Tensor,
    validation: Tensor | None = None,
    sigmas: Sequence[float] = GRID,
    max_rows: int = 500,
    progress: Progress = iter,
) -> ParzenEstimate:
    r"""log of :math:`\frac1M \sum_i N(x; \text{sample}_i, \sigma^2 I)`, sigma being the one best for other images.

    Args:
        images: ``(N, *shape)`` to be judged.
        samples: ``(M, *shape)`` of the model, 10,000 by the published protocol.
        validation: ``(V, *shape)``, neither among the images nor trained on, by which sigma is chosen; None with a
            single sigma.
        sigmas: standard deviations to choose from.
        max_rows: images at a time; the memory bound is ``max_rows * M`` numbers.
        progress: goes through the parts of ``max_rows`` images, validation first.

    Returns:
        The estimate of every image, with sigma.

    Raises:
        ValueError: several sigmas and nothing to choose by, a sigma that is not positive, or images and samples that
            differ in shape.
    """
    if not sigmas or min(sigmas) <= 0:
        raise ValueError(f"sigmas must be positive, at least one of them, got {list(sigmas)}")
    if validation is None and len(sigmas) > 1:
        raise ValueError(f"got {len(sigmas)} sigmas and no validation images to choose by: give these, or one sigma")
    if images.shape[1:] != samples.shape[1:]:
        raise ValueError(
            f"images are of shape {tuple(images.shape[1:])} and samples of shape {tuple(samples.shape[1:])};"
            " give both in one"
        )
    centres = precise(samples).flatten(1)
    parts = [] if validation is None else list(validation.split(max_rows))
    chosen_on = len(parts)
    parts += images.split(max_rows)
    sigma, found = sigmas[0], []
    for number in progress(range(len(parts))):
        candidates = sigmas if number < chosen_on else [sigma]
        found.append(_log_densities(precise(parts[number]).flatten(1), centres, candidates))
        if number == chosen_on - 1:
            means = torch.cat(found, 1).mean(1)
            sigma = sigmas[int(means.argmax())]
    return ParzenEstimate(torch.cat(found[chosen_on:], 1)[0], sigma)


def _log_densities(points: Tensor, centres: Tensor, sigmas: Sequence[float]) -> Tensor:
    """``(len(sigmas), N)`` nats."""
    # |x - y|^2 = |x|^2 - 2xy + |y|^2, by one matrix product; in float64 the difference keeps a dozen digits.
    squares = torch.addmm(centres.square().sum(1), points, centres.T, alpha=-2) + points.square().sum(1, keepdim=True)
    return log_kernels(squares.clamp_(min=0), sigmas, centres.shape[1])


def log_kernels(squares: Tensor, sigmas: Sequence[float], dimension: int) -> Tensor:
    """log of the mean of normal kernels of every width, from the squared distances ``(N, M)`` of their centres.

    Returns:
        ``(len(sigmas), N)`` nats.
    """
    count = squares.shape[1]
    return torch.stack(
        [
            torch.logsumexp(squares * (-0.5 / sigma**2), 1)
            - math.log(count)
            - dimension * math.log(sigma * math.sqrt(2 * math.pi))
            for sigma in sigmas
        ]
    )
