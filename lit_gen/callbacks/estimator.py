"""What an estimator of the likelihood is to the :class:`~lit_gen.callbacks.LikelihoodDesk`."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lit_gen.inference import Progress
from lit_gen.models.base import GenerativeModel, LikelihoodModel


class Work(NamedTuple):
    """Images to be measured, and where the results go."""

    table: str
    """``data`` or ``simulated``: results of one table are averaged."""
    images: Tensor
    """(B, C, H, W)."""
    condition: Any = None
    """Of these images."""
    latents: Tensor | None = None
    """(B, *event) those that simulated images were decoded from."""

    def part(self, rows: slice) -> "Work":
        """Some of the images."""
        return Work(self.table, *apply_to_collection(tuple(self[1:]), Tensor, lambda values: values[rows]))


@dataclass
class Moments:
    """Sums over images of the numbers that were measured of each."""

    count: int = 0
    total: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    squares: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def add(self, rows: Tensor) -> None:
        """Take in ``(n, columns)``."""
        self.count += len(rows)
        self.total = self.total + rows.double().sum(0)
        self.squares = self.squares + rows.double().square().sum(0)

    def merge(self, other: "Moments") -> None:
        """Take in what another process measured."""
        self.count += other.count
        self.total, self.squares = self.total + other.total, self.squares + other.squares

    @property
    def mean(self) -> Tensor:
        """(columns,)."""
        return self.total / self.count

    @property
    def variance(self) -> Tensor:
        """(columns,) over images, that of the population."""
        return (self.squares / self.count - self.mean.square()).clamp(min=0)

    def standard_error(self, column: int = 0) -> float:
        """Of the mean of a column, from the spread over images."""
        return math.sqrt(self.variance[column].item() / max(1, self.count - 1)) if self.count > 1 else math.nan


class Finding(NamedTuple):
    """A number that is logged."""

    name: str
    """What follows ``test/``."""
    value: float
    standard_error: float | None = None
    """Over images, in the unit of the value."""
    num_images: int = 0
    """Images of the data that it is a mean of."""
    num_generated: int = 0
    """Images of the model that it was computed from."""
    in_bits: bool = False
    """Whether it is worth a number in bits per dimension besides."""


class LikelihoodEstimator(ABC):
    """One way to measure a model.

    Its public attributes are its options, plain values: they say in receipts how a number was measured, and results
    that are kept are found again by them. A subclass gives :meth:`lacks`, :meth:`images_at_a_time`, :meth:`measure` and
    :meth:`conclude`.
    """

    num_images: int | None = None
    """Measure so many of the images, the first of all processes together; None: all."""
    takes_grey_levels = False
    """Whether a density is measured on images that lie on grey levels, because the protocol has it so."""

    @abstractmethod
    def lacks(self, trainer: pl.Trainer, model: GenerativeModel) -> str | None:
        """Why this model cannot be measured in this run, as a sentence; None if it can."""

    def is_density(self, model: Any) -> bool:
        """Whether what is measured is a density of continuous pixels in [0, 1], not a probability of discrete ones."""
        return isinstance(model, LikelihoodModel) and model.is_density

    def prepare(self, trainer: pl.Trainer, model: Any, max_rows: int) -> dict[str, Any]:
        """What is done once, before the first batch, by every process; plain values that results depend on."""
        return {}

    def simulated(self, model: Any) -> Work | None:
        """Images of the model's own that are measured besides, if any."""
        return None

    @abstractmethod
    def images_at_a_time(self, max_rows: int) -> int:
        """How many, if ``max_rows`` images may be decoded at a time."""

    @abstractmethod
    def measure(self, model: Any, work: Work, max_rows: int, progress: Progress) -> Tensor:
        """The numbers of each image, ``(B, columns)``.

        Args:
            model: in eval mode, without gradients.
            work: no more than :meth:`images_at_a_time`.
            max_rows: images decoded at a time.
            progress: goes through the steps.
        """

    @abstractmethod
    def conclude(self, moments: Mapping[str, Moments]) -> list[Finding]:
        """What is logged, from the moments of each table over all images of all processes."""

    @property
    def options(self) -> dict[str, Any]:
        """Its public attributes."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}
