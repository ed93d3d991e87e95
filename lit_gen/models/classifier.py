"""A convolutional classifier: features for data that Inception knows nothing of (digits, voxels, own folders).

Its default follows the network behind the MNIST score of Binkowski et al. 2018, Demystifying MMD GANs
(https://arxiv.org/abs/1801.01401): a LeNet-like network whose 512 rectified units before the output are the features.
"""

from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

from lit_gen.models.base import Batch, LitGenModule
from lit_gen.models.optimizers import FusedAdam
from lit_gen.networks import ConvEncoder, NetworkFactory, Shape, build


class Classifier(LitGenModule):
    """Image classifier whose penultimate layer serves as features for FID, KID and the rest.

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        num_classes: number of classes; the command line takes it from the data.
        num_features: units of the penultimate layer.
        network: network from the image to the penultimate layer.
        dropout: share of features dropped in training.
        optimizer: takes the parameters.
        lr_scheduler: takes the optimizer; stepped after each epoch.
    """

    def __init__(
        self,
        image_shape: Shape,
        num_classes: int,
        num_features: int = 512,
        network: NetworkFactory = ConvEncoder,
        dropout: float = 0.5,
        optimizer: OptimizerCallable = FusedAdam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(
                f"a classifier needs labels of at least 2 classes, the data has {num_classes}; use labelled data"
                " (class sub-folders for ImageFolder)"
            )
        self.image_shape = tuple(image_shape)
        self.num_classes = num_classes
        self.num_features = num_features
        self.network = build(network, self.image_shape, (num_features,))
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(num_features, num_classes)
        self.make_optimizer = optimizer
        self.make_lr_scheduler = lr_scheduler

    def features(self, images: Tensor) -> Tensor:
        """Penultimate activations: ``(B, C, H, W)`` in [0, 1] -> ``(B, num_features)``, non-negative."""
        return relu(self.network(images - 0.5))

    def layers(self, images: Tensor) -> list[Tensor]:
        """Activations from the lowest layer to the logits: of a :class:`ConvEncoder` those of its convolutions too."""
        if not isinstance(self.network, ConvEncoder):
            features = self.features(images)
            return [features, self.classify(features)]
        found = self.network.activations(images - 0.5)
        features = relu(self.network.output(found[-1]))
        return [*found, features, self.classify(features)]

    def classify(self, features: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of features."""
        return self.output(self.dropout(features))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of images ``(B, C, H, W)`` in [0, 1]."""
        return self.classify(self.features(images))

    def _values(self, batch: Batch) -> dict[str, Tensor]:
        images, target = batch
        if target is None:
            raise ValueError("a classifier needs labels, the data has none; use class sub-folders or a `targets` array")
        logits = self(images)
        accuracy = (logits.argmax(1) == target).float()
        return {"loss": cross_entropy(logits, target, reduction="none"), "accuracy": accuracy}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        values = self._values(batch)
        self.log_training(values)
        return values["loss"].mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log_evaluation("val", self._values(batch), len(batch[0]))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.log_evaluation("test", self._values(batch), len(batch[0]))

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Class probabilities ``(B, num_classes)``."""
        return torch.softmax(self(batch[0]), dim=1)

    def configure_optimizers(self) -> Any:
        return self.with_scheduler(self.make_optimizer(self.parameters()), self.make_lr_scheduler)
