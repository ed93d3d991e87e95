"""What lies between two points of latent space."""

import math
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from lit_gen.callbacks.evaluation import FirstBatchCallback, first, positive
from lit_gen.callbacks.logging import image_grid, log_image
from lit_gen.inference import codes_around, latent_arithmetic
from lit_gen.models.base import Conditional, Decodes, Encodes, repeat_condition


def slerp(start: Tensor, end: Tensor, weight: float) -> Tensor:
    """A point on the great circle from ``start`` to ``end``, each row on its own.

    Between draws of a high-dimensional normal a straight line passes through lengths that no draw has, the great circle
    does not (White 2016, Sampling Generative Networks, https://arxiv.org/abs/1609.04468).

    Args:
        start: ``(B, ...)``.
        end: ``(B, ...)``.
        weight: 0 gives ``start``, 1 gives ``end``.
    """
    a, b = start.flatten(1), end.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=1).clamp(-1, 1)
    angle = torch.acos(cosine)[:, None]
    sine = torch.sin(angle)
    # Parallel vectors span no circle; opposite ones span many.
    straight = sine < 1e-4
    sine = torch.where(straight, torch.ones_like(sine), sine)
    left = torch.where(straight, torch.full_like(sine, 1 - weight), torch.sin((1 - weight) * angle) / sine)
    right = torch.where(straight, torch.full_like(sine, weight), torch.sin(weight * angle) / sine)
    return (left * a + right * b).view_as(start)


def interpolate_latents(start: Tensor, end: Tensor, weight: float, prior: Distribution) -> Tensor:
    """Between two latents: along the great circle about the mean of a normal prior, else along the straight line."""
    base = prior.base_dist if isinstance(prior, Independent) else prior
    if isinstance(base, Normal):
        return base.loc + base.scale * slerp((start - base.loc) / base.scale, (end - base.loc) / base.scale, weight)
    return torch.lerp(start, end, weight)


def arithmetic_grid(
    model: Decodes,
    plus: Sequence[Tensor],
    minus: Sequence[Tensor] = (),
    radius: float = 0.25,
    rows: int = 3,
    condition: Any = None,
) -> Tensor:
    """A picture of arithmetic with codes (Radford et al. 2015, figure 7): concepts at the left, the result beside them.

    Each concept has a column: images of its codes, at the bottom that of their mean. Beside them are images around the
    result of :func:`~lit_gen.inference.latent_arithmetic`, which itself is the one in the middle. For a GAN, codes are
    those of samples that show a concept (``z = model.sample_latents(64)``, and a look at ``model.decode_images(z)``),
    for a model that encodes those of images.

    Args:
        model: makes images of codes.
        plus: for each concept that is added, codes ``(k, *latent_shape)``.
        minus: the same of concepts that are taken away; they are shown after the others.
        radius: of the noise around the result, in each unit.
        rows: of images around the result, an odd number.
        condition: of all images, as for one; None for none.

    Returns:
        ``(3, H', W')`` in [0, 1].

    Raises:
        ValueError: codes that :func:`~lit_gen.inference.latent_arithmetic` does not take, or an even number of rows.
    """
    if rows < 1 or rows % 2 == 0:
        raise ValueError(f"rows must be an odd number, so that one image is in the middle; got {rows}")
    result = latent_arithmetic(plus, minus)
    around = codes_around(result, rows**2, radius)
    around[[0, rows**2 // 2]] = around[[rows**2 // 2, 0]]
    columns = [torch.cat([codes, codes.mean(0, keepdim=True)]) for codes in (*plus, *minus)]
    columns += list(around.unflatten(0, (rows, rows)).unbind(1))
    with torch.no_grad():
        pictures = [
            model.decode_images(codes, repeat_condition(condition, len(codes))).float().cpu() for codes in columns
        ]
    height = max(map(len, pictures))
    shown = pictures[0].new_full((height, len(pictures) + 1, *pictures[0].shape[1:]), 0.5)
    concepts = len(pictures) - rows
    for number, column in enumerate(pictures):
        # The bottom row is that of the means; between concepts and result a column is left empty.
        if number < concepts:
            shown[: len(column) - 1, number] = column[:-1]
            shown[-1, number] = column[-1]
        else:
            shown[: len(column), number + 1] = column
    return image_grid(shown.flatten(0, 1), len(pictures) + 1)


class LatentGrid(FirstBatchCallback):
    """Logs what a decoder makes of the ways between latents.

    ``val/interpolations`` goes between draws from the prior, one pair a row; ``val/image_interpolations`` between
    encoded images, for a model that encodes; ``val/manifold`` shows a two-dimensional latent space on a grid that is
    even in the prior's probability (Kingma & Welling 2013, figure 4). The same for ``test/``.

    Args:
        rows: number of pairs.
        steps: images from one end to the other.
        manifold_size: images along each side of the manifold.
        every_n_epochs: act in every n-th epoch of a fit, and in the last.
        seed: of the draws.
    """

    capability = Decodes

    def __init__(
        self, rows: int = 8, steps: int = 10, manifold_size: int = 20, every_n_epochs: int = 1, seed: int = 0
    ) -> None:
        super().__init__(every_n_epochs, seed)
        self.rows = positive("rows", rows)
        if steps < 2:
            raise ValueError(f"steps must be at least 2, the two ends of the way; got {steps}")
        self.steps = steps
        self.manifold_size = positive("manifold_size", manifold_size)

    def show(self, trainer: pl.Trainer, model: Any, stage: str, images: Tensor, condition: Any) -> None:
        prior = model.prior
        drawn = model.sample_condition(self.rows) if isinstance(model, Conditional) else None
        start, end = model.sample_latents(self.rows, drawn), model.sample_latents(self.rows, drawn)
        log_image(trainer, f"{stage}/interpolations", self._between(model, start, end, drawn))
        rows = min(self.rows, len(images) // 2)
        if isinstance(model, Encodes) and rows:
            codes = model.encode(images[: 2 * rows], first(condition, 2 * rows))
            try:
                z = codes.mean
            except NotImplementedError:
                z = codes.sample()
            grid = self._between(model, z[:rows], z[rows:], first(condition, rows))
            log_image(trainer, f"{stage}/image_interpolations", grid)
        base = prior.base_dist if isinstance(prior, Independent) else prior
        if tuple(model.latent_shape) == (2,) and isinstance(base, Normal):
            log_image(trainer, f"{stage}/manifold", self._manifold(model, base))

    def _between(self, model: Any, start: Tensor, end: Tensor, condition: Any) -> Tensor:
        # Step by step, so that a condition of one row needs no repeating, whatever it is made of.
        prior = model.conditional_prior(condition)
        columns = [
            model.decode_images(interpolate_latents(start, end, step / (self.steps - 1), prior), condition)
            for step in range(self.steps)
        ]
        return image_grid(torch.stack(columns, 1).flatten(0, 1), self.steps)

    def _manifold(self, model: Any, prior: Normal) -> Tensor:
        size = self.manifold_size
        probabilities = (torch.arange(size, device=prior.loc.device, dtype=torch.float32) + 0.5) / size
        along = math.sqrt(2) * torch.erfinv(2 * probabilities - 1)  # quantiles of N(0, 1)
        condition = model.sample_condition(size) if isinstance(model, Conditional) else None
        rows = []
        for vertical in along.flip(0):
            z = torch.stack([along, vertical.expand(size)], 1).to(prior.loc)
            rows.append(model.decode_images(prior.loc + prior.scale * z, condition))
        return image_grid(torch.cat(rows), size)
