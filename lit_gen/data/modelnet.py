"""ModelNet: objects of daily life as voxels (Wu et al. 2015)."""

import os
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info

from lit_gen.data.base import DataInfo, ImageDataModule, ImageSet
from lit_gen.data.loader import Split
from lit_gen.data.meshes import read_off, voxelize
from lit_gen.data.voxels import PackedVoxels, chosen_classes, pack, padding

PAGE = "https://modelnet.cs.princeton.edu"
OFFICIAL = {
    "airplane": (626, 100), "bathtub": (106, 50), "bed": (515, 100), "bench": (173, 20), "bookshelf": (572, 100),
    "bottle": (335, 100), "bowl": (64, 20), "car": (197, 100), "chair": (889, 100), "cone": (167, 20),
    "cup": (79, 20), "curtain": (138, 20), "desk": (200, 86), "door": (109, 20), "dresser": (200, 86),
    "flower_pot": (149, 20), "glass_box": (171, 100), "guitar": (155, 100), "keyboard": (145, 20), "lamp": (124, 20),
    "laptop": (149, 20), "mantel": (284, 100), "monitor": (465, 100), "night_stand": (200, 86), "person": (88, 20),
    "piano": (231, 100), "plant": (240, 100), "radio": (104, 20), "range_hood": (115, 100), "sink": (128, 20),
    "sofa": (680, 100), "stairs": (124, 20), "stool": (90, 20), "table": (392, 100), "tent": (163, 20),
    "toilet": (344, 100), "tv_stand": (267, 100), "vase": (475, 100), "wardrobe": (87, 20), "xbox": (103, 20),
}  # fmt: skip
"""Objects to train and to test on, by class."""
TEN = ("bathtub", "bed", "chair", "desk", "dresser", "monitor", "night_stand", "sofa", "table", "toilet")


