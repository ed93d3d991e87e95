"""A DCGAN beside a plain loop and torch-mimicry: the same networks, images and batches.

DCGANGenerator and DCGANDiscriminator with their defaults at 28x28 (64 to 256 channels, 4x4 kernels, 100 latents), the
non-saturating loss, Adam, both players updated on each batch:

- lit_gen: its Trainer as ``lit-gen fit`` sets it up, with its bar, CSV logger and default callbacks;
- bare: a plain PyTorch loop over one tensor in memory, written to be fast: generated images are computed once for both
  players, the generator's step computes no gradient of the discriminator's weights, fused Adam;
- torch-mimicry (``pip install --no-deps torch-mimicry``; left out where it is not installed): its ``Trainer`` over a
  ``DataLoader`` of the same images in memory, with the Adam of torch. Its version 0.1.16 imports ``torch._six``, which
  torch 2 has not, and scikit-image and TensorFlow for functions that training never calls: empty modules stand in.

Contestants take turns, and the best of several epochs counts, in seconds of the processor from the first batch to the
last: one thread, whatever else the machine does.
"""

import contextlib
import importlib.util
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.clock import ProcessorTime
from benchmarks.conditions import BATCH, lit_gen_epoch, quiet, take_turns, without_lightning_settings
from lit_gen.data import MNIST
from lit_gen.networks import DCGANDiscriminator, DCGANGenerator

SHAPE, LATENT = (1, 28, 28), 100
TARGETS = {"lit_gen / bare": 0.95}
STAND_INS: dict[str, dict[str, Any]] = {
    "torch._six": {"PY3": True, "string_classes": (str,)},
    "skimage": {"io": None},
    "tensorflow": {},
}
"""What torch-mimicry imports and training does not use, with the names that it takes from there."""


@contextlib.contextmanager
def stand_ins() -> Iterator[None]:
    """Within the block modules that are not there can be imported."""
    added = [name for name in STAND_INS if name not in sys.modules and not is_installed(name)]
    for name in added:
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(STAND_INS[name])
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


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


def mimicry_epoch(images: Tensor) -> float:
    """torch-mimicry's trainer around the same two networks."""
    import torch.utils.tensorboard  # before TensorFlow seems to be there

    with stand_ins():
        from torch_mimicry.nets.gan import gan
        from torch_mimicry.training import Trainer

    class Generator(gan.BaseGenerator):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(nz=LATENT, ngf=64, bottom_width=7, loss_type="ns")
            self.network = DCGANGenerator((LATENT,), SHAPE)

        def forward(self, noise: Tensor) -> Tensor:
            return torch.tanh(self.network(noise))

    class Discriminator(gan.BaseDiscriminator):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(ndf=64, loss_type="ns")
            self.network = DCGANDiscriminator(SHAPE, (1,))

        def forward(self, pixels: Tensor) -> Tensor:
            logits: Tensor = self.network(pixels)
            return logits

    generator, discriminator = Generator(), Discriminator()
    pixels = images / 127.5 - 1
    loader = DataLoader(TensorDataset(pixels, torch.zeros(len(pixels))), BATCH, shuffle=True)
    steps = len(loader)
    with tempfile.TemporaryDirectory() as folder, quiet(), without_lightning_settings():
        trainer = Trainer(
            netD=discriminator,
            netG=generator,
            optD=torch.optim.Adam(discriminator.parameters(), 2e-4, (0.5, 0.999)),
            optG=torch.optim.Adam(generator.parameters(), 2e-4, (0.5, 0.999)),
            n_dis=1,
            num_steps=steps,
            dataloader=loader,
            log_dir=folder,
            device=torch.device("cpu"),
            **dict.fromkeys(("log_steps", "print_steps", "vis_steps", "save_steps"), 10 * steps),
        )
        # Its last act is to store both networks, after the clock of the others has stopped.
        seconds: list[float] = []
        with ProcessorTime() as clock:
            trainer._save_model_checkpoints = lambda global_step: seconds.append(clock.so_far())
            trainer.train()
    return seconds[0]


def measure(root: str, images: int, repeats: int) -> dict[str, Any]:
    """All contestants in turn; the best time of each."""
    data: Any = MNIST(root, val_size=0)
    pixels = data.load("train").images[:images]
    contestants: dict[str, Callable[[], float]] = {
        "lit_gen": lambda: lit_gen_epoch(["--model=DCGAN"], root, images),
        "bare": lambda: bare_epoch(pixels),
    }
    if is_installed("torch_mimicry"):
        contestants["torch-mimicry"] = lambda: mimicry_epoch(pixels)
    speed, seconds = take_turns(contestants, dict.fromkeys(contestants, images), repeats)
    ratios = {f"lit_gen / {name}": speed["lit_gen"] / other for name, other in speed.items() if name != "lit_gen"}
    return {"images_per_second": speed, "seconds_of_each_epoch": seconds, "ratios": ratios}
