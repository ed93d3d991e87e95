"""Samplers of :class:`~lit_gen.models.DDPM`: ways back from noise to an image, in any number of steps.

Ho, Jain & Abbeel 2020, Denoising diffusion probabilistic models, algorithm 2 (https://arxiv.org/abs/2006.11239); Song,
Meng & Ermon 2021, Denoising diffusion implicit models (https://arxiv.org/abs/2010.02502); Nichol & Dhariwal 2021,
Improved denoising diffusion probabilistic models, section 4 (https://arxiv.org/abs/2102.09672).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from lit_gen.networks import Recorded

Correction = Callable[[Tensor, int], Tensor]
"""What is done to a state after it has been drawn: (the state, its step) -> the state to go on from."""


class DiffusionSampler(Recorded, ABC):
    """Goes back from x_T to x_0 over some of the steps of a Gaussian chain.

    Args:
        steps: how many; None: all of the chain.
    """

    def __init__(self, steps: int | None = None) -> None:
        if steps is not None and steps < 1:
            raise ValueError(f"a sampler takes at least 1 step, got {steps}")
        self.steps = steps

    def visited(self, total: int) -> list[int]:
        """The steps at which the network is asked, evenly spread, from the last of the chain downwards.

        Args:
            total: T of the chain.

        Raises:
            ValueError: the chain has fewer.
        """
        count = total if self.steps is None else self.steps
        if count > total:
            raise ValueError(f"a sampler of {count} steps needs a chain of as many, this one has {total}; give fewer")
        return [round(number * total / count) for number in range(count, 0, -1)]

    def walk(
        self, denoise: Callable[[Tensor, int], Tensor], noise: Tensor, kept: Sequence[float], correct: Correction
    ) -> Iterator[Tensor]:
        """The states x_T .. x_0, the last without noise.

        Args:
            denoise: the network's guess of x_0 from a state and its step.
            noise: x_T.
            kept: alpha-bar of the steps 0 to T.
            correct: done to each state before the next is drawn.
        """
        x = correct(noise, len(kept) - 1)
        yield x
        for now, then in pairwise([*self.visited(len(kept) - 1), 0]):
            x = correct(self.step(x, denoise(x, now), kept[now], kept[then]), then)
            yield x

    @abstractmethod
    def step(self, x: Tensor, data: Tensor, kept_now: float, kept_then: float) -> Tensor:
        """A state of an earlier step; with ``kept_then`` = 1 that is x_0, and nothing is added.

        Args:
            x: the state.
            data: the guess of x_0 from it.
            kept_now: alpha-bar of the step.
            kept_then: alpha-bar of the earlier step, larger.
        """


def check_variance(variance: str) -> str:
    """The name of a variance of the reverse process.

    Raises:
        ValueError: it is none.
    """
    if variance not in ("large", "small"):
        raise ValueError(f"variance must be large (beta) or small (beta-tilde), got {variance!r}")
    return variance


class AncestralSampler(DiffusionSampler):
    """Draws each state from the reverse process, as the chain was trained (Ho et al. 2020, algorithm 2).

    With fewer steps, the chain is the one that visits only these (Nichol & Dhariwal 2021, section 4).

    Args:
        steps: how many; None: all of the chain.
        variance: of the reverse process: ``large`` is beta, ``small`` is beta-tilde, better with few steps.
    """

    def __init__(self, steps: int | None = None, variance: Literal["large", "small"] = "large") -> None:
        super().__init__(steps)
        self.variance = check_variance(variance)

    def step(self, x: Tensor, data: Tensor, kept_now: float, kept_then: float) -> Tensor:
        alpha = kept_now / kept_then
        mean = math.sqrt(kept_then) * (1 - alpha) * data + math.sqrt(alpha) * (1 - kept_then) * x
        mean = mean / (1 - kept_now)
        if kept_then == 1:
            return mean
        variance = 1 - alpha if self.variance == "large" else (1 - alpha) * (1 - kept_then) / (1 - kept_now)
        return mean + math.sqrt(variance) * torch.randn_like(x)


class DDIMSampler(DiffusionSampler):
    """Steps of any length, with or without noise (Song et al. 2021, equation 12).

    Args:
        steps: how many; None: all of the chain.
        eta: 0: the image is a function of x_T; 1: the noise of :class:`AncestralSampler` with small variances.
    """

    def __init__(self, steps: int | None = 50, eta: float = 0.0) -> None:
        super().__init__(steps)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie in 0..1, got {eta}")
        self.eta = eta

    def step(self, x: Tensor, data: Tensor, kept_now: float, kept_then: float) -> Tensor:
        # Of the guess as it is, clipped or not: so that state, noise and guess agree.
        noise = (x - math.sqrt(kept_now) * data) / math.sqrt(1 - kept_now)
        variance = self.eta**2 * (1 - kept_then) / (1 - kept_now) * (1 - kept_now / kept_then)
        x = math.sqrt(kept_then) * data + math.sqrt(max(0.0, 1 - kept_then - variance)) * noise
        return x + math.sqrt(variance) * torch.randn_like(x) if variance > 0 else x


SamplerFactory = Callable[[], DiffusionSampler]
