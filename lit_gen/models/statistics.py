"""What a model asks of its training images before it trains."""

import torch
from torch import Tensor

from lit_gen.models.base import GenerativeModel


@torch.no_grad()
def pixel_statistics(model: GenerativeModel) -> tuple[Tensor, Tensor, int]:
    """Mean and variance of each pixel over an epoch of training images of all processes, and their number.

    To be called in ``on_train_start``, when the loader exists.

    Args:
        model: attached to a trainer.

    Returns:
        ``(V,)``, ``(V,)`` and a count.
    """
    loader = model.trainer.train_dataloader
    assert loader is not None
    sums: Tensor | None = None
    for number, batch in enumerate(loader):
        if number >= model.trainer.num_training_batches:
            break
        pixels = model.unpack(batch)[0].to(model.device, torch.float32).flatten(1)
        part = torch.stack([pixels.sum(0), pixels.square().sum(0), torch.ones_like(pixels).sum(0)])
        sums = part if sums is None else sums + part
    assert sums is not None
    total, squares, count = model.trainer.strategy.reduce(sums, reduce_op="sum")
    mean = total / count
    return mean, (squares / count - mean.square()).clamp(min=0), int(count[0])
