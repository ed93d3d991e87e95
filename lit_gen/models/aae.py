"""Adversarial autoencoder.

Makhzani, Shlens, Jaitly, Goodfellow & Frey 2015, Adversarial autoencoders (https://arxiv.org/abs/1511.05644), with the
deterministic encoder of its experiments. Departure: Adam instead of SGD with momentum.
"""

from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from lit_gen.models.adversarial import AdversarialModel, Piece, Player, check_clip
from lit_gen.models.adversarial_losses import AdversarialLossFactory, NonSaturating
from lit_gen.models.base import Decodes, Reconstructs
from lit_gen.models.optimizers import FusedAdam, GANAdam
from lit_gen.networks import MLP, GaussianLikelihood, LikelihoodFactory, NetworkFactory, Shape, build, full_precision
from lit_gen.objectives import DiscriminatorTerms


class AAE(AdversarialModel, Decodes, Reconstructs):
    """Adversarial autoencoder (Makhzani et al. 2015): a discriminator draws the codes of images towards a prior.

    Each batch has two phases (section 2). Encoder and decoder reduce the reconstruction error. Then a discriminator
    learns to tell draws from the prior, which it shall call real, from codes, and the encoder to make codes that it
    takes for such draws. No discriminator sees an image. Logged beside the losses of the game are ``reconstruction``,
    log p(x given the code) in nats, and in evaluation ``reconstruction_error``, squared and summed over pixels.

    A variant overrides :meth:`code`, :meth:`decode`, either loss, whose images and fakes are codes, or :attr:`prior`:
    whatever can be drawn from will do, its density is never asked for.

    Example:
        >>> model = AAE((1, 28, 28))
        >>> model.sample(4).shape
        torch.Size([4, 1, 28, 28])

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        latent_dim: number of latent units.
        encoder: network from the image to its code.
        decoder: network from the code to the parameters of the likelihood.
        discriminator: network from a code to one logit.
        likelihood: p(x given z); the default is half the squared error.
        loss: what encoder and discriminator minimise of the logits.
        discriminator_steps: batches, each with an update of the discriminator, for one turn of the encoder against it.
        generator_steps: updates of the encoder in its turn.
        micro_batches: parts that a batch is computed in, one after the other, to save memory.
        optimizer: takes the parameters of encoder and decoder, for the reconstruction.
        generator_optimizer: takes the encoder's, for the game.
        discriminator_optimizer: takes the discriminator's.
        lr_scheduler: takes the optimizer of the reconstruction; stepped after each epoch.
        generator_lr_scheduler: takes that of the encoder's game; stepped after each epoch.
        discriminator_lr_scheduler: takes the discriminator's; stepped after each epoch.
        clip: largest norm of the gradient of the reconstruction; None for no clipping.
        generator_clip: largest norm of the encoder's gradient in the game.
        discriminator_clip: largest norm of the discriminator's gradient.
    """

    def __init__(
        self,
        image_shape: Shape,
        latent_dim: int = 8,
        encoder: NetworkFactory = lambda i, o: MLP(i, o, hidden_dims=[1000, 1000], activation="relu"),
        decoder: NetworkFactory = lambda i, o: MLP(i, o, hidden_dims=[1000, 1000], activation="relu"),
        discriminator: NetworkFactory = lambda i, o: MLP(i, o, hidden_dims=[1000, 1000], activation="relu"),
        likelihood: LikelihoodFactory = lambda shape: GaussianLikelihood(shape, std=1.0),
        loss: AdversarialLossFactory = NonSaturating,
        discriminator_steps: int = 1,
        generator_steps: int = 1,
        micro_batches: int = 1,
        optimizer: OptimizerCallable = FusedAdam,
        generator_optimizer: OptimizerCallable = GANAdam,
        discriminator_optimizer: OptimizerCallable = GANAdam,
        lr_scheduler: LRSchedulerCallable | None = None,
        generator_lr_scheduler: LRSchedulerCallable | None = None,
        discriminator_lr_scheduler: LRSchedulerCallable | None = None,
        clip: float | None = None,
        generator_clip: float | None = None,
        discriminator_clip: float | None = None,
    ) -> None:
        super().__init__(image_shape, discriminator_steps, generator_steps, micro_batches)
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")
        self.latent_dim = latent_dim
        self.encoder = build(encoder, self.image_shape, (latent_dim,))
        self.likelihood = build(likelihood, self.image_shape)
        self.decoder = build(decoder, (latent_dim,), self.likelihood.parameter_shape)
        self.discriminator = build(discriminator, (latent_dim,), (1,))
        self.loss = build(loss)
        self.make_optimizer = optimizer
        self.make_generator_optimizer = generator_optimizer
        self.make_discriminator_optimizer = discriminator_optimizer
        self.make_lr_scheduler = lr_scheduler
        self.make_generator_lr_scheduler = generator_lr_scheduler
        self.make_discriminator_lr_scheduler = discriminator_lr_scheduler
        self.clip = check_clip("clip", clip)
        self.generator_clip = check_clip("generator_clip", generator_clip)
        self.discriminator_clip = check_clip("discriminator_clip", discriminator_clip)

    # ---- the networks

    @property
    def latent_shape(self) -> Shape:
        return (self.latent_dim,)

    @property
    def prior(self) -> Distribution:
        """p(z) = N(0, I)."""
        zeros = next(self.decoder.parameters()).new_zeros(self.latent_dim)
        return Independent(Normal(zeros, 1.0, validate_args=False), 1, validate_args=False)

    def code(self, images: Tensor) -> Tensor:
        """``(B, latent_dim)`` of images ``(B, C, H, W)`` in [0, 1]."""
        return full_precision(self.encoder(images))

    def decode(self, z: Tensor, condition: Any = None) -> Distribution:
        """p(x given z)."""
        return self.likelihood(self.decoder(z.to(next(self.decoder.parameters()).dtype)))

    @torch.no_grad()
    def reconstruct(self, images: Tensor, condition: Any = None) -> Tensor:
        return self.decode_images(self.code(images), condition).float()

    def logits(self, codes: Tensor) -> Tensor:
        """Of the discriminator, ``(B,)``: large where a code looks like a draw from the prior."""
        return full_precision(self.discriminator(codes))[:, 0]

    # ---- the game, in which draws from the prior are what is real, and the images the condition of their codes

    def players(self) -> dict[str, Player]:
        return {
            "autoencoder": Player([self.encoder, self.decoder], self.make_optimizer, self.make_lr_scheduler, self.clip),
            "discriminator": Player(
                [self.discriminator],
                self.make_discriminator_optimizer,
                self.make_discriminator_lr_scheduler,
                self.discriminator_clip,
            ),
            "generator": Player(
                [self.encoder], self.make_generator_optimizer, self.make_generator_lr_scheduler, self.generator_clip
            ),
        }

    def fakes(self, images: Tensor, condition: Any = None) -> Tensor:
        """Codes ``(B, latent_dim)`` of the images, which are the condition."""
        return self.code(condition)

    def discriminator_loss(self, images: Tensor, fakes: Tensor, condition: Any = None) -> DiscriminatorTerms:
        """Of draws from the prior and of codes, ``(B, latent_dim)`` each."""
        real, fake = self.logits(images), self.logits(fakes)
        return DiscriminatorTerms(self.loss.real(real) + self.loss.fake(fake), real, fake)

    def generator_loss(self, fakes: Tensor, condition: Any = None) -> Tensor:
        return self.loss.generator(self.logits(fakes))

    def play(self, images: Tensor, condition: Any = None) -> dict[str, Tensor]:
        generator_turn = self.generator_turn()
        parts = images.tensor_split(min(self.micro_batches, len(images)))
        pieces = [Piece(part, None, None, len(part) / len(images)) for part in parts]
        values = self.update("autoencoder", self._reconstruction_turn, pieces)
        return values | self.duel(self.sample_latents(len(images)), images, generator_turn)

    def _reconstruction_turn(self, piece: Piece) -> tuple[Tensor, dict[str, Tensor]]:
        reconstruction = self.decode(self.code(piece.images)).log_prob(piece.images)
        return -reconstruction, {"reconstruction": reconstruction}

    def judge(self, images: Tensor, condition: Any = None) -> dict[str, Tensor]:
        return super().judge(self.sample_latents(len(images)), images) | {
            "reconstruction": self.decode(self.code(images)).log_prob(images),
            "reconstruction_error": (self.reconstruct(images) - images).square().flatten(1).sum(1),
        }
