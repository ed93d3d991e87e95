"""The Parzen-window likelihood of a pyramid of generators, level by level."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lit_gen.inference import (
    Downsampling,
    Progress,
    PyramidLikelihood,
    Windows,
    conditional_parzen,
    parzen_log_likelihood,
)
from lit_gen.networks.laplacian import Size, resize

Level = tuple[Tensor, Any]
"""Images ``(B, C, H, W)`` in [-1, 1] at a level, and what its generator is given of them."""
Imagine = Callable[[Tensor, Any], Tensor]
"""Generated images of the shape of the given ones, from what the level is given, with new noise."""


@torch.no_grad()
def pyramid_log_likelihood(
    real: Sequence[Level],
    validation: Sequence[Level] | None,
    imagine: Imagine,
    shared: bool,
    num_samples: int,
    num_residuals: int,
    sigmas: Sequence[Sequence[float]],
    max_rows: int,
    progress: Progress,
) -> PyramidLikelihood:
    """log p(I_K) plus, for every finer level, log p(I_k given I_k+1), each by Parzen windows.

    The protocol: the coarsest level is judged by ``num_samples`` samples of its generator, as an image of any model is;
    each finer one by ``num_residuals`` samples of its generator for the coarse version of each real image, compared in
    what that version leaves open. A standard deviation for each level is chosen on validation images. The sum is a
    density of pixels in [0, 1], to be compared with Parzen estimates only, and of the same numbers of samples.

    Args:
        real: the images to be judged, at each level, the finest first.
        validation: others, neither among these nor trained on; None with a single sigma.
        imagine: samples of a level.
        shared: whether the samples of the coarsest level serve all images; else each has its own, for its class.
        num_samples: samples of the coarsest level.
        num_residuals: samples of each finer level for each image.
        sigmas: standard deviations to choose from, in pixel units, those of each level, the finest first.
        max_rows: images at a time; the memory bound is ``max_rows * num_residuals`` images.
        progress: goes through the parts of each level, the finest first.
    """
    if num_samples < 1 or num_residuals < 1:
        raise ValueError(f"num_samples and num_residuals must be at least 1, got {num_samples} and {num_residuals}")
    estimates, volumes = [], []
    for level, (images, rung) in enumerate(real[:-1]):
        smaller = (real[level + 1][0].shape[-2], real[level + 1][0].shape[-1])
        down = downsampling((images.shape[-2], images.shape[-1]), smaller, images.device)
        channels = images.shape[1]
        dimension = channels * (math.prod(images.shape[-2:]) - math.prod(smaller))
        others = None if validation is None else _windows(validation[level], imagine, num_residuals, down)
        judged = _windows((images, rung), imagine, num_residuals, down)
        estimates.append(conditional_parzen(judged, others, dimension, sigmas[level], max_rows, progress))
        volumes.append(channels * down.log_volume)
    images, rung = real[-1]
    if shared:
        empty = images.new_zeros(min(num_samples, 1000), *images.shape[1:])
        counts = [min(len(empty), num_samples - start) for start in range(0, num_samples, len(empty))]
        samples = torch.cat([pixels(imagine(empty[:count], rung)) for count in counts])
        held_out = None if validation is None else pixels(validation[-1][0])
        estimates.append(parzen_log_likelihood(pixels(images), samples, held_out, sigmas[-1], progress=progress))
    else:
        others = None if validation is None else _windows(validation[-1], imagine, num_samples, None)
        judged = _windows((images, rung), imagine, num_samples, None)
        estimates.append(conditional_parzen(judged, others, images[0].numel(), sigmas[-1], max_rows, progress))
    total = torch.stack([estimate.log_likelihoods for estimate in estimates]).sum(0) + sum(volumes)
    return PyramidLikelihood(total, estimates, volumes)


def pixels(signal: Tensor) -> Tensor:
    """From [-1, 1] to [0, 1], in the precision of estimates; not cut off."""
    return 0.5 * (signal.double() + 1)


def downsampling(large: Size, small: Size, device: torch.device) -> Downsampling:
    """The matrices of :func:`~lit_gen.networks.laplacian.resize` from one size to another."""
    rows, columns = (
        resize(torch.eye(before, dtype=torch.float64)[None, None], (after, before))[0, 0].to(device)
        for before, after in zip(large, small, strict=True)
    )
    return Downsampling(rows, columns)


def _windows(level: Level, imagine: Imagine, count: int, down: Downsampling | None) -> Windows:
    images, rung = level

    def left_open(signal: Tensor) -> Tensor:
        found = pixels(signal)
        return (found if down is None else down.missing(found)).flatten(1)

    def centres(first: int, last: int) -> Tensor:
        part, given = apply_to_collection((images, rung), Tensor, lambda x: x[first:last].repeat_interleave(count, 0))
        return left_open(imagine(part, given)).unflatten(0, (last - first, count))

    return Windows(left_open(images), centres)
