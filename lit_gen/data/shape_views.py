"""Voxel shapes, rendered in colour from all around: parametric chairs and tables, ModelNet, and meshes."""

import math
from abc import abstractmethod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lit_gen.data.loader import InMemory, derived_seed
from lit_gen.data.meshes import READERS, find_meshes, read_mesh, voxelize
from lit_gen.data.modelnet import ModelNet
from lit_gen.data.synthetic_shapes import make_shapes
from lit_gen.data.views import ViewDataModule, ViewSet, ViewTable
from lit_gen.data.voxels import padding
from lit_gen.rendering import render

BASE = 0.6
"""A level belongs to the seat, or the table top, if its area is more than this share of the largest."""


def paint(voxels: Tensor, seed: int) -> Tensor:
    """Colours for the three parts of each shape: below, at, and above its level of largest area (a seat, a table top).

    Args:
        voxels: ``(N, 1, D, H, W)`` of 0 and 1, z upwards.
        seed: of the colours; those of a shape do not depend on how many there are.

    Returns:
        ``(N, 3, D, H, W)`` in [0, 1].
    """
    area = voxels.sum((1, 2, 3))  # (N, W)
    wide = area > BASE * area.amax(1, keepdim=True)
    level = torch.arange(voxels.shape[-1])
    largest = area.argmax(1, keepdim=True)
    # The slab around the largest level: no narrower level lies between.
    lower = torch.where(~wide & (level < largest), level, -1).amax(1, keepdim=True)
    upper = torch.where(~wide & (level > largest), level, len(level)).amin(1, keepdim=True)
    part = (level > lower).long() + (level >= upper).long()  # (N, W)
    # NumPy promises never to change what this old generator gives.
    drawn = torch.from_numpy(np.random.RandomState(seed % 2**32).random_sample((len(voxels), 3, 3))).float()
    hue, strength, value = drawn.unbind(2)  # (N, 3 parts)
    phase = 2 * math.pi * (hue[..., None] + torch.arange(3) / 3)
    palette = (
        (0.5 + 0.4 * value[..., None]) * (1 + (0.3 + 0.5 * strength[..., None]) * phase.cos()).clamp(max=1.3) / 1.3
    )
    colours = palette.gather(1, part[..., None].expand(-1, -1, 3))  # (N, W, 3)
    return colours.transpose(1, 2)[:, :, None, None].expand(-1, -1, *voxels.shape[2:])


