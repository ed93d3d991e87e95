"""Rendered chairs: 1,393 models, each seen from 62 directions (Aubry et al. 2014)."""

import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_gen.data.files import decode, stored_shape
from lit_gen.data.views import ViewDataModule, ViewSet, ViewTable

PAGE = "https://www.di.ens.fr/willow/research/seeing3Dchairs/"
PATTERN = re.compile(r"image_\d+_p(\d+)_t(\d+)_r\d+\.(png|jpg)")
"""Of the file names: elevation and azimuth in whole degrees."""
WHITE = 247
"""A pixel is background if all its channels are above this."""


class RenderedChairs(ViewDataModule):
    """Aubry et al. 2014, Seeing 3D chairs, as published: 31 azimuths at elevations of 20 and 30 degrees.

    It reads ``root/rendered_chairs/<model>/renders/image_000_p020_t000_r096.png`` and so on; the names tell the views.
    Every model is a class. Nothing is downloaded. Masks come from transparency where files have it, else they are what
    differs from the white background: white spots of a chair are holes in its mask.

    Args:
        root: folder that holds ``rendered_chairs``.
        num_objects: so many chairs, the first by name. Default: all.
        crop: the square about the centre that is kept, in pixels.
    """

    def __init__(self, root: str = "data", num_objects: int | None = None, crop: int = 400, **kwargs: Any) -> None:
        root = str(root)  # a Path would make the checkpoint unreadable with weights_only=True
        if num_objects is not None and num_objects < 2:
            raise ValueError(f"num_objects must be at least 2, got {num_objects}")
        if crop < 1:
            raise ValueError(f"crop must be at least 1, got {crop}")
        self.folder = Path(root).expanduser() / "rendered_chairs"
        self.num_objects = num_objects
        self.crop = crop
        super().__init__(**kwargs)

    def describe_views(self) -> ViewSet:
        found = sorted(path for path in self.folder.glob("*/renders") if path.is_dir())[: self.num_objects]
        if len(found) < max(2, self.num_objects or 0):
            raise FileNotFoundError(
                f"{self.folder} holds {len(found)} chairs: get rendered_chairs.tar from {PAGE} and unpack it, so that"
                f" {self.folder}/<model>/renders holds images, and name the folder it lies in: --data.root (root=... in"
                " Python)"
            )
        self.files = [self._views(folder) for folder in found]
        """The image of each elevation and azimuth, in degrees, of every chair."""
        for folder, views in zip(found, self.files):
            if views.keys() != self.files[0].keys():
                raise ValueError(
                    f"{folder} has {len(views)} views, {found[0]} has {len(self.files[0])}, or others: all chairs need"
                    " the same views; remove the folder, or complete it"
                )
        elevations, azimuths = (tuple(sorted({float(view[i]) for view in self.files[0]})) for i in (0, 1))
        if len(self.files[0]) != len(azimuths) * len(elevations):
            raise ValueError(
                f"{found[0]} has {len(self.files[0])} views, of {len(azimuths)} azimuths at {len(elevations)}"
                " elevations: all of them are needed"
            )
        height, width = self.image_size or (64, 64)
        return ViewSet((3, height, width), tuple(folder.parent.name for folder in found), azimuths, elevations)

    @staticmethod
    def _views(folder: Path) -> dict[tuple[float, float], Path]:
        matches = ((PATTERN.fullmatch(name), folder / name) for name in sorted(os.listdir(folder)))
        views = {(float(match[1]), float(match[2])): path for match, path in matches if match}
        if not views:
            raise FileNotFoundError(f"{folder} holds no images of the kind image_000_p020_t000_r096.png")
        return views

    def load_views(self, table: ViewTable) -> tuple[Tensor, Tensor]:
        _, height, width = self.view_set.shape
        images = torch.empty(len(table.classes), 3, height, width, dtype=torch.uint8)
        masks = torch.empty(len(table.classes), 1, height, width, dtype=torch.uint8)
        for row, (number, azimuth, elevation) in enumerate(zip(*table)):
            view = self.view_set.elevations[elevation], self.view_set.azimuths[azimuth]
            images[row], masks[row] = self._read(self.files[number][view], (height, width))
        return images, masks

    def _read(self, path: Path, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        image = decode(path, (3, *size), self.crop)
        if stored_shape(path)[0] in (2, 4):
            return image, decode(path, (4, *size), self.crop)[3:]
        large = decode(path, (3, self.crop, self.crop), self.crop)
        covered = (large.amin(0) <= WHITE).float()[None, None]
        mask = torch.nn.functional.interpolate(covered, size, mode="bilinear", antialias=True)[0]
        return image, mask.mul(255).round().to(torch.uint8)

    def remarks(self) -> list[str]:
        return [f"Seeing 3D chairs, centre crop {self.crop}", *super().remarks()]
