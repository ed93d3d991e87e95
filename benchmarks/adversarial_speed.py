"""A DCGAN beside a plain loop: the same networks, images and batches.

DCGANGenerator and DCGANDiscriminator with their defaults at 28x28 (64 to 256 channels, 4x4 kernels, 100 latents), the
non-saturating loss, Adam, both players updated on each batch:

- lit_gen: its Trainer as ``lit-gen fit`` sets it up, with its bar, CSV logger and default callbacks;
- bare: a plain PyTorch loop over one tensor in memory, written to be fast: generated images are computed once for both
  players, the generator's step computes no gradient of the discriminator's weights, fused Adam;

Contestants take turns, and the best of several epochs counts, in seconds of the processor from the first batch to the
last: one thread, whatever else the machine does. torch-mimicry 0.1.16, the library one would set beside them, imports
``torch._six``, which torch 2 has not, and is left out.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.clock import ProcessorTime
from benchmarks.conditions import BATCH, lit_gen_epoch, take_turns, without_lightning_settings
from lit_gen.data import MNIST
from lit_gen.networks import DCGANDiscriminator, DCGANGenerator

SHAPE, LATENT = (1, 28, 28), 100
TARGETS = {"lit_gen / bare": 0.95}


def bare_epoch(images: Tensor) -> float:
    """The lean loop over images ``(N, 1, 28, 28)``, uint8."""
    generator, discriminator = DCGANGenerator((LATENT,), SHAPE), DCGANDiscriminator(SHAPE, (1,))
    options: dict[str, Any] = {"lr": 2e-4, "betas": (0.5, 0.999), "fused": True}
    generator_step = torch.optim.Adam(generator.parameters(), **options)
    discriminator_step = torch.optim.Adam(discriminator.parameters(), **options)
    with without_lightning_settings(), ProcessorTime() as clock:
        for indices in torch.randperm(len(images)).split(BATCH):
            real = images.index_select(0, indices) / 127.5 - 1
            fake = torch.tanh(generator(2 * torch.rand(len(real), LATENT) - 1))
            one, zero = torch.ones(len(real), 1), torch.zeros(len(real), 1)
            loss = binary_cross_entropy_with_logits(discriminator(real), one)
            loss = loss + binary_cross_entropy_with_logits(discriminator(fake.detach()), zero)
            discriminator_step.zero_grad()
            loss.backward()
            discriminator_step.step()
            discriminator.requires_grad_(False)
            generator_step.zero_grad()
            binary_cross_entropy_with_logits(discriminator(fake), one).backward()
            generator_step.step()
            discriminator.requires_grad_(True)
    return clock.seconds


def measure(root: str, images: int, repeats: int) -> dict[str, Any]:
    """All contestants in turn; the best time of each."""
    data: Any = MNIST(root, val_size=0)
    pixels = data.load("train").images[:images]
    contestants: dict[str, Callable[[], float]] = {
        "lit_gen": lambda: lit_gen_epoch(["--model=DCGAN"], root, images),
        "bare": lambda: bare_epoch(pixels),
    }
    speed, seconds = take_turns(contestants, dict.fromkeys(contestants, images), repeats)
    ratios = {"lit_gen / bare": speed["lit_gen"] / speed["bare"]}
    return {"images_per_second": speed, "seconds_of_each_epoch": seconds, "ratios": ratios}