class RenderedVoxels(ViewDataModule):
    """Base of data sets of voxel shapes, which are painted, and rendered when they are needed.

    A data set gives :meth:`names` and :meth:`voxels`.

    Args:
        azimuths: views around, evenly spread.
        elevations: degrees by which the camera looks down. Default: 20 and 30, as published.
    """

    def __init__(self, azimuths: int = 24, elevations: list[float] | None = None, **kwargs: Any) -> None:
        elevations = [20.0, 30.0] if elevations is None else elevations
        if azimuths < 2:
            raise ValueError(f"azimuths must be at least 2, got {azimuths}")
        if not elevations or len(set(elevations)) < len(elevations) or not all(abs(one) < 90 for one in elevations):
            raise ValueError(f"elevations must be different degrees between -90 and 90, got {elevations}")
        self._azimuths = tuple(360 / azimuths * number for number in range(azimuths))
        self._elevations = tuple(elevations)
        super().__init__(**kwargs)

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Of the shapes."""

    @abstractmethod
    def voxels(self) -> Tensor:
        """The shapes, ``(num_classes, 1, D, H, W)`` of 0 and 1, z upwards."""

    def describe_views(self) -> ViewSet:
        height, width = self.image_size or (64, 64)
        if height != width:
            raise ValueError(f"{self.name} renders squares: image_size must be one number, got {height} and {width}")
        return ViewSet((3, height, width), self.names(), self._azimuths, self._elevations)

    def load_views(self, table: ViewTable) -> tuple[Tensor, Tensor]:
        shapes = self.voxels().float()
        painted = paint(shapes, derived_seed("paint"))
        size = self.view_set.shape[1]
        images = torch.empty(len(table.classes), 3, size, size, dtype=torch.uint8)
        masks = torch.empty(len(table.classes), 1, size, size, dtype=torch.uint8)
        for azimuth, elevation in sorted(set(zip(table.azimuths.tolist(), table.elevations.tolist()))):
            rows = torch.from_numpy(np.flatnonzero((table.azimuths == azimuth) & (table.elevations == elevation)))
            shown = torch.from_numpy(table.classes)[rows]
            picture = render(
                shapes[shown], self._azimuths[azimuth], self._elevations[elevation], size, paint=painted[shown]
            )
            images[rows] = picture.images.mul(255).round().to(torch.uint8)
            masks[rows] = picture.masks.mul(255).round().to(torch.uint8)
        return images, masks


class SyntheticChairs(RenderedVoxels):
    """Chairs and tables of random proportions and colours, seen from all around: made on the spot, alike everywhere.

    Every object is a class of its own, chairs and tables in turn.

    Example:
        >>> data = SyntheticChairs(num_objects=2, azimuths=8, grid=16, image_size=16, batch_size=5)
        >>> images, target = next(iter(data.train_dataloader()))
        >>> images.shape, target.mask.shape, data.class_names
        (torch.Size([5, 3, 16, 16]), torch.Size([5, 1, 16, 16]), ('chair 0', 'table 0'))

    Args:
        num_objects: how many; more of them begin with the same ones.
        grid: voxels along each side of the grid that is rendered.
    """

    def __init__(self, num_objects: int = 12, grid: int = 40, **kwargs: Any) -> None:
        if num_objects < 2:
            raise ValueError(f"num_objects must be at least 2, got {num_objects}")
        padding(grid)
        self.num_objects = num_objects
        self.grid = grid
        super().__init__(**kwargs)

    def names(self) -> tuple[str, ...]:
        return tuple(f"{('chair', 'table')[number % 2]} {number // 2}" for number in range(self.num_objects))

    def voxels(self) -> Tensor:
        shapes, _ = make_shapes(self.num_objects, self.grid, ["chair", "table"], 1, derived_seed("chairs"))
        return torch.from_numpy(shapes)[:, None]

    def remarks(self) -> list[str]:
        return [f"parametric chairs and tables in grids of {self.grid}", *super().remarks()]


class ShapeViews(RenderedVoxels):
    """Objects of ModelNet, or of meshes, in colours of ours, seen from all around; every object is a class of its own.

    Args:
        root: folder of ModelNet, as :class:`ModelNet` takes it.
        variant: of ModelNet, 10 or 40.
        kind: class of ModelNet, such as chair.
        meshes: folder of ``.off``, ``.obj`` or ``.stl`` files, z upwards, searched through its subfolders, instead of
            ModelNet.
        num_objects: so many of them, the first ones.
        grid: voxels along each side of the grid; for ModelNet, of its files.
    """

    def __init__(
        self,
        root: str = "data",
        variant: Literal[10, 40] = 10,
        kind: str = "chair",
        meshes: str | None = None,
        num_objects: int = 50,
        grid: int = 30,
        **kwargs: Any,
    ) -> None:
        # A Path would make the checkpoint unreadable with weights_only=True.
        root, meshes = str(root), None if meshes is None else str(meshes)
        if num_objects < 2:
            raise ValueError(f"num_objects must be at least 2, got {num_objects}")
        padding(grid)
        self.kind = kind
        self.num_objects = num_objects
        self.grid = grid
        self.source = ModelNet(root, variant, [kind], 1, grid) if meshes is None else None
        """Where the voxels come from, unless from meshes."""
        self.files = None if meshes is None else self._files(Path(meshes).expanduser())
        """The meshes."""
        super().__init__(**kwargs)

    def _files(self, folder: Path) -> list[Path]:
        files = find_meshes(folder)[: self.num_objects]
        if len(files) < self.num_objects:
            raise FileNotFoundError(
                f"{folder} holds {len(files)} meshes ({', '.join(READERS)}), {self.num_objects} are wanted: name the"
                " folder of the meshes (--data.meshes), or ask for fewer (--data.num_objects)"
            )
        return files

    def prepare_data(self) -> None:
        if self.source is not None:
            self.source.prepare_data()

    def names(self) -> tuple[str, ...]:
        if self.files is not None:
            return tuple(path.stem for path in self.files)
        assert self.source is not None
        there = self.source.info.train_size
        if self.num_objects > there:
            raise ValueError(
                f"num_objects={self.num_objects:,} is more than the {there:,} training objects of {self.kind}"
            )
        return tuple(f"{self.kind} {number}" for number in range(self.num_objects))

    def voxels(self) -> Tensor:
        if self.files is not None:
            grids = [voxelize(*read_mesh(path), self.grid, 1) for path in self.files]
            return torch.from_numpy(np.stack(grids))
        assert self.source is not None
        images = self.source.load("train").images
        assert isinstance(images, InMemory)
        return next(images.fetch([torch.arange(self.num_objects)])) / 255

    def remarks(self) -> list[str]:
        source = "meshes" if self.files is not None else f"ModelNet, class {self.kind}"
        return [f"{source}, in grids of {self.grid}, in colours of ours", *super().remarks()]
