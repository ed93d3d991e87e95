"""Variational autoencoder with the discriminator of a GAN for its measure of likeness.

Larsen, Sonderby, Larochelle & Winther 2016, Autoencoding beyond pixels using a learned similarity metric
(https://arxiv.org/abs/1512.09300); where the paper leaves it open, the authors' program decides
(autoencoding_beyond_pixels): images, reconstructions and samples go through the discriminator as one batch.

Departures: the networks move one after the other, the discriminator first, each against what the others are by then
(algorithm 1 moves all three at once), and learning rates stay as they are unless a schedule is given.
"""

from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.optim import RMSprop

from lit_gen.models.adversarial import Piece, Player, check_clip
from lit_gen.models.adversarial_losses import AdversarialLossFactory, Minimax
from lit_gen.models.balance import Balanced, BalancingRuleFactory, build_balance
from lit_gen.models.base import Encodes, Reconstructs
from lit_gen.models.gan import GAN
from lit_gen.models.image_distances import ImageDistanceFactory
from lit_gen.models.regularizers import RegularizerFactory
from lit_gen.models.statistics import training_images
from lit_gen.networks import (
    NetworkFactory,
    Shape,
    VAEGANDiscriminator,
    VAEGANEncoder,
    VAEGANGenerator,
    build,
    check_layer,
    full_precision,
    watch_layer,
)
from lit_gen.objectives import DiscriminatorTerms, half_squares, kl_divergence


