"""Objects seen from all around: what the data sets of views share, and which views they hold out."""

import math
from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_gen.data.base import DataInfo, ImageDataModule, ImageSet
from lit_gen.data.loader import Split, TargetSource
from lit_gen.views import ViewTarget

SPLITS: tuple[Split, ...] = ("train", "val", "test")


class ViewSet(NamedTuple):
    """What a data set of views is made of, known before anything is rendered or read."""

    shape: tuple[int, int, int]  # (C, H, W)
    class_names: tuple[str, ...]  # one object each
    azimuths: tuple[float, ...]  # degrees, evenly spread or nearly so, ascending
    elevations: tuple[float, ...]  # degrees


class ViewTable(NamedTuple):
    """Which images there are, or are wanted: numbers of class, azimuth and elevation, ``(N,)`` each."""

    classes: np.ndarray
    azimuths: np.ndarray
    elevations: np.ndarray

    def where(self, chosen: np.ndarray) -> "ViewTable":
        """Those of a mask ``(N,)``."""
        return ViewTable(*(part[chosen] for part in self))


class ResidentViews(TargetSource):
    """Classes, views and masks in memory.

    Args:
        classes: int64 ``(N,)``.
        azimuth: ``(N,)`` radians.
        elevation: ``(N,)`` radians.
        masks: uint8 ``(N, 1, H, W)``.
    """

    def __init__(self, classes: Tensor, azimuth: Tensor, elevation: Tensor, masks: Tensor) -> None:
        self.classes, self.azimuth, self.elevation, self.masks = classes, azimuth, elevation, masks

    def _map(self, change: Any) -> "ResidentViews":
        return ResidentViews(*map(change, (self.classes, self.azimuth, self.elevation, self.masks)))

    def __len__(self) -> int:
        return len(self.classes)

    def to(self, device: torch.device) -> "ResidentViews":
        return self._map(lambda part: part.to(device))

    def take(self, indices: Tensor) -> "ResidentViews":
        return self._map(lambda part: part[indices])

    def fetch(self, indices: Tensor, epoch: int, generator: torch.Generator | None) -> ViewTarget:
        chosen = self.take(indices)
        return ViewTarget(chosen.classes, chosen.azimuth, chosen.elevation, chosen.masks / 255)


