"""DeePSiM: autoencoders that compare images by deep features, and look real.

Dosovitskiy & Brox 2016, Generating images with perceptual similarity metrics based on deep networks
(https://arxiv.org/abs/1602.02644).

Departures from the paper: distances are measured in units of their spread over the training images, so that weights do
not depend on the scale of pixels, the size of images and the comparator (:func:`published_weights` has those of the
authors' scale); the decoder ends in a sigmoid; the discriminator sees the image alone, not the code beside it; and the
samples of the autoencoder, which has no prior, are those of a Gaussian over its codes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.distributions import Distribution

from lit_gen.models.adversarial import Piece, Player, Turns, check_clip
from lit_gen.models.adversarial_losses import AdversarialLossFactory, NonSaturating
from lit_gen.models.balance import Balanced, BalancingRuleFactory, RatioBalance, build_balance
from lit_gen.models.base import ComparesImages, Decodes, Reconstructs
from lit_gen.models.image_distances import FeatureDistance, ImageDistanceFactory, PixelDistance
from lit_gen.models.optimizers import FusedAdam
from lit_gen.models.statistics import training_images
from lit_gen.networks import (
    ConvDecoder,
    ConvEncoder,
    DCGANDiscriminator,
    Network,
    NetworkFactory,
    RunningMoments,
    Shape,
    build,
    full_precision,
)
from lit_gen.objectives import DiscriminatorTerms, shift_tolerant_error


class LossWeights(NamedTuple):
    """Weights of the three terms of the loss."""

    pixel: float
    feature: float
    adversarial: float


def published_weights(pixel_range: float = 1.0) -> LossWeights:
    """The weights of published programs, for distances that are not normalized.

    They belong to half the sum of squares of pixels from 0 to 255, and to the activations of CaffeNet's layer pool5. Of
    pixels that span another range, the weight is the larger by the square of the ratio.

    Args:
        pixel_range: span of the pixels: 1 for [0, 1], 2 for [-1, 1].
    """
    return LossWeights(pixel=2e-6 * (255 / pixel_range) ** 2, feature=0.01, adversarial=100.0)


class DeePSiM(Balanced, Decodes, Reconstructs, ComparesImages):
    """Autoencoder trained by pixels, by features of a frozen comparator, and against a discriminator.

    The loss of an image is the sum of three terms (equation 1), each with its weight; a term of weight 0 is left out,
    its network with it. ``configs/deepsim`` has the four columns of the paper's comparison. Encoder and decoder
    minimise all terms, the discriminator its own loss alone (the published weight of that, 100, is nothing to Adam),
    and the comparator, fixed, passes gradients on to the image.

    A variant overrides :meth:`code`, :attr:`prior`, :meth:`terms`, :meth:`generator_parts`, or injects other distances.

    Example:
        >>> model = DeePSiM((1, 28, 28), adversarial_weight=0)
        >>> model.reconstruct(torch.rand(4, 1, 28, 28)).shape
        torch.Size([4, 1, 28, 28])

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        latent_dim: units of the code.
        encoder: network from the image to its code.
        decoder: network from the code to the image before a sigmoid.
        pixel_weight: weight of the distance of pixels; 0 leaves it out.
        feature_weight: weight of the distance of features.
        adversarial_weight: weight of -log D of the reconstruction.
        pixel_distance: of pixels.
        feature_distance: of features, with the comparator.
        discriminator: network from the image to one logit.
        loss: what discriminator and generator minimise of the logits.
        balance: rule that says which side is updated; None: both on every batch.
        micro_batches: parts that a batch is computed in, one after the other, to save memory.
        generator_optimizer: takes the parameters of encoder and decoder.
        discriminator_optimizer: takes the discriminator's.
        generator_lr_scheduler: takes the generator's optimizer; stepped after each epoch.
        discriminator_lr_scheduler: takes the discriminator's optimizer; stepped after each epoch.
        generator_clip: largest norm of the gradient of encoder and decoder; None for no clipping.
        discriminator_clip: largest norm of the discriminator's gradient.

    Raises:
        ValueError: a negative weight, or no term at all that compares images.
    """

    def __init__(
        self,
        image_shape: Shape,
        latent_dim: int = 64,
        encoder: NetworkFactory = lambda i, o: ConvEncoder(i, o, channels=32, batch_norm=True, kernel_size=4),
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
        super().__init__(image_shape, micro_batches=micro_batches)
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")
        self.weights = LossWeights(pixel_weight, feature_weight, adversarial_weight)
        if min(self.weights) < 0:
            raise ValueError(f"weights must not be negative, got {self.weights}")
        if pixel_weight == feature_weight == 0:
            raise ValueError(
                "pixel_weight and feature_weight are both 0: nothing would hold a reconstruction to its image; give one"
                " of them"
            )
        self.latent_dim = latent_dim
        self.encoder = build(encoder, self.image_shape, (latent_dim,))
        self.decoder = build(decoder, (latent_dim,), self.image_shape)
        self.pixel_distance = build(pixel_distance, self.image_shape) if pixel_weight > 0 else None
        self.feature_distance = build(feature_distance, self.image_shape) if feature_weight > 0 else None
        self.discriminator: Network | None = None
        if adversarial_weight > 0:
            self.discriminator = build(discriminator, self.image_shape, (1,))
        self.loss = build(loss)
        self.balance = build_balance(balance if adversarial_weight > 0 else None, self.loss)
        self.codes = RunningMoments(latent_dim)
        self.make_generator_optimizer = generator_optimizer
        self.make_discriminator_optimizer = discriminator_optimizer
        self.make_generator_lr_scheduler = generator_lr_scheduler
        self.make_discriminator_lr_scheduler = discriminator_lr_scheduler
        self.generator_clip = check_clip("generator_clip", generator_clip)
        self.discriminator_clip = check_clip("discriminator_clip", discriminator_clip)

    # ---- the networks

    @property
    def latent_shape(self) -> Shape:
        return (self.latent_dim,)

    @property
    def prior(self) -> Distribution:
        """The Gaussian of the mean and covariance of the codes in training."""
        return self.codes.distribution()

    def code(self, images: Tensor) -> Tensor:
        """What the decoder is given of images ``(B, C, H, W)``: ``(B, latent_dim)``."""
        return full_precision(self.encoder(images))

    def decode(self, z: Tensor, condition: Any = None) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] of codes ``(B, latent_dim)``, differentiable."""
        return torch.sigmoid(full_precision(self.decoder(z.to(next(self.decoder.parameters()).dtype))))

    def logits(self, images: Tensor) -> Tensor:
        """What the discriminator says of images in [0, 1], ``(B,)``."""
        assert self.discriminator is not None
        return full_precision(self.discriminator(2 * images - 1))[:, 0]

    @torch.no_grad()
    def reconstruct(self, images: Tensor, condition: Any = None) -> Tensor:
        return self.decode(self.code(images)).float()

    def compare(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The distances of the loss, not weighted."""
        found = {"pixel": self.pixel_distance, "feature": self.feature_distance}
        return {name: distance(images, targets) for name, distance in found.items() if distance is not None}

    # ---- the loss

    def terms(self, fakes: Tensor, images: Tensor) -> dict[str, Tensor]:
        """The terms of the loss of reconstructions, each weighted, ``(B,)`` by name (equation 1)."""
        values = {f"{name}_loss": value for name, value in self.compare(fakes, images).items()}
        if self.discriminator is not None:
            values["adversarial_loss"] = self.loss.generator(self.logits(fakes))
        weights = self.weights._asdict()
        return {name: weights[name.removesuffix("_loss")] * value for name, value in values.items()}

    def generator_loss(self, fakes: Tensor, condition: Any = None) -> Tensor:
        """The sum of the terms; the condition are the images that are reconstructed."""
        return torch.stack(list(self.terms(fakes, condition).values())).sum(0)

    def discriminator_loss(self, images: Tensor, fakes: Tensor, condition: Any = None) -> DiscriminatorTerms:
        real, fake = self.logits(images), self.logits(fakes)
        return DiscriminatorTerms(self.loss.real(real) + self.loss.fake(fake), real, fake)

    # ---- the game

    def generator_parts(self) -> list[nn.Module]:
        """What is trained by the terms of the loss."""
        return [self.encoder, self.decoder]

    def players(self) -> dict[str, Player]:
        players = {
            "generator": Player(
                self.generator_parts(),
                self.make_generator_optimizer,
                self.make_generator_lr_scheduler,
                self.generator_clip,
            )
        }
        if self.discriminator is not None:
            players["discriminator"] = Player(
                [self.discriminator],
                self.make_discriminator_optimizer,
                self.make_discriminator_lr_scheduler,
                self.discriminator_clip,
            )
        return players

    def fakes(self, images: Tensor, condition: Any = None) -> Tensor:
        """Reconstructions."""
        code = self.code(images)
        if self.training:
            self.codes.update(code)
        return self.decode(code)

    def turns(self, pieces: Sequence[Piece], generator_turn: bool) -> Turns:
        if self.discriminator is None:
            return Turns(discriminator=False, generator=generator_turn)
        return super().turns(pieces, generator_turn)

    def play(self, images: Tensor, condition: Any = None) -> dict[str, Tensor]:
        # The losses of a duel know the condition of a batch: here it is what shall be reconstructed.
        return self.duel(images, images, self.generator_turn())

    def _generator_turn(self, piece: Piece) -> tuple[Tensor, dict[str, Tensor]]:
        fakes = self.fakes(piece.images, piece.condition) if piece.fakes is None else piece.fakes
        terms = self.terms(fakes, piece.images)
        loss = torch.stack(list(terms.values())).sum(0)
        return loss, {"generator_loss": loss, **terms}

    def judge(self, images: Tensor, condition: Any = None) -> dict[str, Tensor]:
        """All losses, and squared errors of a pixel on average: of all pixels, and without those at the edge twice, as
        they are (``unshifted_error``) and after the best shift by up to a pixel (``shift_tolerant_error``)."""
        fakes = self.fakes(images)
        terms = self.terms(fakes, images)
        values = {"generator_loss": torch.stack(list(terms.values())).sum(0), **terms}
        values["pixel_error"] = (fakes - images).square().flatten(1).mean(1)
        if min(self.image_shape[1:]) > 2:
            values["unshifted_error"] = shift_tolerant_error(fakes, images, reach=0, margin=1)
            values["shift_tolerant_error"] = shift_tolerant_error(fakes, images, reach=1)
        return (
            values | self._named(self.discriminator_loss(images, fakes)) if self.discriminator is not None else values
        )

    def on_train_start(self) -> None:
        """Let distances look at the training images, once in the life of the model."""
        for distance in (self.pixel_distance, self.feature_distance):
            if distance is not None:
                distance.start(lambda count: training_images(self, count))
