"""Networks of torchvision as comparators."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.models import get_model_weights
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
from torchvision.transforms.functional import resize

from lit_gen.networks.comparator import Comparator
from lit_gen.networks.network import Shape
from lit_gen.networks.pretrained import trained_network


class TorchvisionComparator(Comparator):
    """Compares by layers of a classification network trained on ImageNet: AlexNet, as in Dosovitskiy & Brox 2016.

    Images in [0, 1] are enlarged or reduced if asked for, grey ones repeated to three channels, and normalised by the
    means and standard deviations that the network was trained with. A checkpoint of the owner holds the weights, so
    that loading it needs no download.

    Args:
        image_shape: ``(C, H, W)``, grey or in colour.
        architecture: name of the network in torchvision.models: alexnet, vgg16, resnet18, ...
        weights: name of the weights in torchvision (DEFAULT: the best), downloaded once to the PyTorch hub folder; or
            the path of a file that holds such weights; None starts at random.
        nodes: names of the layers, the lowest first, as ``torchvision.models.feature_extraction`` gives them; the
            defaults are conv4 and pool5 of AlexNet. Published weights are for the latter.
        shorter_side: pixels to which the shorter side is brought, bilinearly; None leaves the size.

    Raises:
        ValueError: an unknown network, unknown weights or layers, or images that the network cannot take.
        FileNotFoundError: the weights cannot be downloaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        image_shape: Shape,
        architecture: str = "alexnet",
        weights: str | None = "DEFAULT",
        nodes: Sequence[str] = ("features.9", "features.12"),
        shorter_side: int | None = None,
    ) -> None:
        super().__init__(image_shape)
        if len(self.image_shape) != 3 or self.image_shape[0] not in (1, 3):
            raise ValueError(
                f"TorchvisionComparator takes grey or colour images (1 or 3, H, W), got {self.image_shape}; use"
                " ExemplarComparator for others"
            )
        body = trained_network(architecture, weights)
        known = get_graph_node_names(body)[1]
        # A name stands for all that begins with it too: a block for its last layer.
        unknown = [name for name in nodes if not any(f"{node}.".startswith(f"{name}.") for node in known)]
        if unknown or not nodes:
            raise ValueError(f"{architecture} has no layers {unknown or list(nodes)}; it has {', '.join(known)}")
        self.nodes = tuple(nodes)
        self.shorter_side = shorter_side
        self.body = create_feature_extractor(body, list(nodes))
        pixels = get_model_weights(architecture).DEFAULT.transforms()
        self.register_buffer("mean", torch.tensor(pixels.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(pixels.std)[:, None, None])
        self.freeze()
        try:
            self.layer_shapes()
        except RuntimeError as error:
            size = self.image_shape if shorter_side is None else f"a shorter side of {shorter_side}"
            raise ValueError(
                f"{architecture} cannot take images of {size} ({error}); set shorter_side to the size that it was"
                " trained on (224 for most)"
            ) from error

    def layers(self, images: Tensor) -> list[Tensor]:
        if self.shorter_side is not None:
            images = resize(images, [self.shorter_side], antialias=True)
        found = self.body((images - self.mean) / self.std)  # grey images broadcast to three channels
        return [found[name] for name in self.nodes]

    def specification(self, skip: int = 0) -> dict[str, Any]:
        """Without the weights to begin with, which a checkpoint has no more need of."""
        specification = super().specification(skip)
        specification["init_args"]["weights"] = None
        return specification
