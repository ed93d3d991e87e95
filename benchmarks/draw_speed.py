"""Training steps of DRAW beside the same equations written plainly (``plain_draw.py``), over T and size.

Networks are those of the ready configs, with Bernoulli pixels everywhere; a step is objective, gradient and fused Adam
on a batch in memory, for both alike and without a trainer. Weights are equal at the start, and so are the numbers (a
test). Contestants take turns, and the best of several steps counts, in seconds of the processor: one thread, whatever
else the machine does.
"""

import gc
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.conditions import BATCH
from benchmarks.plain_draw import PlainDRAW
from lit_gen.models import DRAW
from lit_gen.networks import AttentiveReader, AttentiveWriter


class Case(NamedTuple):
    """A network and its images."""

    image_shape: tuple[int, int, int]
    steps: int
    latent_dim: int
    hidden_dim: int
    read_size: int
    write_size: int

    @property
    def name(self) -> str:
        """What is varied."""
        channels, height, width = self.image_shape
        return f"{height}x{width}{' grey' if channels == 1 else ' colour'}, T = {self.steps}"

    @property
    def network(self) -> str:
        """All else."""
        return f"{self.hidden_dim} units, {self.latent_dim} latents, reads {self.read_size}, writes {self.write_size}"


CASES = (
    *(Case((1, 28, 28), steps, 100, 256, 2, 5) for steps in (8, 16, 32, 64)),  # draw/mnist
    Case((1, 60, 60), 8, 100, 400, 5, 5),  # draw/mnist_two_digits
    Case((3, 32, 32), 8, 200, 400, 5, 5),  # draw/cifar10
    Case((3, 54, 54), 8, 100, 800, 12, 12),  # draw/svhn_numbers
)
TARGETS = {f"{case.name} / plain": 1.5 for case in CASES}


def contestants(case: Case) -> tuple[DRAW, PlainDRAW]:
    """Both models, with equal weights."""
    ours = DRAW(
        case.image_shape,
        case.steps,
        case.latent_dim,
        case.hidden_dim,
        lambda shape, units: AttentiveReader(shape, units, case.read_size),
        lambda state, canvas: AttentiveWriter(state, canvas, case.write_size),
    )
    plain = PlainDRAW(*case)
    plain.take_weights(ours)
    return ours, plain


def step_seconds(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> float:
    """Seconds of the processor for one training step."""
    start = time.process_time()
    optimizer.zero_grad()
    loss().backward()
    optimizer.step()
    return time.process_time() - start


def measure(repeats: int, cases: tuple[Case, ...] = CASES, batch_size: int = BATCH) -> dict[str, Any]:
    """All contestants in turn, after a step that does not count; the best time of each."""
    seconds: dict[str, dict[str, list[float]]] = {}
    for case in cases:
        torch.manual_seed(0)
        images = (torch.rand(batch_size, *case.image_shape) > 0.5).float()
        ours, plain = contestants(case)
        losses: dict[str, Callable[[], Tensor]] = {
            "lit_gen": lambda ours=ours, images=images: ours.objective(images).loss.mean(),  # type: ignore[misc]
            "plain": lambda plain=plain, images=images: sum(plain(images)).mean(),  # type: ignore[misc]
        }
        optimizers = {
            name: torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
            for name, model in (("lit_gen", ours), ("plain", plain))
        }
        found: dict[str, list[float]] = {name: [] for name in losses}
        for repeat in range(repeats + 1):
            for name, loss in losses.items():
                gc.collect()
                took = step_seconds(loss, optimizers[name])
                if repeat:
                    found[name].append(took)
        seconds[case.name] = found
        best = {name: min(times) for name, times in found.items()}
        print(f"{case.name:<24} {1000 * best['lit_gen']:>8.0f} ms, plain {1000 * best['plain']:>8.0f} ms", flush=True)
    ratios = {f"{name} / plain": min(found["plain"]) / min(found["lit_gen"]) for name, found in seconds.items()}
    milliseconds = {name: {who: 1000 * min(times) for who, times in found.items()} for name, found in seconds.items()}
    networks = {case.name: case.network for case in cases}
    return {
        "networks": networks,
        "milliseconds_per_step": milliseconds,
        "seconds_of_each_step": seconds,
        "ratios": ratios,
    }
