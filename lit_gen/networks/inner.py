"""What inner layers of a network give, beside its output."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def check_layer(network: nn.Module, layer: str) -> str:
    """The name of an inner layer, as ``named_modules`` has it: ``layers.convolution3``.

    Raises:
        ValueError: the network has no such layer; names those that it has.
    """
    names = [name for name, _ in network.named_modules() if name]
    if layer not in names:
        raise ValueError(
            f"the {type(network).__name__} has no layer {layer!r}; take one of {', '.join(names) or 'no layers at all'}"
        )
    return layer


@contextmanager
def watch_layer(network: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """A list to which each call of the network within the block appends what an inner layer gave, with its graph.

    A compiled network does not notice the watcher: leave it out of ``compiled_parts``.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1))
        >>> with watch_layer(network, "1") as features:
        ...     logits = network(torch.zeros(2, 3))
        >>> features[0].shape
        torch.Size([2, 5])

    Args:
        network: that is called within the block.
        layer: its name, as in :func:`check_layer`.

    Raises:
        ValueError: no such layer, or one whose output the next layer overwrites.
    """
    found: list[Tensor] = []
    versions: list[int] = []

    def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
        found.append(output)
        versions.append(output._version)

    handle = network.get_submodule(check_layer(network, layer)).register_forward_hook(note)
    try:
        yield found
    finally:
        handle.remove()
    if any(output._version != version for output, version in zip(found, versions, strict=True)):
        raise ValueError(
            f"what the layer {layer!r} of the {type(network).__name__} gives is overwritten by the layer after it; take"
            " that one, or build it with inplace=False"
        )


@contextmanager
def dropped_maps(network: nn.Module, layer: str, maps: Tensor | Sequence[int]) -> Iterator[None]:
    """A block in which some maps of an inner layer are zero at every position (Radford et al. 2015, section 6.3.1).

    A compiled network does not notice.

    Args:
        network: that is called within the block.
        layer: its name, as in :func:`check_layer`, of outputs ``(B, C, ...)``.
        maps: numbers of channels, or bool ``(C,)``: those of positive weight, say
            (:func:`~lit_gen.inference.concept_weights`).

    Raises:
        ValueError: no such layer.
        IndexError: within the block, a number that the layer has no map of.
    """
    chosen = torch.as_tensor(maps)
    numbers = chosen.nonzero()[:, 0] if chosen.dtype == torch.bool else chosen.long()

    def drop(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output.index_fill(1, numbers.to(output.device), 0)

    handle = network.get_submodule(check_layer(network, layer)).register_forward_hook(drop)
    try:
        yield
    finally:
        handle.remove()
