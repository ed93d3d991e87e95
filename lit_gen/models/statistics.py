"""What a model asks of its training images before it trains."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from lit_gen.models.base import GenerativeModel


@torch.no_grad()
def unit_statistics(
    model: GenerativeModel, units: Callable[[Tensor, Any], Tensor] = lambda images, condition: images.flatten(1)
) -> tuple[Tensor, Tensor, int]:
    """Mean and variance of each unit over an epoch of training images of all processes, and the number of images.

    To be called when a training starts or later: before that the loader does not exist.

    Args:
        model: attached to a trainer.
        units: ``(B, *image_shape)`` and their condition -> ``(B, V)``.

    Returns:
        ``(V,)``, ``(V,)`` and a count.
    """
    loader = model.trainer.train_dataloader
    assert loader is not None
    sums: Tensor | None = None
    for number, batch in enumerate(loader):
        if number >= model.trainer.num_training_batches:
            break
        images, condition = move_data_to_device(model.unpack(batch), model.device)
        values = units(images, condition).float()
        part = torch.stack([values.sum(0), values.square().sum(0), torch.ones_like(values).sum(0)])
        sums = part if sums is None else sums + part
    assert sums is not None
    total, squares, count = model.trainer.strategy.reduce(sums, reduce_op="sum")
    mean = total / count
    return mean, (squares / count - mean.square()).clamp(min=0), int(count[0])


@torch.no_grad()
def training_images(model: GenerativeModel, count: int) -> Tensor:
    """Up to ``count`` training images of all processes together, the same in each: ``(count, *image_shape)``.

    To be called when a training starts or later: before that the loader does not exist.

    Args:
        model: attached to a trainer.
        count: how many; an epoch may have fewer.
    """
    loader = model.trainer.train_dataloader
    assert loader is not None
    processes = model.trainer.world_size
    found: list[Tensor] = []
    for number, batch in enumerate(loader):
        if number >= model.trainer.num_training_batches or processes * sum(map(len, found)) >= count:
            break
        found.append(model.unpack(batch)[0])
    images = torch.cat(found).to(model.device)
    if processes > 1:
        # One of each process in turn; all have equally many.
        images = model.trainer.strategy.all_gather(images).transpose(0, 1).flatten(0, 1)
    return images[:count]
