"""Encoders that begin as networks trained for something else, to be kept as they are or trained further."""

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Self

import torch
import torchvision.models
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights, list_models
from torchvision.transforms.functional import resize

from lit_gen.networks.mlp import MLP
from lit_gen.networks.network import Network, Shape


class PretrainedEncoder(Network):
    """A body trained for something else, and a new head that turns its features into the output.

    A subclass hands in the body and defines :meth:`features`. What a checkpoint of the owner holds are the weights of
    the body as they now are, so that loading it needs neither the file nor the network connection that they once came
    from: a subclass leaves these out of its :meth:`specification`.

    Args:
        input_shape: shape of one input, without the batch.
        output_shape: shape of one output, without the batch.
        body: the network that has been trained.
        num_features: its number of features.
        hidden_dims: width of each hidden layer of the head; none makes it linear.
        frozen: the body is not trained: its parameters take no gradient, and it stays in eval mode, statistics of batch
            normalisation included. Otherwise it is trained further together with the head.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        body: nn.Module,
        num_features: int,
        hidden_dims: Sequence[int] = (),
        frozen: bool = True,
    ) -> None:
        super().__init__(input_shape, output_shape)
        self.frozen = frozen
        self.body = body.requires_grad_(not frozen)
        self.head = MLP((num_features,), self.output_shape, hidden_dims, activation="relu")
        self.train(self.training)

    def features(self, x: Tensor) -> Tensor:
        """``(B, *input_shape) -> (B, num_features)``."""
        raise NotImplementedError(f"{type(self).__name__} must define features")

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the head, and of the body unless it is frozen."""
        super().train(mode)
        self.body.train(mode and not self.frozen)
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class TorchvisionEncoder(PretrainedEncoder):
    """A classification network of torchvision, trained on ImageNet, without its last layer.

    Images in [0, 1] are enlarged or reduced if asked for, grey ones repeated to three channels, and normalised by the
    means and standard deviations of ImageNet that the network was trained with.

    Args:
        input_shape: ``(C, H, W)``, grey or in colour.
        output_shape: shape of one output, without the batch.
        architecture: name of the network in torchvision.models: resnet18, mobilenet_v3_small, vgg11, ...
        weights: name of the weights in torchvision (DEFAULT: the best), downloaded once to the PyTorch hub folder; or
            the path of a file that holds such weights; None starts at random.
        shorter_side: pixels to which the shorter side is brought, bilinearly; None leaves the size. The networks were
            trained on 224 and see little in images below about 64.
        hidden_dims: width of each hidden layer of the head; none makes it linear.
        frozen: whether the network stays as it is, or is trained further.

    Raises:
        ValueError: an unknown network or unknown weights, or images that the network cannot take.
        FileNotFoundError: the weights cannot be downloaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        architecture: str = "resnet18",
        weights: str | None = "DEFAULT",
        shorter_side: int | None = None,
        hidden_dims: Sequence[int] = (),
        frozen: bool = True,
    ) -> None:
        if len(input_shape) != 3 or input_shape[0] not in (1, 3):
            raise ValueError(
                f"TorchvisionEncoder takes grey or colour images (1 or 3, H, W), got {tuple(input_shape)}; use"
                " ConvEncoder for others"
            )
        body, num_features = _without_last_layer(architecture, weights)
        super().__init__(input_shape, output_shape, body, num_features, hidden_dims, frozen)
        self.shorter_side = shorter_side
        # The same for all weights of a network.
        pixels = get_model_weights(architecture).DEFAULT.transforms()
        self.register_buffer("mean", torch.tensor(pixels.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(pixels.std)[:, None, None])
        self._check()

    def features(self, x: Tensor) -> Tensor:
        if self.shorter_side is not None:
            x = resize(x, [self.shorter_side], antialias=True)
        return self.body((x - self.mean) / self.std)  # grey images broadcast to three channels

    def specification(self, skip: int = 0) -> dict[str, Any]:
        """Without the weights to begin with, which a checkpoint has no more need of."""
        specification = super().specification(skip)
        specification["init_args"]["weights"] = None
        return specification

    @torch.no_grad()
    def _check(self) -> None:
        mode = self.training
        try:
            self.eval().features(torch.zeros(1, *self.input_shape))
        except (AssertionError, RuntimeError, ValueError) as error:
            size = self.input_shape if self.shorter_side is None else f"a shorter side of {self.shorter_side}"
            raise ValueError(
                f"this network of torchvision cannot take images of {size} ({error}); set shorter_side to the size that"
                " it was trained on (224 for most)"
            ) from error
        self.train(mode)


def _without_last_layer(architecture: str, weights: str | None) -> tuple[nn.Module, int]:
    """The network without its last linear layer, and the number of features that this layer took."""
    body = trained_network(architecture, weights)
    name, last = [(name, part) for name, part in body.named_modules() if isinstance(part, nn.Linear)][-1]
    body.set_submodule(name, nn.Identity())
    return body, last.in_features


def trained_network(architecture: str, weights: str | None) -> nn.Module:
    """A classification network of torchvision.

    Args:
        architecture: its name.
        weights: the name of weights, the path of a file, or None.

    Raises:
        ValueError: an unknown network or unknown weights.
        FileNotFoundError: the weights cannot be had.
    """
    # Left out: two outputs while they are trained, or none that is linear.
    known = [name for name in list_models(torchvision.models) if not name.startswith(("google", "incep", "squeeze"))]
    if architecture not in known:
        raise ValueError(f"there is no network {architecture!r} to encode with; there are {', '.join(known)}")
    # What jsonargparse makes of a null on the command line, for an argument of a factory that may be a string.
    state = None if weights is None or weights == "None" else _weights(architecture, weights)
    body = get_model(architecture, weights=None)
    if state is not None:
        try:
            body.load_state_dict(state)
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"the weights {weights} are not those of {architecture}: {error}") from error
    return body


def _weights(architecture: str, weights: str) -> Any:
    """The state that a file holds, or that torchvision knows under a name."""
    if Path(weights).suffix:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"there is no file of weights {path}; give its path, or the name of weights")
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, UnpicklingError) as error:
            raise ValueError(f"{path} cannot be read as weights ({error}); fetch it again") from error
    named = get_model_weights(architecture)
    if weights not in named.__members__:
        known = ", ".join(named.__members__)
        raise ValueError(f"torchvision has no weights {weights!r} of {architecture}; it has {known}")
    entry = named[weights]
    try:
        return entry.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"the weights {weights} of {architecture} could not be downloaded ({error}): fetch {entry.url} where there"
            " is a network and name the file (weights: PATH), begin with the checkpoint of a Classifier of your own"
            " (ClassifierEncoder), or with none (weights: null)"
        ) from error
