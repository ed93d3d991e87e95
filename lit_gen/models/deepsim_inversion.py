"""Inverting a layer of a network by a generator trained with deep perceptual similarity.

Dosovitskiy & Brox 2016, Generating images with perceptual similarity metrics based on deep networks
(https://arxiv.org/abs/1602.02644), section 3.3.
"""

import math

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lit_gen.models.adversarial_losses import AdversarialLossFactory, NonSaturating
from lit_gen.models.balance import BalancingRuleFactory, RatioBalance
from lit_gen.models.deepsim import DeePSiM
from lit_gen.models.image_distances import FeatureDistance, ImageDistanceFactory, PixelDistance, teach
from lit_gen.models.optimizers import FusedAdam
from lit_gen.models.statistics import training_images
from lit_gen.networks import (
    Comparator,
    ComparatorFactory,
    ConvDecoder,
    DCGANDiscriminator,
    ExemplarComparator,
    Network,
    NetworkFactory,
    Shape,
    build,
)


class LayerEncoder(Network):
    """The activations of one layer of a comparator, flat.

    Args:
        input_shape: ``(C, H, W)``.
        output_shape: number of units of the layer.
        comparator: the network.
        layer: number of the layer.
    """

    def __init__(self, input_shape: Shape, output_shape: Shape, comparator: Comparator, layer: int) -> None:
        super().__init__(input_shape, output_shape)
        self.comparator = comparator
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.comparator.layers(x)[self.layer].flatten(1)


class DeePSiMInversion(DeePSiM):
    """What a layer of a network still knows of an image: a decoder from its activations back to the image.

    As :class:`DeePSiM`, with a frozen network in place of the encoder: the deeper the layer, the less of the image
    comes back. Samples decode a Gaussian over the activations of training images, of independent units where these are
    more than 1024.

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        inverted: network whose layer is inverted: ``ClassifierComparator`` for a classifier of this package,
            ``TorchvisionComparator`` for one of ImageNet; the default learns from the training images first.
        layer: number of the layer, from the lowest; negative ones count from the top.
        decoder: network from the activations to the image before a sigmoid.
        pixel_weight: weight of the distance of pixels; 0 leaves it out.
        feature_weight: weight of the distance of features.
        adversarial_weight: weight of -log D of the reconstruction.
        pixel_distance: of pixels.
        feature_distance: of features, with the comparator.
        discriminator: network from the image to one logit.
        loss: what discriminator and generator minimise of the logits.
        balance: rule that says which side is updated; None: both on every batch.
        micro_batches: parts that a batch is computed in, one after the other, to save memory.
        generator_optimizer: takes the parameters of the decoder.
        discriminator_optimizer: takes the discriminator's.
        generator_lr_scheduler: takes the generator's optimizer; stepped after each epoch.
        discriminator_lr_scheduler: takes the discriminator's optimizer; stepped after each epoch.
        generator_clip: largest norm of the gradient of the decoder; None for no clipping.
        discriminator_clip: largest norm of the discriminator's gradient.

    Raises:
        ValueError: there is no such layer.
    """

    def __init__(
        self,
        image_shape: Shape,
        inverted: ComparatorFactory = ExemplarComparator,
        layer: int = -1,
        decoder: NetworkFactory = lambda i, o: ConvDecoder(i, o, channels=32, batch_norm=True, kernel_size=4),
        pixel_weight: float = 1.0,
        feature_weight: float = 1.0,
        adversarial_weight: float = 0.1,
        pixel_distance: ImageDistanceFactory = PixelDistance,
        feature_distance: ImageDistanceFactory = FeatureDistance,
        discriminator: NetworkFactory = DCGANDiscriminator,
        loss: AdversarialLossFactory = NonSaturating,
        balance: BalancingRuleFactory | None = RatioBalance,
        micro_batches: int = 1,
        generator_optimizer: OptimizerCallable = lambda parameters: FusedAdam(parameters, lr=2e-4, weight_decay=4e-4),
        discriminator_optimizer: OptimizerCallable = lambda parameters: FusedAdam(
            parameters, lr=2e-4, weight_decay=4e-4
        ),
        generator_lr_scheduler: LRSchedulerCallable | None = None,
        discriminator_lr_scheduler: LRSchedulerCallable | None = None,
        generator_clip: float | None = None,
        discriminator_clip: float | None = None,
    ) -> None:
        network = build(inverted, tuple(image_shape))
        shapes = network.layer_shapes()
        if not -len(shapes) <= layer < len(shapes):
            raise ValueError(
                f"layer must be a number from {-len(shapes)} to {len(shapes) - 1}, which {type(network).__name__} has;"
                f" got {layer}"
            )
        super().__init__(
            image_shape,
            math.prod(shapes[layer]),
            lambda image, code: LayerEncoder(image, code, network, layer),
            decoder,
            pixel_weight,
            feature_weight,
            adversarial_weight,
            pixel_distance,
            feature_distance,
            discriminator,
            loss,
            balance,
            micro_batches,
            generator_optimizer,
            discriminator_optimizer,
            generator_lr_scheduler,
            discriminator_lr_scheduler,
            generator_clip,
            discriminator_clip,
        )

    @property
    def inverted(self) -> Comparator:
        """The network whose layer is inverted."""
        assert isinstance(self.encoder, LayerEncoder)
        return self.encoder.comparator

    def generator_parts(self) -> list[nn.Module]:
        return [self.decoder]

    def on_train_start(self) -> None:
        """Let the network, and what compares images, look at the training images, once in the life of the model."""
        teach(self.inverted, lambda count: training_images(self, count))
        super().on_train_start()
