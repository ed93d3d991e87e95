"""Directions and maps that stand for something: arithmetic of averaged codes, and the maps that draw a thing.

Radford, Metz & Chintala 2015, Unsupervised representation learning with deep convolutional generative adversarial
networks (https://arxiv.org/abs/1511.06434), sections 6.2 and 6.3.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def latent_arithmetic(plus: Sequence[Tensor], minus: Sequence[Tensor] = ()) -> Tensor:
    """Sum of the mean codes of concepts, less that of others: king - man + woman.

    Of single codes the result is unsteady; the paper takes three of each concept. A difference of two concepts alone,
    as of faces that look left and right, is a direction: added to any code, it turns what that shows.

    Args:
        plus: for each concept that is added, codes ``(k, *latent_shape)`` of images that show it.
        minus: the same of concepts that are taken away.

    Returns:
        ``(*latent_shape)``, one code.

    Raises:
        ValueError: no concepts, one without codes, or codes of unlike shapes.

    Example:
        >>> import torch
        >>> king, man, woman = torch.tensor([[2.0, 1.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, -1.0]])
        >>> latent_arithmetic([king, woman], [man])
        tensor([ 2., -1.])
    """
    concepts = [*plus, *minus]
    shapes = [tuple(codes.shape) for codes in concepts]
    if not plus or any(not len(codes) or codes.ndim < 2 for codes in concepts) or len({s[1:] for s in shapes}) > 1:
        raise ValueError(
            "each concept takes at least one code, (k, *latent_shape) of the same latent_shape, and one is added at"
            f" least; got {shapes[: len(plus)]} to add and {shapes[len(plus) :]} to take away"
        )
    total = torch.zeros_like(concepts[0][0])
    for codes in plus:
        total = total + codes.mean(0)
    for codes in minus:
        total = total - codes.mean(0)
    return total


def codes_around(code: Tensor, count: int, radius: float = 0.25) -> Tensor:
    """A code, and others that differ from it by uniform noise.

    Args:
        code: ``(*latent_shape)``.
        count: of all; the code itself is the first.
        radius: of the noise in each unit, (-radius, radius).

    Returns:
        ``(count, *latent_shape)``.

    Raises:
        ValueError: ``count`` below 1, or a negative radius.
    """
    if count < 1 or radius < 0:
        raise ValueError(f"count must be at least 1 and radius not negative, got {count} and {radius}")
    noise = radius * (2 * torch.rand(count, *code.shape, dtype=code.dtype, device=code.device) - 1)
    noise[0] = 0
    return code + noise


class Box(NamedTuple):
    """Where something is seen in an image, in pixels."""

    image: int  # number of the image
    left: float
    top: float
    right: float  # not included
    bottom: float  # not included


def inside_boxes(boxes: Sequence[Box], num_images: int, image_size: Sequence[int], map_size: Sequence[int]) -> Tensor:
    """Which positions of a layer's maps lie inside boxes: those whose centre does.

    Args:
        boxes: drawn in the images.
        num_images: N.
        image_size: height and width of the images.
        map_size: height and width H, W of the maps, which cover the whole image.

    Returns:
        bool ``(N, H, W)``.

    Raises:
        ValueError: a box in none of the images.
    """
    rows, columns = (
        (torch.arange(cells) + 0.5) * pixels / cells for cells, pixels in zip(map_size, image_size, strict=True)
    )
    inside = torch.zeros(num_images, *map_size, dtype=torch.bool)
    for box in boxes:
        if not 0 <= box.image < num_images:
            raise ValueError(f"the image of a box must lie in 0..{num_images - 1}, got {box}")
        across = (columns >= box.left) & (columns < box.right)
        inside[box.image] |= ((rows >= box.top) & (rows < box.bottom))[:, None] & across
    return inside


def concept_weights(activations: Tensor, inside: Tensor, cost: float = 1.0, seed: int = 0) -> Tensor:
    """Weight of each map in telling positions that show something from others: a logistic regression.

    Positions inside are held against as many others, drawn at random from the same images. The paper drops all maps of
    positive weight from every position (:func:`~lit_gen.networks.dropped_maps`), and windows vanish from its bedrooms;
    its layer is the one before the last of a DCGAN's ``sampling_generator.feature_layers()``.

    Args:
        activations: of a layer, ``(N, C, H, W)``.
        inside: bool ``(N, H, W)``, where the thing is seen: :func:`inside_boxes`.
        cost: of errors beside the squared weights; the larger, the less weights are held back.
        seed: of the positions that are drawn.

    Returns:
        ``(C,)``, in units of the standard deviation of all activations.

    Raises:
        ValueError: shapes that do not belong together, or images that show the thing nowhere or everywhere.
    """
    from sklearn.linear_model import LogisticRegression

    wanted = (len(activations), *activations.shape[2:])
    if activations.ndim != 4 or tuple(inside.shape) != wanted or inside.dtype != torch.bool:
        raise ValueError(
            f"inside must be bool (N, H, W) of activations (N, C, H, W), got {inside.dtype} {tuple(inside.shape)} and"
            f" {tuple(activations.shape)}"
        )
    showing = inside.flatten(1).any(1)
    found = activations[showing].detach().float().cpu().movedim(1, -1)  # (n, H, W, C)
    mask = inside[showing].cpu()
    there, elsewhere = found[mask], found[~mask]
    if not len(there) or not len(elsewhere):
        raise ValueError("a regression takes positions inside boxes and positions outside; got none of the one kind")
    generator = torch.Generator().manual_seed(seed)
    elsewhere = elsewhere[torch.randperm(len(elsewhere), generator=generator)[: len(there)]]
    rows = torch.cat([there, elsewhere])
    rows = rows / rows.std().clamp(min=1e-12)
    targets = torch.cat([torch.ones(len(there)), torch.zeros(len(elsewhere))])
    regression = LogisticRegression(C=cost, max_iter=1000).fit(rows.numpy(), targets.numpy())
    return torch.as_tensor(regression.coef_[0]).float()
