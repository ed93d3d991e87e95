"""The narrow base of every network: a map between tensors of two shapes that knows how it was built."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
Part = TypeVar("Part", bound="Recorded")


def full_precision(x: Tensor) -> Tensor:
    """float16 and bfloat16 as float32, others as they are: sums over pixels and sharp densities need the digits."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class Recorded:
    """Remembers the arguments of its construction, so that a checkpoint can name them and rebuild the object."""

    sizes = 0
    """Number of leading constructor arguments that the owner supplies."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Recorded":
        self = super().__new__(cls)
        object.__setattr__(self, "_construction", (args, kwargs))
        return self

    def specification(self, skip: int = 0) -> dict[str, Any]:
        """Class path and arguments, in the form that the command line and its YAML files use.

        Args:
            skip: number of leading arguments to leave out (the sizes that the owner of the object hands in).

        Returns:
            ``{"class_path": str, "init_args": dict}``.

        Raises:
            TypeError: arguments that went through ``*args``, which have no names.
        """
        args, kwargs = self._construction  # type: ignore[attr-defined]
        bound = inspect.signature(type(self).__init__).bind(self, *args, **kwargs)
        # In full: what is left out would be taken from the default of the owner's argument, which may be another class.
        bound.apply_defaults()
        parameters = list(bound.signature.parameters.values())
        init_args: dict[str, Any] = {}
        for parameter in parameters[1 + skip :]:
            value = bound.arguments[parameter.name]
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                init_args.update(value)
            elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
                init_args[parameter.name] = value
            elif value:
                raise TypeError(
                    f"{type(self).__name__} got {value!r} through *{parameter.name}, without a name to store it under"
                    " in a checkpoint; give arguments by name, or name them in the constructor"
                )
        return {"class_path": f"{type(self).__module__}.{type(self).__qualname__}", "init_args": init_args}


class Network(Recorded, nn.Module):
    """A network without loss or optimizer: ``(B, *input_shape) -> (B, *output_shape)``.

    Models receive networks as factories and call them with the two shapes, which they alone know; every other argument
    belongs to the network and can be set from the command line (``--model.encoder.hidden_dims [500, 500]``).

    Args:
        input_shape: shape of one input, without the batch.
        output_shape: shape of one output, without the batch.
    """

    sizes = 2

    def __init__(self, input_shape: Shape, output_shape: Shape) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)
        self.output_shape = tuple(output_shape)

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define forward")


NetworkFactory = Callable[[Shape, Shape], Network]


def build(factory: Callable[..., Part], *sizes: Shape | int) -> Part:
    """What a factory makes of the sizes that its owner knows.

    Args:
        factory: a class, or a function such as ``lambda i, o: MLP(i, o, hidden_dims=[200])``.
        sizes: its leading arguments.

    Raises:
        TypeError: it makes something that a checkpoint could not rebuild.
    """
    part = factory(*sizes)
    if not isinstance(part, Recorded):
        raise TypeError(
            f"the factory gave a {type(part).__name__}; make it a subclass of lit_gen.networks.Recorded (a Network is"
            " one), which remembers its arguments, so that checkpoints can rebuild it"
        )
    return part