class ModelNet(ImageDataModule):
    """ModelNet10 or ModelNet40 as binary voxel grids, every object in several rotations about gravity.

    ModelNet10 has 3,991 objects to train and 908 to test on, ModelNet40 9,843 and 2,468; a tenth of the former is for
    validation. All rotations of an object are images of their own, in every split, and stay together in one: sizes
    count images, so that ``val_size`` and ``subset`` are multiples of ``rotations``.

    It reads the meshes as published, ``root/ModelNet10/chair/train/chair_0001.off`` and so on, voxelizes them once
    (:func:`~lit_gen.data.meshes.voxelize`; that takes a while) and keeps the grids, one bit a voxel, beside them in
    ``root/modelnet/modelnet10_vox30_rot12_{train,test}.npz``. Files of that kind are also read where there are no
    meshes, in ``root`` or ``root/modelnet``: ``voxels_packed`` uint8 ``(N, rotations, bytes)``, or ``(N, bytes)`` for
    one rotation; ``labels`` ``(N,)``; ``classes``, their names.

    Args:
        root: folder that holds ``ModelNet10`` or ``ModelNet40``, or such files.
        variant: number of classes, 10 or 40.
        classes: which of them, in the order of their targets. Default: all.
        rotations: angles, evenly spread from 0: a file of 12 serves 1, 2, 3, 4, 6 and 12.
        size: voxels along each side of the grid; a tenth of them stays empty on either side.
    """

    def __init__(
        self,
        root: str = "data",
        variant: Literal[10, 40] = 10,
        classes: list[str] | None = None,
        rotations: int = 12,
        size: int = 30,
        **kwargs: Any,
    ) -> None:
        root = str(root)  # a Path would make the checkpoint unreadable with weights_only=True
        self.root = Path(root).expanduser()
        if variant not in (10, 40):
            raise ValueError(f"variant must be 10 or 40, the number of classes; got {variant}")
        if rotations < 1:
            raise ValueError(f"rotations must be at least 1, got {rotations}")
        padding(size)
        self.variant = variant
        self.rotations = rotations
        self.size = size
        self._classes = classes
        super().__init__(**kwargs)

    def describe(self) -> DataInfo:
        counts = self._counts()
        self.class_names = chosen_classes(self._classes, tuple(counts))
        """Names of the classes, by target."""
        train, test = (self.rotations * sum(counts[name][part] for name in self.class_names) for part in (0, 1))
        val = train // self.rotations // 10 * self.rotations
        shape = (1, *3 * [self.size])
        return DataInfo(shape, len(self.class_names), train, val, test, ("train", "test"), self.rotations)

    def prepare_data(self) -> None:
        """Voxelize the meshes, unless their grids are there.

        Raises:
            FileNotFoundError: there are neither; says where to get them.
            ValueError: a mesh is damaged.
            OSError: the grids cannot be written.
        """
        for part in self.info.official:
            if self._grids(part) is None:
                self._voxelize(part)

    def load(self, part: Split) -> ImageSet:
        path = self._grids(part)
        if path is None:
            raise FileNotFoundError(self._missing(part))
        try:
            with np.load(path) as stored:
                packed, labels, names = stored["voxels_packed"], stored["labels"], stored["classes"].tolist()
                packed = packed.reshape(len(labels), -1, -(-(self.size**3) // 8))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} holds no packed grids of {self.size} ({error}): remove it") from error
        packed = packed[:, :: packed.shape[1] // self.rotations]
        target = np.full(len(names), -1)
        for number, name in enumerate(self.class_names):
            target[names.index(name)] = number
        targets = target[labels]
        packed = np.ascontiguousarray(packed[targets >= 0]).reshape(-1, packed.shape[2])
        targets = targets[targets >= 0].repeat(self.rotations)
        return ImageSet(PackedVoxels(torch.from_numpy(packed), self.info.shape[1:]), torch.from_numpy(targets))

    def remarks(self) -> list[str]:
        named = [] if self._classes is None else [f"classes {', '.join(self.class_names)}"]
        return [f"ModelNet{self.variant}", *named, f"{self.rotations} rotations of each object"]

    # ---- files

    def _counts(self) -> dict[str, tuple[int, int]]:
        """Objects to train and to test on, by class: of the files, or as published where there are none yet."""
        paths = [self._grids("train"), self._grids("test")]
        counted: list[dict[str, int]] = []
        for part, path in zip(("train", "test"), paths):
            if path is not None:
                with np.load(path) as stored:
                    numbers = np.bincount(stored["labels"], minlength=len(stored["classes"])).tolist()
                    counted.append(dict(zip(stored["classes"].tolist(), numbers)))
            elif self._meshes() is not None:
                counted.append({name: len(files) for name, files in self._objects(part).items()})
        if len(counted) == 2:
            return {name: (number, counted[1].get(name, 0)) for name, number in counted[0].items() if number}
        return {name: OFFICIAL[name] for name in (TEN if self.variant == 10 else OFFICIAL)}

    def _name(self, part: str, rotations: int) -> str:
        return f"modelnet{self.variant}_vox{self.size}_rot{rotations:02}_{part}.npz"

    def _grids(self, part: str) -> Path | None:
        """The file of grids in these rotations, or in more that contain them."""
        for rotations in (self.rotations, *range(2 * self.rotations, 25, self.rotations)):
            for folder in (self.root, self.root / "modelnet"):
                if (path := folder / self._name(part, rotations)).is_file():
                    return path
        return None

    def _meshes(self) -> Path | None:
        folder = self.root / f"ModelNet{self.variant}"
        return folder if folder.is_dir() else None

    def _objects(self, part: str) -> dict[str, list[Path]]:
        """The meshes of each class, by name."""
        folder = self._meshes()
        assert folder is not None
        classes = sorted(path for path in folder.iterdir() if (path / part).is_dir())
        return {path.name: sorted((path / part).glob("*.off")) for path in classes}

    def _missing(self, part: str) -> str:
        other = next((path for path in self.root.rglob(self._name(part, 0).replace("rot00", "rot*"))), None)
        found = "" if other is None else f" ({other.name} has other rotations than rotations={self.rotations})"
        name = f"ModelNet{self.variant}"
        return (
            f"{name} is not in {self.root}{found}: get {name}.zip from {PAGE} and unpack it there, so that"
            f" {name}/chair/{part} holds .off files, or name the folder that has it: --data.root (root=... in Python)"
        )

    def _voxelize(self, part: str) -> None:
        objects = self._objects(part) if self._meshes() else {}
        total = sum(map(len, objects.values()))
        if not total:
            raise FileNotFoundError(self._missing(part))
        rank_zero_info(f"{self.name}: voxelizing {total:,} meshes ({part}) in {self.rotations} rotations, once")
        packed, labels, names = [], [], []
        for label, paths in enumerate(objects.values()):
            for path in paths:
                packed.append(pack(voxelize(*read_off(path), self.size, self.rotations)))
                labels.append(label)
                names.append(path.stem)
        target = self.root / "modelnet" / self._name(part, self.rotations)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        try:
            target.parent.mkdir(exist_ok=True)
            with partial.open("wb") as file:
                np.savez_compressed(
                    file,
                    voxels_packed=np.stack(packed),
                    labels=np.array(labels, np.uint8),
                    names=np.array(names),
                    classes=np.array(list(objects)),
                )
            partial.replace(target)
        except OSError as error:
            raise OSError(f"cannot write {target} ({error}): free some space, or copy the meshes elsewhere") from error
        finally:
            partial.unlink(missing_ok=True)
