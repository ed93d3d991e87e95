"""Training steps of DRAW beside the same equations written plainly (``plain_draw.py``), over T and size.

Networks are those of the ready configs, with Bernoulli pixels everywhere; a step is objective, gradient and fused Adam
on a batch in memory, for all alike and without a trainer. Weights are equal at the start, and so are the numbers (a
test). lit_gen runs as it is, compiled as by ``--compile``, and compiled with products in bfloat16 as by
``-c trainer/bf16``; how long the compiler takes does not count. Contestants take turns, and the best of several steps
counts, in seconds of the processor: one thread, whatever else the machine does.
"""

import copy
import gc
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

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
COMPILED, IN_BF16 = "lit_gen compiled", "lit_gen compiled, in bf16"
TARGETS = {f"{case.name}: {who} / plain": 1.5 for case in CASES for who in ("lit_gen", COMPILED, IN_BF16)}


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


def measure(
    repeats: int, cases: tuple[Case, ...] = CASES, batch_size: int = BATCH, backend: str = "inductor"
) -> dict[str, Any]:
    """All contestants in turn, after two steps that do not count; the best time of each.

    Args:
        repeats: steps that count, of each.
        cases: networks and images.
        batch_size: images of a step.
        backend: compiler of torch.compile.
    """
    seconds: dict[str, dict[str, list[float]]] = {}
    for case in cases:
        torch.manual_seed(0)
        torch._dynamo.reset()  # every case is compiled anew
        images = (torch.rand(batch_size, *case.image_shape) > 0.5).float()
        runs = turns(case, images, backend)
        found: dict[str, list[float]] = {name: [] for name in runs}
        for repeat in range(-2, repeats):
            for name, seconds_of_a_step in runs.items():
                gc.collect()
                took = seconds_of_a_step()
                if repeat >= 0:
                    found[name].append(took)
        seconds[case.name] = found
        print(f"{case.name:<24}", *(f"{name} {1000 * min(times):.0f} ms" for name, times in found.items()), flush=True)
    ratios = {
        f"{name}: {who} / plain": min(found["plain"]) / min(times)
        for name, found in seconds.items()
        for who, times in found.items()
        if who != "plain"
    }
    milliseconds = {name: {who: 1000 * min(times) for who, times in found.items()} for name, found in seconds.items()}
    networks = {case.name: case.network for case in cases}
    return {
        "networks": networks,
        "milliseconds_per_step": milliseconds,
        "seconds_of_each_step": seconds,
        "ratios": ratios,
    }


def turns(case: Case, images: Tensor, backend: str) -> dict[str, Callable[[], float]]:
    """Training steps of every contestant, each of which tells its seconds."""
    ours, plain = contestants(case)
    runs = {"plain": training_step(plain, lambda: sum(plain(images)).mean())}
    for name in ("lit_gen", COMPILED, IN_BF16):
        model = copy.deepcopy(ours)
        if name != "lit_gen":
            model.compile_parts(backend=backend)
        runs[name] = training_step(model, lambda model=model: model.objective(images).loss.mean(), name == IN_BF16)  # type: ignore[misc]
    return runs


def training_step(model: nn.Module, loss: Callable[[], Tensor], bf16: bool = False) -> Callable[[], float]:
    """A training step of this model, which tells its seconds of the processor."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def step() -> float:
        start = time.process_time()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            value = loss()
        value.backward()
        optimizer.step()
        return time.process_time() - start

    return step