class ViewDataModule(ImageDataModule):
    """Base of data sets in which every class is one object, seen from a grid of azimuths and elevations.

    Training sees some of the views; validation and test are those that it does not see. Targets are
    :class:`~lit_gen.views.ViewTarget`. A data set gives :meth:`describe_views` and :meth:`load_views`.

    Args:
        held_out_every: every n-th azimuth is held out, of all classes: views between those that training sees. Half of
            them are for validation, half for the test. 0 holds none out.
        held_out_elevations: degrees of elevations that are for the test alone, of all classes: views beyond (or
            between) those that training sees.
        few_view_classes: so many classes, the last ones, are trained on ``few_views`` views each; the rest of their
            views are for the test: what the model knows of them it has from the other classes.
        few_views: evenly spread azimuths, taking turns at the elevations.
    """

    def __init__(
        self,
        held_out_every: int = 4,
        held_out_elevations: list[float] | None = None,
        few_view_classes: int = 0,
        few_views: int = 4,
        **kwargs: Any,
    ) -> None:
        self.held_out_every = held_out_every
        self.held_out_elevations = tuple(held_out_elevations or ())
        self.few_view_classes = few_view_classes
        self.few_views = few_views
        super().__init__(**kwargs)
        for option, wrong in (("horizontal_flip", self.horizontal_flip), ("binarization", self.binarization != "none")):
            if wrong:
                raise ValueError(
                    f"{option} does not fit {self.name}: its images come with views and masks, which it would leave as"
                    " they are; leave it out"
                )
        train = self.tables["train"]
        seen = sorted({(int(a), int(e)) for a, e in zip(train.azimuths, train.elevations)})
        self.views = [(self.view_set.azimuths[a], self.view_set.elevations[e]) for a, e in seen]

    # ---- what a data set gives

    @abstractmethod
    def describe_views(self) -> ViewSet:
        """Shape, classes and views; called by ``__init__`` after the options are set."""

    @abstractmethod
    def load_views(self, table: ViewTable) -> tuple[Tensor, Tensor]:
        """Images ``(N, C, H, W)`` and masks ``(N, 1, H, W)``, uint8, of these views."""

    # ---- the split

    def describe(self) -> DataInfo:
        self.view_set = self.describe_views()
        self.class_names = self.view_set.class_names
        """Names of the objects, by target."""
        self.tables: dict[Split, ViewTable] = self._split()
        """The views of each split."""
        train, val, test = (len(self.tables[part].classes) for part in SPLITS)
        return DataInfo(self.view_set.shape, len(self.class_names), train, val, test, SPLITS)

    def _split(self) -> dict[Split, ViewTable]:
        shapes = self.view_set
        total, around, levels = len(shapes.class_names), len(shapes.azimuths), len(shapes.elevations)
        every = self.held_out_every
        if every < 0 or every == 1 or every > around:
            raise ValueError(f"held_out_every must be 0 (none), or 2 to {around}, the number of azimuths; got {every}")
        unknown = [degrees for degrees in self.held_out_elevations if degrees not in shapes.elevations]
        if unknown:
            there = ", ".join(f"{degrees:g}" for degrees in shapes.elevations)
            raise ValueError(f"held_out_elevations must be some of the elevations {there}; got {unknown[0]:g}")
        if not 0 <= self.few_view_classes < total:
            raise ValueError(
                f"few_view_classes must be fewer than the {total} classes, from which they are to learn; got"
                f" {self.few_view_classes}"
            )
        classes, azimuths, elevations = (part.ravel() for part in np.indices((total, around, levels)))
        table = ViewTable(classes, azimuths, elevations)
        out = np.zeros(len(classes), bool) if every == 0 else azimuths % every == every - 1
        beyond = np.isin(np.array(shapes.elevations)[elevations], self.held_out_elevations)
        # Neighbours in azimuth and in elevation go to different splits.
        val = out & ~beyond & ((azimuths // max(every, 1) + elevations) % 2 == 1)
        train = ~out & ~beyond
        transfer = classes >= total - self.few_view_classes
        candidates = np.flatnonzero(train[: around * levels])  # of the first class, as of any
        at = [candidates[elevations[candidates] == level] for level in range(levels)]
        at = [views for views in at if len(views)]
        if not at:
            raise ValueError("all elevations are held out: leave some of them to train on")
        if self.few_view_classes and not 1 <= self.few_views <= len(at[0]):
            raise ValueError(f"few_views must be 1 to {len(at[0])}, the azimuths to train on; got {self.few_views}")
        few = [at[i % len(at)][i * len(at[0]) // self.few_views] for i in range(self.few_views)]
        train &= ~transfer | np.isin(np.arange(len(classes)) % (around * levels), few)
        return {
            "train": table.where(train),
            "val": table.where(val & ~transfer),
            "test": table.where(~train & ~(val & ~transfer)),
        }

    def load(self, part: Split) -> ImageSet:
        table = self.tables[part]
        images, masks = self.load_views(table)
        azimuth, elevation = (
            torch.tensor([math.radians(degrees) for degrees in known])[torch.from_numpy(numbers)]
            for known, numbers in (
                (self.view_set.azimuths, table.azimuths),
                (self.view_set.elevations, table.elevations),
            )
        )
        return ImageSet(images, ResidentViews(torch.from_numpy(table.classes), azimuth, elevation, masks))

    def remarks(self) -> list[str]:
        around, levels = len(self.view_set.azimuths), [f"{degrees:g}" for degrees in self.view_set.elevations]
        facts = [f"{len(self.class_names)} objects, {around} azimuths at elevations of {', '.join(levels)} degrees"]
        if self.held_out_every:
            facts.append(f"every {self.held_out_every}th azimuth held out")
        if self.held_out_elevations:
            facts.append(f"elevations {', '.join(f'{degrees:g}' for degrees in self.held_out_elevations)} held out")
        if self.few_view_classes:
            facts.append(f"the last {self.few_view_classes} objects trained on {self.few_views} views each")
        return facts