class VAEGAN(Balanced, GAN, Encodes, Reconstructs):
    """VAE and GAN with one network for decoder and generator (Larsen et al. 2016).

    Images are compared with their reconstructions by what an inner layer of the discriminator sees in both: a Gaussian
    of unit variance about its features takes the place of p(x given z). Per image, the three networks minimise

    - encoder: KL(q(z given x) || p(z)) + feature error
    - generator: ``gamma`` x feature error + adversarial loss of the reconstruction + that of a sample
    - discriminator: loss of the image + loss of the reconstruction + loss of a sample

    and nothing else: no adversarial gradient reaches the encoder, no feature error the discriminator (algorithm 1). A
    ``distance`` of images, such as that of a frozen comparator's features, is added to the feature error or stands in
    its place: the VAE of DeePSiM with all its terms (Dosovitskiy & Brox 2016, https://arxiv.org/abs/1602.02644).

    Networks see and make pixels in [-1, 1]; images are in [0, 1] everywhere else. Beside what a :class:`GAN` logs there
    are ``kl``, in nats, ``feature_error``, ``distance``, and in evaluation ``reconstruction_error``, the squared error
    of :meth:`reconstruct` summed over pixels in [0, 1].

    A variant overrides what one of :class:`GAN` does, :meth:`encode`, :meth:`feature_error` or :meth:`errors`.

    Example:
        >>> model = VAEGAN((3, 32, 32))
        >>> model.sample(4).shape
        torch.Size([4, 3, 32, 32])

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        latent_dim: number of latent units; their prior is N(0, I).
        encoder: network from the image to the mean and log-variance of q(z given x).
        generator: network from z to the image before its tanh: the paper's decoder.
        discriminator: network from the image to one logit.
        feature_layer: inner layer of the discriminator that compares images, by its name in ``named_modules``; None for
            a model that compares them by ``distance`` alone.
        gamma: weight of the feature error for the generator. Features are summed, so that the right weight falls with
            their number and scale.
        distance: another distance of an image and its reconstruction, which encoder and generator minimise.
        distance_weight: feature errors that a distance of 1 costs.
        loss: what generator and discriminator minimise. The default is that of the paper; ``NonSaturating`` has a
            gradient where the discriminator is sure.
        regularizer: of the discriminator; None for none.
        balance: rule that says which of discriminator and generator is updated; None: both on every batch.
            ``Equilibrium`` is that of the authors' program. The encoder is always updated.
        discriminator_steps: batches, each with an update of discriminator and encoder, for one turn of the generator.
        generator_steps: updates of the generator in its turn, each from new noise.
        micro_batches: parts that a batch is computed in, one after the other, to save memory.
        ema_decay: of the moving average of the generator (0.999, say); None for no average.
        encoder_optimizer: takes the encoder's parameters.
        generator_optimizer: takes the generator's.
        discriminator_optimizer: takes the discriminator's.
        encoder_lr_scheduler: takes the encoder's optimizer; stepped after each epoch.
        generator_lr_scheduler: takes the generator's optimizer; stepped after each epoch.
        discriminator_lr_scheduler: takes the discriminator's optimizer; stepped after each epoch.
        encoder_clip: largest norm of the encoder's gradient; None for no clipping.
        generator_clip: largest norm of the generator's gradient.
        discriminator_clip: largest norm of the discriminator's gradient.
    """

    def __init__(
        self,
        image_shape: Shape,
        latent_dim: int = 128,
        encoder: NetworkFactory = VAEGANEncoder,
        generator: NetworkFactory = VAEGANGenerator,
        discriminator: NetworkFactory = VAEGANDiscriminator,
        feature_layer: str | None = "layers.convolution3",
        gamma: float = 1e-6,
        distance: ImageDistanceFactory | None = None,
        distance_weight: float = 100.0,
        loss: AdversarialLossFactory = Minimax,
        regularizer: RegularizerFactory | None = None,
        balance: BalancingRuleFactory | None = None,
        discriminator_steps: int = 1,
        generator_steps: int = 1,
        micro_batches: int = 1,
        ema_decay: float | None = None,
        encoder_optimizer: OptimizerCallable = lambda parameters: RMSprop(parameters, lr=3e-4),
        generator_optimizer: OptimizerCallable = lambda parameters: RMSprop(parameters, lr=3e-4),
        discriminator_optimizer: OptimizerCallable = lambda parameters: RMSprop(parameters, lr=3e-4),
        encoder_lr_scheduler: LRSchedulerCallable | None = None,
        generator_lr_scheduler: LRSchedulerCallable | None = None,
        discriminator_lr_scheduler: LRSchedulerCallable | None = None,
        encoder_clip: float | None = None,
        generator_clip: float | None = None,
        discriminator_clip: float | None = None,
    ) -> None:
        super().__init__(
            image_shape,
            latent_dim,
            "normal",
            generator,
            discriminator,
            loss,
            regularizer,
            discriminator_steps,
            generator_steps,
            micro_batches,
            ema_decay,
            generator_optimizer,
            discriminator_optimizer,
            generator_lr_scheduler,
            discriminator_lr_scheduler,
            generator_clip,
            discriminator_clip,
        )
        if gamma < 0:
            raise ValueError(f"gamma must not be negative, got {gamma}")
        self.encoder = build(encoder, self.image_shape, (2 * latent_dim,))
        if distance_weight <= 0:
            raise ValueError(f"distance_weight must be positive, got {distance_weight}; leave out the distance instead")
        if feature_layer is None and distance is None:
            raise ValueError("nothing would compare reconstructions with images: give a feature_layer or a distance")
        self.feature_layer = None if feature_layer is None else check_layer(self.discriminator, feature_layer)
        self.gamma = gamma
        self.distance = None if distance is None else build(distance, self.image_shape)
        self.distance_weight = distance_weight
        self.balance = build_balance(balance, self.loss)
        self.make_encoder_optimizer = encoder_optimizer
        self.make_encoder_lr_scheduler = encoder_lr_scheduler
        self.encoder_clip = check_clip("encoder_clip", encoder_clip)

    # ---- the networks

    def to_image(self, output: Tensor) -> Tensor:
        return 0.5 * (torch.tanh(output) + 1)

    def from_image(self, images: Tensor) -> Tensor:
        return torch.atanh(2 * images - 1)

    def to_discriminator(self, images: Tensor) -> Tensor:
        return 2 * images - 1

    def encode(self, images: Tensor, condition: Any = None) -> Distribution:
        """q(z given x), a diagonal Gaussian."""
        mean, log_variance = full_precision(self.encoder(2 * images - 1)).chunk(2, dim=1)
        return Independent(Normal(mean, torch.exp(0.5 * log_variance), validate_args=False), 1, validate_args=False)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, condition: Any = None) -> Tensor:
        """The image of the posterior mean, ``(B, C, H, W)`` in [0, 1]."""
        return self.decode_images(self.encode(images, condition).mean, condition).float()

    def logits_and_features(self, images: Tensor, condition: Any = None) -> tuple[Tensor, Tensor | None]:
        """Logits ``(B,)`` of images in [0, 1], and what :attr:`feature_layer` sees in them, ``(B, ...)``, if any."""
        if self.feature_layer is None:
            return self.discriminate(images, condition), None
        with watch_layer(self.discriminator, self.feature_layer) as features:
            logits = self.discriminate(images, condition)
        return logits, full_precision(features[0])

    def feature_error(self, features: Tensor, reconstructed: Tensor) -> Tensor:
        """-log p(D_l(x) given z) of each image but for a constant, ``(B,)``: equation 7 with unit variance."""
        return half_squares(features, reconstructed)

    def errors(self, images: Tensor, reconstructions: Tensor, features: Tensor | None) -> dict[str, Tensor]:
        """What encoder and generator minimise of reconstructions, ``(B,)`` by name.

        Args:
            images: ``(B, C, H, W)``.
            reconstructions: of the same shape.
            features: ``(2B, ...)`` or more of both, the images first; None without a :attr:`feature_layer`.
        """
        values: dict[str, Tensor] = {}
        if features is not None:
            values["feature_error"] = self.feature_error(*features.split(len(images))[:2])
        if self.distance is not None:
            values["distance"] = self.distance(reconstructions, images)
        return values

    def error(self, values: dict[str, Tensor]) -> Tensor:
        """The sum of :meth:`errors`, in units of the feature error, ``(B,)``."""
        weights = {"distance": self.distance_weight}
        return torch.stack([weights.get(name, 1.0) * value for name, value in values.items()]).sum(0)

    # ---- the game

    def players(self) -> dict[str, Player]:
        encoder = Player([self.encoder], self.make_encoder_optimizer, self.make_encoder_lr_scheduler, self.encoder_clip)
        return super().players() | {"encoder": encoder}

    def fakes(self, images: Tensor, condition: Any = None) -> Tensor:
        """Reconstructions of the images, then as many samples: ``(2B, C, H, W)``."""
        reconstructed = self.encode(images, condition).rsample()
        z = torch.cat([reconstructed, self.sample_latents(len(images), condition)])
        return self.generate(z, condition) if self.training else self.decode_images(z, condition)

    def discriminator_loss(self, images: Tensor, fakes: Tensor, condition: Any = None) -> DiscriminatorTerms:
        """Of images ``(B, ...)`` and the ``(2B, ...)`` of :meth:`fakes`, with ``(2B,)`` logits of fakes."""
        real, fake = self.discriminate(torch.cat([images, fakes]), condition).split([len(images), len(fakes)])
        return DiscriminatorTerms(self.loss.real(real) + _pairs(self.loss.fake(fake)).sum(0), real, fake)

    def generator_loss(self, fakes: Tensor, condition: Any = None) -> Tensor:
        """The adversarial part, of a reconstruction and a sample, ``(B,)``."""
        return _pairs(super().generator_loss(fakes, condition)).sum(0)

    def penalty(self, images: Tensor, fakes: Tensor, condition: Any = None) -> Tensor | None:
        penalty = super().penalty(torch.cat([images, images]), fakes, condition)
        return None if penalty is None else _pairs(penalty).mean(0)

    def play(self, images: Tensor, condition: Any = None) -> dict[str, Tensor]:
        pieces = self._pieces(images, condition, min(self.micro_batches, len(images)), keep_graph=False)
        turns = self.turns(pieces, self.generator_turn())
        values: dict[str, Tensor] = {}
        if turns.discriminator:
            values |= self.update("discriminator", self._discriminator_turn, pieces)
        values |= self.update("encoder", self._encoder_turn, pieces)
        for _ in range(self.generator_steps if turns.generator else 0):
            values |= self.update("generator", self._generator_turn, pieces)
        return values

    def _own_errors(self, images: Tensor, reconstructions: Tensor, condition: Any) -> dict[str, Tensor]:
        """:meth:`errors`, where no one asks the discriminator for logits."""
        features = None
        if self.feature_layer is not None:
            _, features = self.logits_and_features(torch.cat([images, reconstructions]), condition)
        return self.errors(images, reconstructions, features)

    def _encoder_turn(self, piece: Piece) -> tuple[Tensor, dict[str, Tensor]]:
        posterior = self.encode(piece.images, piece.condition)
        z = posterior.rsample()
        reconstructions = self.generate(z, piece.condition)
        errors = self._own_errors(piece.images, reconstructions, piece.condition)
        kl = kl_divergence(posterior, self.prior, z)
        return kl + self.error(errors), {"kl": kl, **errors}

    def _generator_turn(self, piece: Piece) -> tuple[Tensor, dict[str, Tensor]]:
        fakes = self.fakes(piece.images, piece.condition)
        logits, features = self.logits_and_features(torch.cat([piece.images, fakes]), piece.condition)
        errors = self.errors(piece.images, fakes[: len(piece.images)], features)
        loss = _pairs(self.loss.generator(logits[len(piece.images) :])).sum(0)
        return self.gamma * self.error(errors) + loss, {"generator_loss": loss, **errors}

    def judge(self, images: Tensor, condition: Any = None) -> dict[str, Tensor]:
        posterior = self.encode(images, condition)
        reconstructions = self.reconstruct(images, condition)
        return super().judge(images, condition) | {
            "kl": kl_divergence(posterior, self.prior, posterior.mean),
            **self._own_errors(images, reconstructions, condition),
            "reconstruction_error": (reconstructions - images).square().flatten(1).sum(1),
        }

    def on_train_start(self) -> None:
        """Let the distance look at the training images, once in the life of the model."""
        super().on_train_start()
        if self.distance is not None:
            self.distance.start(lambda count: training_images(self, count))

    def compiled_parts(self) -> list[nn.Module]:
        """Without the discriminator, if one of its layers is watched."""
        if self.feature_layer is None:
            return super().compiled_parts()
        return [part for part in super().compiled_parts() if part is not self.discriminator]


def _pairs(of_fakes: Tensor) -> Tensor:
    """Values ``(2B,)`` of reconstructions, then of samples, side by side: ``(2, B)``."""
    return of_fakes.unflatten(0, (2, -1))
