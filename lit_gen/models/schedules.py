"""What changes from epoch to epoch: the steps of the negative phase, learning rate and momentum."""

from abc import ABC, abstractmethod

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lit_gen.networks import Recorded


class StepSchedule(Recorded, ABC):
    """Number of Gibbs steps as a function of the epoch."""

    @abstractmethod
    def __call__(self, epoch: int) -> int:
        """Steps in the epoch of this number, counted from 0."""


class GrowingSteps(StepSchedule):
    """1 step at first, one more every few epochs: the sharper the machine, the more an honest gradient needs.

    Source: annealed contrastive divergence of Salakhutdinov & Murray 2008, CD-1 to CD-25 over 250 epochs.

    >>> steps = GrowingSteps(every_n_epochs=10, maximum=25)
    >>> [steps(epoch) for epoch in (0, 9, 10, 239, 240, 1000)]
    [1, 1, 2, 24, 25, 25]

    Args:
        every_n_epochs: epochs until there is one more.
        maximum: steps at the end.
    """

    def __init__(self, every_n_epochs: int = 10, maximum: int = 25) -> None:
        if every_n_epochs < 1 or maximum < 1:
            raise ValueError(f"every_n_epochs and maximum must be at least 1, got {every_n_epochs} and {maximum}")
        self.every_n_epochs = every_n_epochs
        self.maximum = maximum

    def __call__(self, epoch: int) -> int:
        return min(self.maximum, 1 + epoch // self.every_n_epochs)


class MomentumSchedule(LRScheduler):
    """Momentum that rises after some epochs, with a learning rate that falls: the recipes for Boltzmann machines.

    Hinton 2010, section 9: momentum 0.5 while errors fall fast, 0.9 afterwards. The rate is divided by 1, 2, 3, ... if
    ``divide_every`` is given (beside :class:`GrowingSteps`, as Salakhutdinov & Murray 2008 did), and falls to zero in a
    straight line if ``total_epochs`` is.

    Args:
        optimizer: with momentum (SGD); its own value is that of the first epochs.
        final_momentum: from then on.
        momentum_epochs: epochs until then.
        divide_every: epochs until the divisor of the learning rate grows by one; None: never.
        max_divisor: the largest.
        total_epochs: epochs until the learning rate is zero; None: never.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        final_momentum: float = 0.9,
        momentum_epochs: int = 5,
        divide_every: int | None = None,
        max_divisor: int = 25,
        total_epochs: int | None = None,
    ) -> None:
        if "momentum" not in optimizer.defaults:
            raise ValueError(f"{type(optimizer).__name__} has no momentum to change; use torch.optim.SGD")
        if not 0 <= final_momentum < 1 or (total_epochs is not None and total_epochs < 1):
            raise ValueError(
                "final_momentum must be in [0, 1) and total_epochs at least 1 (or left out), got"
                f" {final_momentum} and {total_epochs}"
            )
        self.final_momentum = final_momentum
        self.momentum_epochs = momentum_epochs
        self.divide_every = divide_every
        self.max_divisor = max_divisor
        self.total_epochs = total_epochs
        self.initial_momentum: float = optimizer.defaults["momentum"]
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        epoch, factor = self.last_epoch, 1.0
        if self.divide_every is not None:
            factor /= GrowingSteps(self.divide_every, self.max_divisor)(epoch)
        if self.total_epochs is not None:
            factor *= max(0.0, 1 - epoch / self.total_epochs)
        for group in self.optimizer.param_groups:
            group["momentum"] = self.initial_momentum if epoch < self.momentum_epochs else self.final_momentum
        return [rate * factor for rate in self.base_lrs]


class RisingMomentum(LRScheduler):
    """Momentum that rises in a straight line while the learning rate decays slowly: as Goodfellow et al. 2014 trained.

    Their program lets the momentum rise from 0.5 to 0.7 over 250 epochs of 500 steps, and divides the learning rate by
    1.000004 after each step, which is 1.002 an epoch.

    Args:
        optimizer: with momentum (SGD); its own value is that of the first epoch.
        final_momentum: reached after ``epochs``, and kept.
        epochs: until then.
        decay: factor of the learning rate from epoch to epoch.
    """

    def __init__(
        self, optimizer: Optimizer, final_momentum: float = 0.7, epochs: int = 250, decay: float = 1.000004**-500
    ) -> None:
        if "momentum" not in optimizer.defaults:
            raise ValueError(f"{type(optimizer).__name__} has no momentum to change; use torch.optim.SGD")
        if not 0 <= final_momentum < 1 or epochs < 1 or not 0 < decay <= 1:
            raise ValueError(
                "final_momentum must be in [0, 1), epochs at least 1 and decay in (0, 1], got"
                f" {final_momentum}, {epochs} and {decay}"
            )
        self.final_momentum = final_momentum
        self.epochs = epochs
        self.decay = decay
        self.initial_momentum: float = optimizer.defaults["momentum"]
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        risen = min(1.0, self.last_epoch / self.epochs)
        for group in self.optimizer.param_groups:
            group["momentum"] = self.initial_momentum + risen * (self.final_momentum - self.initial_momentum)
        return [rate * self.decay**self.last_epoch for rate in self.base_lrs]


class LengtheningStages(LRScheduler):
    """A learning rate that falls in stages, each longer than the one before: the schedule of Burda et al. 2015.

    Stage i of n lasts growth^i epochs (rounded) at 10^(-i/(n-1)) times the learning rate: with 8 stages and growth 3,
    3,280 epochs from 0.001 down to 0.0001. Afterwards the rate stays as it is.

    Args:
        optimizer: with the learning rate of the first stage.
        stages: how many, at least two.
        growth: how much longer each stage is than the one before; 2 takes 255 epochs for 8 stages.
    """

    def __init__(self, optimizer: Optimizer, stages: int = 8, growth: float = 3.0) -> None:
        if stages < 2 or growth < 1:
            raise ValueError(f"stages must be at least 2 and growth at least 1, got {stages} and {growth}")
        self.stages = stages
        self.growth = growth
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        stage, end = 0, 1
        while stage < self.stages - 1 and self.last_epoch >= end:
            stage += 1
            end += round(self.growth**stage)
        return [rate * 10 ** (-stage / (self.stages - 1)) for rate in self.base_lrs]
