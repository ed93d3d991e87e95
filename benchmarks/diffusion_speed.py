"""DDPM beside diffusers (``pip install lit-gen[benchmarks]``): U-Nets of the same layers, images and batches.

- training: an epoch of the noise-prediction loss with Adam and gradients clipped to norm 1, lit_gen as ``lit-gen fit``
  runs it, with its bar, loggers and default callbacks; diffusers by the plain loop of its own training tutorial, over a
  tensor in memory.
- sampling: DDIM in 20 steps, lit_gen by ``sample``, diffusers by its ``DDIMPipeline``.

The networks have equally many parameters. Contestants take turns, and the best of several counts, in seconds of the
processor: one thread, whatever else the machine does.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from benchmarks.clock import ProcessorTime
from benchmarks.conditions import BATCH, lit_gen_epoch, take_turns, without_lightning_settings
from lit_gen.data import MNIST
from lit_gen.models import DDPM, DDIMSampler
from lit_gen.networks import UNet

SHAPE, SAMPLES, STEPS, RATE = (1, 28, 28), 32, 20, 5e-4
CHANNELS, MULTIPLIERS, BLOCKS, ATTENTION = 32, (1, 2, 2), 2, (1,)
TARGETS = {"training / diffusers": 1.0, "sampling / diffusers": 1.0}


lit_gen_network = partial(
    UNet, channels=CHANNELS, multipliers=MULTIPLIERS, blocks=BLOCKS, attention_levels=ATTENTION, dropout=0.0
)
"""The U-Net of ``configs/ddpm/mnist.yaml``."""


def diffusers_network() -> nn.Module:
    """The same layers by diffusers."""
    from diffusers import UNet2DModel

    levels = range(len(MULTIPLIERS))
    return UNet2DModel(
        sample_size=SHAPE[-1],
        in_channels=SHAPE[0],
        out_channels=SHAPE[0],
        block_out_channels=tuple(CHANNELS * multiplier for multiplier in MULTIPLIERS),
        layers_per_block=BLOCKS,
        down_block_types=tuple("AttnDownBlock2D" if level in ATTENTION else "DownBlock2D" for level in levels),
        up_block_types=tuple("AttnUpBlock2D" if level in ATTENTION else "UpBlock2D" for level in reversed(levels)),
        attention_head_dim=None,
        norm_num_groups=CHANNELS // 4,
    )


def words() -> list[str]:
    """What the command line says of the model."""
    network = {"channels": CHANNELS, "multipliers": list(MULTIPLIERS), "blocks": BLOCKS, "dropout": 0.0}
    network["attention_levels"] = list(ATTENTION)
    model = ["--model=DDPM", "--model.network=UNet"]
    model += [f"--model.network.{name}={value}" for name, value in network.items()]
    # What callbacks draw, untimed, would take minutes by the whole chain.
    model += ["--model.sampler=DDIMSampler", "--model.sampler.steps=2"]
    return [*model, f"--model.optimizer.lr={RATE}", "--trainer.gradient_clip_val=1.0"]


def diffusers_epoch(images: Tensor) -> float:
    """An epoch of the loop that diffusers teaches, seconds.

    Args:
        images: ``(N, 1, 28, 28)`` in [-1, 1].
    """
    from diffusers import DDPMScheduler

    network, scheduler = diffusers_network(), DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images), BATCH, shuffle=True, drop_last=True)
    with ProcessorTime() as clock:
        for (clean,) in loader:
            noise = torch.randn_like(clean)
            times = torch.randint(0, 1000, (len(clean),))
            predicted = network(scheduler.add_noise(clean, noise, times), times, return_dict=False)[0]
            loss = mse_loss(predicted, noise)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return clock.seconds


def lit_gen_samples(model: DDPM) -> float:
    """Seconds."""
    with ProcessorTime() as clock:
        model.sample(SAMPLES)
    return clock.seconds


def diffusers_samples(pipeline: Any) -> float:
    """Seconds."""
    with ProcessorTime() as clock:
        pipeline(batch_size=SAMPLES, num_inference_steps=STEPS, output_type="np")
    return clock.seconds


def measure(root: str, images: int, repeats: int) -> dict[str, Any]:
    """All contestants in turn; the best time of each."""
    from diffusers import DDIMPipeline, DDIMScheduler

    images = images // BATCH * BATCH
    data: Any = MNIST(root, val_size=0)
    scaled = 2 * (data.load("train").images[:images] / 255) - 1
    with without_lightning_settings():
        model = DDPM(SHAPE, network=lit_gen_network, sampler=partial(DDIMSampler, STEPS)).eval()
        pipeline = DDIMPipeline(diffusers_network().eval(), DDIMScheduler(num_train_timesteps=1000))
        pipeline.set_progress_bar_config(disable=True)
    parameters = {
        "lit_gen": sum(parameter.numel() for parameter in model.network.parameters()),
        "diffusers": sum(parameter.numel() for parameter in pipeline.unet.parameters()),
    }
    contestants: dict[str, Callable[[], float]] = {
        "training, lit_gen": lambda: lit_gen_epoch(words(), root, images),
        "training, diffusers": lambda: diffusers_epoch(scaled),
        "sampling, lit_gen": lambda: lit_gen_samples(model),
        "sampling, diffusers": lambda: diffusers_samples(pipeline),
    }
    counts = {name: images if "training" in name else SAMPLES for name in contestants}
    speed, seconds = take_turns(contestants, counts, repeats)
    ratios = {
        f"{part} / diffusers": speed[f"{part}, lit_gen"] / speed[f"{part}, diffusers"]
        for part in ("training", "sampling")
    }
    facts = {"parameters": parameters, "steps": STEPS, "samples": SAMPLES}
    return {"images_per_second": speed, "seconds_of_each_epoch": seconds, "networks": facts, "ratios": ratios}
