"""Furniture made of parametric solids: voxel shapes without a download."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_gen.data.base import DataInfo, ImageDataModule, ImageSet
from lit_gen.data.loader import Split, derived_seed
from lit_gen.data.voxels import PackedVoxels, chosen_classes, pack, padding

BOX = math.inf
ROUND = 2.0
DRAWS = 24
"""Random numbers of one shape, whatever its class needs of them."""
CHUNK = 200

Value = Tensor | float


class Solid(NamedTuple):
    """An upright prism in each of N shapes, values ``(N,)`` or one for all; y is depth, with the front at small y."""

    x: Value  # centre
    y: Value
    bottom: Value
    top: Value  # none where not above the bottom
    width: Value
    depth: Value
    power: float = BOX  # footprint |x / a|^power + |y / b|^power <= 1: 2 an ellipse, 4 a rounded box
    carve: bool = False  # taken away from the others


class Draws:
    """The random numbers of N shapes, ``(N, DRAWS)`` in [0, 1), a column at each call."""

    def __init__(self, uniform: Tensor) -> None:
        self._columns = iter(uniform.unbind(1))

    def __call__(self, low: float, high: float) -> Tensor:
        """``(N,)`` in [low, high)."""
        return low + (high - low) * next(self._columns)

    def chance(self, probability: float) -> Tensor:
        """``(N,)`` 1 with this probability, else 0."""
        return (next(self._columns) < probability).float()


def legs(width: Tensor, depth: Tensor, height: Tensor, thick: Tensor, power: float = BOX) -> list[Solid]:
    """Four of them under the corners."""
    x, y = (width - thick) / 2, (depth - thick) / 2
    return [Solid(i * x, j * y, 0, height, thick, thick, power) for i in (-1, 1) for j in (-1, 1)]


def bathtub(u: Draws) -> list[Solid]:
    width, depth, height, wall = u(1.4, 1.9), u(0.65, 0.9), u(0.4, 0.65), u(0.08, 0.13)
    foot = u.chance(0.4) * 0.12
    tub = Solid(0, 0, foot, foot + height, width, depth, 4)
    hollow = Solid(0, 0, foot + u(0.1, 0.18), 9, width - 2 * wall, depth - 2 * wall, 4, carve=True)
    return [tub, hollow, *legs(0.75 * width, 0.75 * depth, foot, u(0.1, 0.14))]


def bed(u: Draws) -> list[Solid]:
    width, length, under = u(0.9, 1.8), u(1.9, 2.2), u(0.15, 0.35)
    frame, mattress, board = u(0.1, 0.18), u(0.14, 0.25), u(0.06, 0.1)
    head, foot = u(0.35, 0.8), u.chance(0.5) * u(0.1, 0.35)
    lying = under + frame + mattress
    pillow = Solid(0, length / 2 - 0.3, lying, lying + 0.1, 0.8 * width, u(0.3, 0.45))
    return [
        Solid(0, 0, under, under + frame, width, length),
        Solid(0, 0, under + frame, lying, 0.95 * width, 0.97 * length),
        Solid(0, length / 2, 0, lying + head, width, board),
        Solid(0, -length / 2, 0, lying + foot, width, board),
        pillow,
        *legs(width, length, under, u(0.08, 0.15)),
    ]


def bench(u: Draws) -> list[Solid]:
    width, depth, height, thick = u(1.3, 2.0), u(0.35, 0.55), u(0.4, 0.55), u(0.06, 0.12)
    inset, side, slabs = u(0.75, 0.98), u(0.08, 0.14), u.chance(0.5)
    ends = [Solid(i * (inset * width - side) / 2, 0, 0, slabs * height, side, 0.9 * depth) for i in (-1, 1)]
    beam = Solid(0, 0, 0.3 * height, slabs * 0.45 * height, inset * width, side)
    return [
        Solid(0, 0, height, height + thick, width, depth),
        *ends,
        beam,
        *legs(inset * width, 0.9 * depth, (1 - slabs) * height, side),
    ]


def bookshelf(u: Draws) -> list[Solid]:
    width, depth, height, board = u(0.7, 1.2), u(0.3, 0.45), u(1.4, 2.0), u(0.05, 0.08)
    shelves = 2 + (4 * u(0, 1)).floor()
    sides = [Solid(i * (width - board) / 2, 0, 0, height, board, depth) for i in (-1, 1)]
    back = Solid(0, (depth - board) / 2, 0, height, width, board)
    levels = [number / shelves * (height - board) for number in range(6)]
    boards = [
        Solid(0, 0, level, torch.where(shelves >= number, level + board, 0), width, depth)
        for number, level in enumerate(levels)
    ]
    return [*sides, back, *boards]


def chair(u: Draws) -> list[Solid]:
    width, depth, height, thick = u(0.42, 0.58), u(0.42, 0.55), u(0.4, 0.52), u(0.05, 0.1)
    leg, back, board = u(0.05, 0.08), u(0.4, 0.65), u(0.05, 0.08)
    pedestal, solid, arms = u.chance(0.25), u.chance(0.6), u.chance(0.35)
    seat, behind = height + thick, (depth - board) / 2
    armrest = seat + u(0.18, 0.25)
    side = (width - board) / 2
    return [
        Solid(0, 0, height, seat, width, depth),
        *legs(width, depth, (1 - pedestal) * height, leg),
        Solid(0, 0, 0, pedestal * height, 1.5 * leg, 1.5 * leg, ROUND),
        Solid(0, 0, 0, pedestal * 0.07, 0.9 * width, 0.9 * depth, ROUND),
        Solid(0, behind, seat, seat + solid * back, width, board),
        Solid(0, behind, seat + 0.75 * back, seat + back, width, board),
        *[Solid(i * side, behind, seat, seat + back, board, board) for i in (-1, 0, 1)],
        *[Solid(i * side, 0, armrest, arms * (armrest + 0.05), board, depth) for i in (-1, 1)],
        *[Solid(i * side, -behind, seat, arms * armrest, board, board) for i in (-1, 1)],
    ]


def desk(u: Draws) -> list[Solid]:
    width, depth, height, thick = u(1.1, 1.6), u(0.55, 0.8), u(0.68, 0.76), u(0.05, 0.09)
    block, both, leg = u(0.28, 0.42), u.chance(0.35), u(0.06, 0.1)
    deep = 0.92 * depth
    return [
        Solid(0, 0, height, height + thick, width, depth),
        Solid((width - block) / 2, 0, u.chance(0.5) * 0.1, height, block, deep),
        Solid(-(width - block) / 2, 0, 0, both * height, block, deep),
        *legs(width, deep, height, leg),
        Solid(0, 0.4 * depth, u(0.1, 0.45) * height, height, width - leg, leg),
    ]


def lamp(u: Draws) -> list[Solid]:
    height, pole, foot, plate = u(0.5, 1.5), u(0.05, 0.07), u(0.25, 0.45), u(0.05, 0.1)
    low, high, tall = u(0.4, 0.65), u(0.5, 1.0), u(0.25, 0.4)
    rings = 8
    shade = [
        Solid(0, 0, height + i / rings * tall, height + (i + 1) / rings * tall, wide, wide, ROUND)
        for i in range(rings)
        for wide in [low * (1 - (1 - high) * i / rings)]
    ]
    return [Solid(0, 0, 0, plate, foot, foot, ROUND), Solid(0, 0, 0, height, pole, pole, ROUND), *shade]


def monitor(u: Draws) -> list[Solid]:
    width, tall, thick, neck = u(0.45, 0.75), u(0.3, 0.45), u(0.04, 0.09), u(0.06, 0.16)
    plate = u(0.03, 0.05)
    tube = u.chance(0.25) * u(0.5, 0.8)
    return [
        Solid(0, 0, neck, neck + tall, width, thick),
        Solid(0, 0.2 * tall, neck + 0.12 * tall, neck + tube * tall, 0.7 * width, 0.4 * tall),
        Solid(0, 0.5 * thick, 0, neck + 0.3 * tall, u(0.08, 0.2), 0.08),
        Solid(0, 0.5 * thick, 0, plate, u(0.22, 0.4), u(0.18, 0.28), 4),
    ]


def sofa(u: Draws) -> list[Solid]:
    width, depth, seat = u(1.2, 2.3), u(0.75, 0.95), u(0.36, 0.46)
    arm, rise, back, thick, foot = u(0.12, 0.25), u(0.15, 0.28), u(0.32, 0.5), u(0.16, 0.26), u(0.0, 0.12)
    corner = u.chance(0.2)
    sides = [Solid(i * (width - arm) / 2, 0, foot, seat + rise, arm, depth) for i in (-1, 1)]
    return [
        Solid(0, 0, foot, seat, width, depth),
        Solid(0, (depth - thick) / 2, foot, seat + back, width, thick),
        *sides,
        Solid(width / 2 - 0.4, -depth / 2 - 0.3, foot, corner * seat, 0.8, 0.8),
        *legs(0.9 * width, 0.9 * depth, foot, torch.full_like(foot, 0.08)),
    ]


def table(u: Draws) -> list[Solid]:
    width, depth, height, thick = u(0.9, 1.8), u(0.7, 1.0), u(0.4, 0.78), u(0.05, 0.09)
    leg, pedestal, oval = u(0.06, 0.11), u.chance(0.4), u.chance(0.45)
    reach = 1 - 0.3 * oval
    return [
        Solid(0, 0, height, (1 - oval) * (height + thick), width, depth),
        Solid(0, 0, height, oval * (height + thick), width, depth, ROUND),
        *legs(reach * width, reach * depth, (1 - pedestal) * height, leg),
        Solid(0, 0, 0, pedestal * height, 2 * leg, 2 * leg, ROUND),
        Solid(0, 0, 0, pedestal * 0.07, 0.55 * depth, 0.55 * depth, ROUND),
    ]


CLASSES: dict[str, Callable[[Draws], list[Solid]]] = {
    kind.__name__: kind for kind in (bathtub, bed, bench, bookshelf, chair, desk, lamp, monitor, sofa, table)
}


def build(solids: Sequence[Solid], angle: Tensor, size: int) -> Tensor:
    """Turn shapes about the vertical, centre them, let the largest extent fill the grid within its padding.

    A prism is the product of a footprint in (x, y) and an interval in z, so that N shapes are one matrix product.

    Args:
        solids: P of them, each in all N shapes.
        angle: ``(N,)`` counter-clockwise as seen from above, in radians.
        size: voxels along each side.

    Returns:
        bool ``(N, size, size, size)``: x, y and z, upwards.
    """
    columns = [torch.stack([torch.as_tensor(value).expand(len(angle)) for value in part], 1) for part in zip(*solids)]
    x, y, bottom, top, width, depth, power, carve = columns  # (N, P) each
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    x, y = cos * x - sin * y, sin * x + cos * y
    there = top > bottom
    # Half the extent of a footprint along an axis: its support function, by the dual exponent.
    dual = 1 / (1 - 1 / power)
    halves = [
        ((along * width / 2).abs() ** dual + (across * depth / 2).abs() ** dual) ** (1 / dual)
        for along, across in ((cos, sin), (sin, cos))
    ]
    solid = there & ~carve
    low, high = (
        torch.stack([torch.where(solid, edge, empty) for edge in edges])
        for edges, empty in (
            ((x - halves[0], y - halves[1], bottom), math.inf),
            ((x + halves[0], y + halves[1], top), -math.inf),
        )
    )
    low, high = low.amin(2)[:, :, None], high.amax(2)[:, :, None]  # (3, N, 1)
    extent = size - 2 * padding(size)
    scale = extent / (high - low).amax(0)
    x, y = scale * (x - (low[0] + high[0]) / 2), scale * (y - (low[1] + high[1]) / 2)
    bottom, top = (scale * (edge - (low[2] + high[2]) / 2) for edge in (bottom, top))
    # Thick enough to hold the centre of a voxel, however it is turned: sqrt(2) across, 1 upwards.
    width, depth = ((scale * side).clamp(min=1.5) for side in (width, depth))
    top = torch.where(there, torch.maximum(top, bottom + 1), bottom)

    centres = torch.arange(size) + 0.5 - size / 2
    dx = centres[:, None, None, None] - x  # (X, 1, N, P)
    dy = centres[None, :, None, None] - y
    across = ((cos * dx + sin * dy) / (width / 2)).abs()
    along = ((cos * dy - sin * dx) / (depth / 2)).abs()
    footprint = (across**power + along**power <= 1).float().flatten(0, 1).transpose(0, 1)  # (N, X Y, P)
    level = centres[:, None, None]
    inside = ((level >= bottom) & (level < top)).float().permute(1, 2, 0)  # (N, P, Z)
    kept, carved = (torch.bmm(footprint, inside * which[:, :, None]) > 0 for which in (~carve, carve))
    within = centres.abs() < extent / 2  # what was thickened at the rim would reach into the padding
    return (kept & ~carved).unflatten(1, (size, size)) & within[:, None, None] & within[:, None] & within


def make_shapes(
    count: int, size: int = 30, classes: Sequence[str] | None = None, rotations: int = 12, seed: int = 0
) -> tuple[np.ndarray, Tensor]:
    """Random shapes, each a function of its number and the seed: a longer list begins with the shorter one.

    Args:
        count: how many; their classes take turns.
        size: voxels along each side of the grid.
        classes: which; None: all.
        rotations: angles about the vertical, evenly spread, of which each shape has one.
        seed: of proportions and angles.

    Returns:
        Voxels, bool ``(count, size, size, size)``, and labels, int64 ``(count,)``.
    """
    names = chosen_classes(classes, tuple(CLASSES))
    labels = torch.arange(count) % len(names)
    # NumPy promises never to change what this old generator gives.
    draws = np.random.RandomState(seed % 2**32).random_sample((count, DRAWS + 1))
    uniform = torch.from_numpy(draws).float()
    voxels = np.empty((count, size, size, size), bool)
    for label, name in enumerate(names):
        for members in torch.split(torch.arange(label, count, len(names)), CHUNK):
            turn = (uniform[members, DRAWS] * rotations).floor()
            solids = CLASSES[name](Draws(uniform[members, :DRAWS]))
            voxels[members.numpy()] = build(solids, turn * (2 * math.pi / rotations), size).numpy()
    return voxels, labels


class SyntheticShapes(ImageDataModule):
    """Furniture of random proportions as voxels: ten classes, made on the spot and the same everywhere.

    Bathtubs, beds, benches, bookshelves, chairs, desks, lamps, monitors, sofas and tables of boxes, cylinders and
    rounded boxes, laid out as the grids of :class:`ModelNet` are: solid, turned about gravity, 3 empty voxels around.

    Example:
        >>> data = SyntheticShapes(num_train=40, num_val=10, num_test=10, batch_size=20)
        >>> voxels, targets = next(iter(data.train_dataloader()))
        >>> voxels.shape, data.num_classes, data.class_names[4]
        (torch.Size([20, 1, 30, 30, 30]), 10, 'chair')

    Args:
        size: voxels along each side of the grid; a tenth of them stays empty on either side.
        classes: which, in the order of their targets. Default: all.
        rotations: angles about gravity, evenly spread, of which each shape has one.
        num_train: shapes to train on.
        num_val: shapes for validation, besides those.
        num_test: shapes for testing.
    """

    def __init__(
        self,
        size: int = 30,
        classes: list[str] | None = None,
        rotations: int = 12,
        num_train: int = 5000,
        num_val: int = 500,
        num_test: int = 1000,
        **kwargs: Any,
    ) -> None:
        if min(num_val, num_test) < 0 or min(num_train, rotations) < 1:
            raise ValueError(
                "num_train and rotations must be at least 1, num_val and num_test at least 0; "
                f"got {num_train}, {rotations}, {num_val} and {num_test}"
            )
        padding(size)
        self.size = size
        self.rotations = rotations
        self.class_names = chosen_classes(classes, tuple(CLASSES))
        """Names of the classes, by target."""
        self._counts = (num_train, num_val, num_test)
        super().__init__(**kwargs)

    def describe(self) -> DataInfo:
        return DataInfo((1, *3 * [self.size]), len(self.class_names), *self._counts, ("train", "val", "test"))

    def load(self, part: Split) -> ImageSet:
        total = {"train": self.info.train_size, "val": self.info.val_size, "test": self.info.test_size}[part]
        seed = derived_seed("shapes", part)
        voxels, labels = make_shapes(total, self.size, self.class_names, self.rotations, seed)
        return ImageSet(PackedVoxels(torch.from_numpy(pack(voxels)), self.info.shape[1:]), labels)

    def remarks(self) -> list[str]:
        named = [] if len(self.class_names) == len(CLASSES) else [f"classes {', '.join(self.class_names)}"]
        return [*named, f"{self.rotations} rotations"]
