"""Rendered chairs: 1,393 models, each seen from 62 directions (Aubry et al. 2014)."""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lit_gen.data.files import automatic_workers, decode
from lit_gen.data.pixels import to_shape
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

    Files are decoded once: images and masks of each model, at the size in use, are kept in
    ``root/rendered_chairs_64x64`` (or of another size), one array ``(views, 4, H, W)`` a model. They are decoded anew
    where names or sizes of its files or ``crop`` have changed; the folder may be removed.

    Args:
        root: folder that holds ``rendered_chairs``.
        num_objects: so many chairs, the first ones. Default: all.
        crop: the square about the centre that is kept, in pixels.
        objects: text file with a model in each line, in the order of the targets; published is a choice of 809, without
            near duplicates. Default: all, by name.
    """

    def __init__(
        self,
        root: str = "data",
        num_objects: int | None = None,
        crop: int = 400,
        objects: str | None = None,
        **kwargs: Any,
    ) -> None:
        # A Path would make the checkpoint unreadable with weights_only=True.
        root, objects = str(root), None if objects is None else str(objects)
        if num_objects is not None and num_objects < 2:
            raise ValueError(f"num_objects must be at least 2, got {num_objects}")
        if crop < 1:
            raise ValueError(f"crop must be at least 1, got {crop}")
        self.folder = Path(root).expanduser() / "rendered_chairs"
        self.objects = None if objects is None else Path(objects).expanduser()
        self.num_objects = num_objects
        self.crop = crop
        super().__init__(**kwargs)

    def describe_views(self) -> ViewSet:
        found = sorted(path for path in self.folder.glob("*/renders") if path.is_dir())
        found = self._chosen(found)[: self.num_objects]
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

    def _chosen(self, found: list[Path]) -> list[Path]:
        """Those that the file names, in its order."""
        if self.objects is None or not found:
            return found
        there = {path.parent.name: path for path in found}
        if not self.objects.is_file():
            raise FileNotFoundError(f"there is no file {self.objects}: name one that lists models (--data.objects)")
        lines = self.objects.read_text(encoding="utf-8-sig").splitlines()
        names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
        unknown = [name for name in names if name not in there]
        if unknown or not names:
            wrong = f"{unknown[0]}, which {self.folder} does not have" if unknown else "no model"
            raise ValueError(f"{self.objects} names {wrong}: write a folder of it in each line, such as {min(there)}")
        return [there[name] for name in names]

    @staticmethod
    def _views(folder: Path) -> dict[tuple[float, float], Path]:
        matches = ((PATTERN.fullmatch(name), folder / name) for name in sorted(os.listdir(folder)))
        views = {(float(match[1]), float(match[2])): path for match, path in matches if match}
        if not views:
            raise FileNotFoundError(f"{folder} holds no images of the kind image_000_p020_t000_r096.png")
        return views

    def prepare_data(self) -> None:
        """Decode what no earlier run has decoded."""
        self._each(range(len(self.files)), lambda number, views: None)

    def load_views(self, table: ViewTable) -> tuple[Tensor, Tensor]:
        _, height, width = self.view_set.shape
        both = torch.empty(len(table.classes), 4, height, width, dtype=torch.uint8)
        # Files are in the order of elevation, then azimuth.
        places = table.elevations * len(self.view_set.azimuths) + table.azimuths

        def take(number: int, views: np.ndarray) -> None:
            rows = np.flatnonzero(table.classes == number)
            both[torch.from_numpy(rows)] = torch.from_numpy(views[places[rows]])

        self._each(np.unique(table.classes).tolist(), take)
        return both[:, :3].contiguous(), both[:, 3:].contiguous()

    # ---- decoding

    def _each(self, numbers: Sequence[int], use: Callable[[int, np.ndarray], None]) -> None:
        """Hand each of these models to ``use``: ``(views, 4, H, W)`` uint8, ordered by elevation and azimuth."""
        kept = {number: self._kept(number) for number in numbers}
        missing = [path for path in kept.values() if not path.is_file()]
        if missing:
            images = len(missing) * len(self.files[0])
            rank_zero_info(f"{self.name}: decoding {images:,} images into {missing[0].parent}, once")
        with ThreadPoolExecutor(automatic_workers()) as pool:
            for _ in pool.map(lambda number: use(number, self._object(number, kept[number])), numbers):
                pass

    def _kept(self, number: int) -> Path:
        """The file that holds a model decoded; its name tells other files, sizes and crops apart."""
        _, height, width = self.view_set.shape
        sha = hashlib.sha256(f"crop {self.crop}, white {WHITE}".encode())
        for _, path in sorted(self.files[number].items()):
            sha.update(f"{path.name}\0{path.stat().st_size}\n".encode())
        folder = self.folder.with_name(f"{self.folder.name}_{height}x{width}")
        return folder / f"{self.class_names[number]}_{sha.hexdigest()[:8]}.npy"

    def _object(self, number: int, kept: Path) -> np.ndarray:
        if kept.is_file():
            try:
                return np.load(kept, mmap_mode="r")
            except (OSError, ValueError, EOFError) as error:
                raise ValueError(f"{kept} cannot be read ({error}): remove it") from error
        _, height, width = self.view_set.shape
        views = torch.stack([self._read(path, (height, width)) for _, path in sorted(self.files[number].items())])
        partial = kept.with_name(f".{kept.name}.{os.getpid()}.partial")
        try:
            kept.parent.mkdir(exist_ok=True)
            with partial.open("wb") as file:
                np.save(file, views.numpy())
            partial.replace(kept)
        except OSError as error:
            raise OSError(
                f"cannot write {kept} ({error}): free some space, or make a folder of your own with a link to"
                f" {self.folder} in it, and name that one: --data.root (root=... in Python)"
            ) from error
        finally:
            partial.unlink(missing_ok=True)
        return views.numpy()

    def _read(self, path: Path, size: tuple[int, int]) -> Tensor:
        """Image and mask, ``(4, *size)``."""
        pixels = decode(path, (4, self.crop, self.crop), self.crop, resize=False)
        colours, opacity = pixels[:3], pixels[3:]
        if int(opacity.min()) < 255:
            share = opacity / 255
            colours = (colours * share + 255 * (1 - share)).round().to(torch.uint8)
            mask = to_shape(opacity[None].contiguous(), (1, *size))[0]
        else:
            covered = (colours.amin(0) <= WHITE).float()[None, None]
            mask = torch.nn.functional.interpolate(covered, size, mode="bilinear", antialias=True)[0]
            mask = mask.mul(255).round().to(torch.uint8)
        return torch.cat([to_shape(colours[None].contiguous(), (3, *size))[0], mask])

    def remarks(self) -> list[str]:
        chosen = [] if self.objects is None else [f"those of {self.objects.name}"]
        return ["Seeing 3D chairs", *chosen, f"centre crop {self.crop}", *super().remarks()]
