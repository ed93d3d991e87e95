"""Parzen windows whose centres depend on the image, and the volume that downsampling takes.

Denton et al. 2015 (https://arxiv.org/abs/1506.05751) estimate the likelihood of a pyramid level by level:
p(I) = q(l) q(h given l), with l = d(I) the coarse image and h what is missing, each factor a Parzen estimate. This is a
density of the image if (l, h) are coordinates of it, which the paper has for means of 2x2 pixels. For any linear d of
full rank they are: h is taken in the orthogonal complement of the row space of d, and l costs the volume
log |det d d^T| / 2.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_gen.inference.ais import Progress, precise
from lit_gen.inference.parzen import ParzenEstimate, log_kernels


class Downsampling:
    """A linear map of images to smaller ones, the same for all channels: one matrix for rows, one for columns.

    Args:
        rows: (h, H) of full rank.
        columns: (w, W) of full rank.
    """

    def __init__(self, rows: Tensor, columns: Tensor) -> None:
        self._rows, self._columns = (torch.linalg.pinv(side) @ side for side in (rows, columns))
        grams = [torch.logdet(side @ side.T).item() for side in (rows, columns)]
        self.log_volume = 0.5 * (len(columns) * grams[0] + len(rows) * grams[1])
        """log |det d d^T| / 2 of one channel, nats."""

    def missing(self, images: Tensor) -> Tensor:
        """What the smaller images do not tell, ``(..., H, W)``: orthogonal to all that they do."""
        return images - self._rows @ images @ self._columns


class PyramidLikelihood(NamedTuple):
    """A Parzen-window estimate of log p(x) as a sum over levels."""

    log_likelihoods: Tensor
    """(N,) nats of each image, float64: a density of pixels in [0, 1]."""
    levels: list[ParzenEstimate]
    """The estimate of each level, the finest first, with its sigma in pixel units."""
    log_volumes: list[float]
    """Nats that downsampling from each level to the next adds; the sum of these and of the levels is the whole."""

    @property
    def log_likelihood(self) -> float:
        """Mean over images, nats."""
        return self.log_likelihoods.mean().item()

    @property
    def standard_error(self) -> float:
        """Of the mean over images, given the samples and sigmas; not a number for a single image."""
        return self.log_likelihoods.std().item() / math.sqrt(len(self.log_likelihoods))


class Windows(NamedTuple):
    """Points, and for each the centres of the kernels that its density is made of."""

    points: Tensor
    """(N, D), which may lie in a subspace that the centres lie in too."""
    centres: Callable[[int, int], Tensor]
    """``(first, last)`` -> (last - first, M, D), those of these points."""


@torch.no_grad()
def conditional_parzen(
    judged: Windows,
    validation: Windows | None,
    dimension: int,
    sigmas: Sequence[float],
    max_rows: int = 20,
    progress: Progress = iter,
) -> ParzenEstimate:
    """log of the mean over centres of N(point; centre, sigma^2 I), sigma being the one best for other points.

    Args:
        judged: to be measured.
        validation: by which sigma is chosen; None with a single sigma.
        dimension: of the subspace that points and centres lie in.
        sigmas: standard deviations to choose from.
        max_rows: points at a time.
        progress: goes through the parts, validation first.

    Returns:
        The estimate of every point, with sigma.

    Raises:
        ValueError: several sigmas and nothing to choose by, or a sigma that is not positive.
    """
    if not sigmas or min(sigmas) <= 0:
        raise ValueError(f"sigmas must be positive, at least one of them, got {list(sigmas)}")
    if validation is None and len(sigmas) > 1:
        raise ValueError(f"got {len(sigmas)} sigmas and no validation images to choose by: give these, or one sigma")
    parts = [
        (windows, start, min(start + max_rows, len(windows.points)), windows is judged)
        for windows in (validation, judged)
        if windows is not None
        for start in range(0, len(windows.points), max_rows)
    ]
    sigma = sigmas[0]
    found: list[Tensor] = []
    held_out: list[Tensor] = []
    for number in progress(range(len(parts))):
        windows, start, end, counts = parts[number]
        if counts and held_out:
            sigma, held_out = sigmas[int(torch.cat(held_out, 1).mean(1).argmax())], []
        differences = precise(windows.points[start:end])[:, None] - precise(windows.centres(start, end))
        values = log_kernels(differences.square().sum(2), [sigma] if counts else sigmas, dimension)
        (found if counts else held_out).append(values)
    return ParzenEstimate(torch.cat(found, 1)[0], sigma)
