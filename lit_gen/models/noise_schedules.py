"""Noise schedules of :class:`~lit_gen.models.DDPM`: how much of an image each step of the diffusion destroys."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from lit_gen.networks import Recorded
from lit_gen.objectives import cosine_rates, linear_rates


class NoiseSchedule(Recorded, ABC):
    """Noise rates beta of the steps of a Gaussian diffusion.

    Args:
        steps: T, at least 2.
    """

    def __init__(self, steps: int = 1000) -> None:
        if steps < 2:
            raise ValueError(f"a diffusion needs at least 2 steps, got {steps}")
        self.steps = steps

    @abstractmethod
    def rates(self) -> Tensor:
        """``(T,)`` in (0, 1), float64."""


class LinearSchedule(NoiseSchedule):
    """Rates that grow linearly (Ho et al. 2020). The defaults are for 1000 steps: fewer need larger rates.

    Args:
        steps: T, at least 2.
        first: rate of the first step.
        last: rate of the last step.
    """

    def __init__(self, steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> None:
        super().__init__(steps)
        if not 0 < first <= last < 1:
            raise ValueError(f"rates must be 0 < first <= last < 1, got {first} and {last}")
        self.first = first
        self.last = last

    def rates(self) -> Tensor:
        return linear_rates(self.steps, self.first, self.last)


class CosineSchedule(NoiseSchedule):
    """A signal that falls like a cosine (Nichol & Dhariwal 2021): for small images, and any number of steps.

    Args:
        steps: T, at least 2.
    """

    def rates(self) -> Tensor:
        return cosine_rates(self.steps)


ScheduleFactory = Callable[[], NoiseSchedule]
