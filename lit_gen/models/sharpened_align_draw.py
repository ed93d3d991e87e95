"""alignDRAW whose images an adversarial network sharpens.

Mansimov, Parisotto, Ba & Salakhutdinov 2016, Generating images from captions with attention
(https://arxiv.org/abs/1511.02793): the images of alignDRAW are blurred, and a network like a level of LAPGAN (Denton et
al. 2015, https://arxiv.org/abs/1506.05751), trained on the residuals of a Laplacian pyramid, adds what they lack. Input
planes and layers are those of the authors' program (text2image, sharpen.py).

Departures: the paper tells the network the caption by a skip-thought vector, which needs an encoder trained on a corpus
of books; here a vector of the sentence by alignDRAW's own encoder stands in for it. The program has neither the
discriminator nor the training: these are LAPGAN's here, with a plane of the caption for either network. Besides the
pyramid, training may take alignDRAW's reconstructions for the blurred images, which look more like what is sharpened.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Self, get_args

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lit_gen.models.adversarial import AdversarialModel, Player, check_clip
from lit_gen.models.adversarial_losses import AdversarialLossFactory, NonSaturating
from lit_gen.models.align_draw import AlignDRAW
from lit_gen.models.base import CaptionConditional, Frame, HasReconstructionTrajectory, HasTrajectory, Reconstructs
from lit_gen.models.checkpoint import build_model, load_model, stored_hyperparameters
from lit_gen.models.optimizers import GANAdam
from lit_gen.models.regularizers import RegularizerFactory
from lit_gen.networks import (
    MovingAverage,
    NetworkFactory,
    PlaneDiscriminator,
    PlaneGenerator,
    Shape,
    VectorPlane,
    build,
    full_precision,
)
from lit_gen.networks.laplacian import resize
from lit_gen.objectives import DiscriminatorTerms

Blur = Literal["pyramid", "reconstruction"]


class Blurred(NamedTuple):
    """What is sharpened: the condition of both networks."""

    images: Tensor
    """(B, C, H, W) in [0, 1]."""
    sentences: Tensor
    """(B, D) a vector for each caption."""


class SharpenedAlignDRAW(
    AdversarialModel, CaptionConditional, Reconstructs, HasTrajectory, HasReconstructionTrajectory
):
    """alignDRAW and a network that sharpens its images, given the caption (Mansimov et al. 2016).

    The alignDRAW is trained before, stays as it is, and becomes part of the checkpoint of this model, which needs its
    own checkpoint no more. A generator sees the blurred image, a plane of noise and a plane made of the caption, and
    gives what is added to the image; a discriminator sees image or sum, and a plane made of the caption. Blurred images
    are real ones shrunk and enlarged again (``pyramid``), or as alignDRAW reconstructs them (``reconstruction``).

    Samples are drawn by alignDRAW and sharpened, with noise of zero, its mean, unless ``sample_noise``. The last frame
    of a trajectory is the sharpened image, the one before it what alignDRAW drew; :meth:`sharpen` takes any images.

    A variant overrides :meth:`blur`, :meth:`discriminator_loss`, :meth:`generator_loss` or :meth:`penalty`, whose
    condition is a :class:`Blurred`.

    Example:
        >>> drawer = AlignDRAW((1, 20, 20), ["<pad>", "a", "dog", "."], ["a dog ."], 4, latent_dim=5, hidden_dim=16)
        >>> stored = json.dumps(stored_hyperparameters(drawer))  # in place of the path of a checkpoint
        >>> model = SharpenedAlignDRAW((1, 20, 20), ["<pad>", "a", "dog", "."], stored)
        >>> model.sample(2, model.make_captions(["a dog .", "dog ."])).shape
        torch.Size([2, 1, 20, 20])

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        vocabulary: words in the order of their numbers; the command line takes them from the data.
        align_draw: checkpoint of a trained :class:`AlignDRAW`, or the folder of its run. What a checkpoint stores in
            place of the path is the specification of that model in JSON.
        captions: to draw from when none is asked for; the command line takes them from the data.
        blurred: what the networks learn to sharpen.
        coarse_size: shorter side to which ``pyramid`` shrinks an image; None: half of that of the image.
        sample_noise: whether samples are sharpened with noise, as in training, and not with its mean.
        generator: from noise, blurred image and caption, ``C + 2`` planes, to what is added to the image. The paper's
            has 128 maps in each layer.
        discriminator: from image and caption, ``C + 1`` planes, to one logit.
        loss: what both minimise.
        regularizer: of the discriminator; None for none.
        discriminator_steps: batches, each with an update of the discriminator, for one turn of the generator.
        generator_steps: updates of the generator in its turn, each from new noise.
        micro_batches: parts that a batch is computed in, one after the other, to save memory.
        ema_decay: of the moving average of the generator (0.999, say), which then sharpens samples; None for none.
        generator_optimizer: takes the generator's parameters.
        discriminator_optimizer: takes the discriminator's.
        generator_lr_scheduler: takes the generator's optimizer; stepped after each epoch.
        discriminator_lr_scheduler: takes the discriminator's optimizer; stepped after each epoch.
        generator_clip: largest norm of the generator's gradient; None for no clipping.
        discriminator_clip: largest norm of the discriminator's gradient.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it holds another model, or one of other images or words.
    """

    def __init__(
        self,
        image_shape: Shape,
        vocabulary: list[str],
        align_draw: str,
        captions: Sequence[str] = (),
        blurred: Blur = "pyramid",
        coarse_size: int | None = None,
        sample_noise: bool = False,
        generator: NetworkFactory = PlaneGenerator,
        discriminator: NetworkFactory = PlaneDiscriminator,
        loss: AdversarialLossFactory = NonSaturating,
        regularizer: RegularizerFactory | None = None,
        discriminator_steps: int = 1,
        generator_steps: int = 1,
        micro_batches: int = 1,
        ema_decay: float | None = None,
        generator_optimizer: OptimizerCallable = GANAdam,
        discriminator_optimizer: OptimizerCallable = GANAdam,
        generator_lr_scheduler: LRSchedulerCallable | None = None,
        discriminator_lr_scheduler: LRSchedulerCallable | None = None,
        generator_clip: float | None = None,
        discriminator_clip: float | None = None,
    ) -> None:
        drawer = trained_align_draw(align_draw)
        # In JSON, because the command line would add defaults to a dictionary that names a class.
        self._stored_drawer = json.dumps(stored_hyperparameters(drawer))
        super().__init__(image_shape, discriminator_steps, generator_steps, micro_batches)
        self.hparams["align_draw"] = self._stored_drawer
        # Loggers are told the path, not all that a checkpoint needs.
        self._hparams_initial["align_draw"] = "stored" if align_draw.startswith("{") else align_draw
        self.keep_vocabulary(vocabulary, captions)
        self._check(drawer)
        if blurred not in get_args(Blur):
            raise ValueError(f"blurred must be {' or '.join(get_args(Blur))}, got {blurred!r}")
        channels, height, width = self.image_shape
        side = min(height, width)
        coarse = max(1, side // 2) if coarse_size is None else coarse_size
        if not 1 <= coarse < side:
            raise ValueError(
                f"coarse_size must lie in 1..{side - 1}, below the shorter side of the image, got {coarse}"
            )
        self.blurred = blurred
        self.coarse_shape = round(height * coarse / side), round(width * coarse / side)
        """Height and width of the coarser level of the pyramid."""
        self.sample_noise = sample_noise
        self.drawer = drawer.requires_grad_(False)
        sentence_dim = drawer.sentence_encoder.output_dim
        self.sharpener = VectorPlane(sentence_dim, (channels + 1, height, width), self.image_shape, generator)
        self.critic = VectorPlane(sentence_dim, self.image_shape, (1,), discriminator)
        self.loss = build(loss)
        self.regularizer = None if regularizer is None else build(regularizer)
        mixing = any(isinstance(part, _BatchNorm) for part in self.critic.modules())
        if mixing and self.regularizer is not None and self.regularizer.images_alone:
            raise ValueError(
                f"{type(self.regularizer).__name__} needs the gradient at each image by itself, and batch normalisation"
                " mixes the images of a batch: take a discriminator without it"
            )
        self.average = None if ema_decay is None else MovingAverage(self.sharpener, ema_decay)
        self.make_generator_optimizer = generator_optimizer
        self.make_discriminator_optimizer = discriminator_optimizer
        self.make_generator_lr_scheduler = generator_lr_scheduler
        self.make_discriminator_lr_scheduler = discriminator_lr_scheduler
        self.generator_clip = check_clip("generator_clip", generator_clip)
        self.discriminator_clip = check_clip("discriminator_clip", discriminator_clip)
        self.train(self.training)

    def _check(self, drawer: AlignDRAW) -> None:
        if drawer.image_shape != self.image_shape:
            raise ValueError(
                f"the alignDRAW was trained on images of shape {drawer.image_shape}, these are {self.image_shape}; take"
                " the data it was trained on, or set data.image_size and data.channels"
            )
        if drawer.vocabulary.words != self.vocabulary.words:
            raise ValueError(
                f"the alignDRAW knows {len(drawer.vocabulary):,} words, the data has another vocabulary of"
                f" {len(self.vocabulary):,}; take the captions it was trained on"
            )

    def specification(self, skip: int = 0) -> dict[str, Any]:
        """With the specification of the alignDRAW in place of its file."""
        specification = super().specification(skip)
        specification["init_args"]["align_draw"] = self._stored_drawer
        return specification

    def train(self, mode: bool = True) -> Self:
        """Set the mode of both networks; the alignDRAW stays in that of evaluation."""
        super().train(mode)
        self.drawer.eval()
        return self

    @property
    def generator(self) -> nn.Module:
        return self.sharpener.network

    @property
    def discriminator(self) -> nn.Module:
        return self.critic.network

    # ---- what is sharpened

    def blur(self, images: Tensor, condition: Any) -> Tensor:
        """The blurred images ``(B, C, H, W)`` in [0, 1] that the networks learn to sharpen."""
        if self.blurred == "reconstruction":
            return self.drawer.reconstruct(images, condition)
        height, width = self.image_shape[1:]
        return resize(resize(images, self.coarse_shape), (height, width)).clamp(0, 1)

    def sentences(self, condition: Any) -> Tensor:
        """``(B, D)``: what the alignDRAW's encoder makes of each caption as a whole."""
        captions = self.target_condition(condition)
        tokens, lengths = (part.to(self.device) for part in captions)
        return full_precision(self.drawer.sentence_encoder(tokens, lengths).summary)

    def add_edges(self, blurred: Blurred, noise: Tensor, averaged: bool = False) -> Tensor:
        """Blurred images and what the generator adds, ``(B, C, H, W)`` about [0, 1], differentiable.

        Args:
            blurred: images with their captions.
            noise: ``(B, 1, H, W)``.
            averaged: by the moving average of the weights, where the model keeps one.
        """
        network = self.average if averaged and self.average is not None else self.sharpener
        planes = torch.cat([noise, 2 * blurred.images - 1], 1)
        return blurred.images + full_precision(network(planes, blurred.sentences))

    def noise(self, count: int, random: bool) -> Tensor:
        """``(count, 1, H, W)``, uniform in (-1, 1), or zeros: its mean."""
        noise = torch.zeros(count, 1, *self.image_shape[1:], device=self.device)
        return noise.uniform_(-1, 1) if random else noise

    @torch.no_grad()
    def sharpen(self, images: Tensor, condition: Any, random: bool = False) -> Tensor:
        """Sharpened images, by the moving average of the weights where the model keeps one.

        Args:
            images: ``(B, C, H, W)`` in [0, 1].
            condition: their captions.
            random: with noise, and not with its mean.

        Returns:
            ``(B, C, H, W)``, float32 in [0, 1].
        """
        blurred = Blurred(images, self.sentences(condition))
        edged = self.add_edges(blurred, self.noise(len(images), random), averaged=True)
        return edged.clamp(0, 1).float()

    # ---- images

    def draw(self, num_samples: int, condition: Any = None) -> Tensor:
        return self.sharpen(self.drawer.draw(num_samples, condition).float(), condition, self.sample_noise)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, condition: Any = None) -> Tensor:
        """The alignDRAW's reconstruction, sharpened: ``(B, C, H, W)`` in [0, 1]."""
        return self.sharpen(self.drawer.reconstruct(images, condition), condition)

    def trajectory(self, num_samples: int, condition: Any = None) -> Iterator[Frame]:
        """The canvases of the alignDRAW, and last what is made of the last of them."""
        condition = self.sample_condition(num_samples) if condition is None else condition
        yield from self._frames(self.drawer.trajectory(num_samples, condition), condition, self.sample_noise)

    def reconstruction_trajectory(self, images: Tensor, condition: Any = None) -> Iterator[Frame]:
        """The same for given images, which the alignDRAW reconstructs."""
        yield from self._frames(self.drawer.reconstruction_trajectory(images, condition), condition, random=False)

    def _frames(self, frames: Iterator[Frame], condition: Any, random: bool) -> Iterator[Frame]:
        images = torch.empty(0)
        for frame in frames:
            images = frame.images
            yield frame
        yield Frame(self.sharpen(images, condition, random))

    # ---- the game

    def players(self) -> dict[str, Player]:
        return {
            "discriminator": Player(
                [self.critic],
                self.make_discriminator_optimizer,
                self.make_discriminator_lr_scheduler,
                self.discriminator_clip,
            ),
            "generator": Player(
                [self.sharpener], self.make_generator_optimizer, self.make_generator_lr_scheduler, self.generator_clip
            ),
        }

    @torch.no_grad()
    def prepared(self, images: Tensor, condition: Any) -> Blurred:
        """What the networks are given of real images and their captions."""
        return Blurred(self.blur(images, condition), self.sentences(condition))

    def play(self, images: Tensor, condition: Any = None) -> dict[str, Tensor]:
        return super().play(images, self.prepared(images, condition))

    def judge(self, images: Tensor, condition: Any = None) -> dict[str, Tensor]:
        return super().judge(images, self.prepared(images, condition))

    def fakes(self, images: Tensor, condition: Any = None) -> Tensor:
        """Sharpened images about [0, 1] of a :class:`Blurred`, as many as there are images."""
        return self.add_edges(condition, self.noise(len(images), random=True), averaged=not self.training)

    def logits(self, images: Tensor, condition: Blurred) -> Tensor:
        """The discriminator's logits ``(B,)`` of images ``(B, C, H, W)`` about [0, 1]."""
        return full_precision(self.critic(2 * images - 1, condition.sentences))[:, 0]

    def discriminator_loss(self, images: Tensor, fakes: Tensor, condition: Any = None) -> DiscriminatorTerms:
        real, fake = self.logits(images, condition), self.logits(fakes, condition)
        return DiscriminatorTerms(self.loss.real(real) + self.loss.fake(fake), real, fake)

    def generator_loss(self, fakes: Tensor, condition: Any = None) -> Tensor:
        return self.loss.generator(self.logits(fakes, condition))

    def penalty(self, images: Tensor, fakes: Tensor, condition: Any = None) -> Tensor | None:
        if self.regularizer is None:
            return None
        # In the precision of the weights, as in GAN.
        with torch.autocast(images.device.type, enabled=False):
            return self.regularizer.penalty(lambda seen: self.logits(seen, condition), images, fakes)

    def after_step(self, player: str) -> None:
        if player == "discriminator" and self.regularizer is not None:
            self.regularizer.after_step(self.critic)
        if player == "generator" and self.average is not None:
            self.average.update(self.sharpener)

    def compiled_parts(self) -> list[nn.Module]:
        """Both networks; not a discriminator whose gradient is part of the loss."""
        twice = self.regularizer is not None and self.regularizer.differentiates_twice
        return [self.generator, *([] if twice else [self.discriminator])]


def trained_align_draw(checkpoint: str) -> AlignDRAW:
    """The model in a checkpoint or run folder, or as its specification in JSON says, with weights to be loaded.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is another model.
    """
    remedy = (
        "train one (lit-gen fit -c align_draw/captioned_digits, say), or name its checkpoint or the folder of its run:"
        " --model.align_draw PATH"
    )
    if checkpoint.startswith("{"):
        drawer = build_model(json.loads(checkpoint))
    else:
        try:
            drawer = load_model(checkpoint)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"there is no trained alignDRAW to sharpen the images of: {error}; {remedy}"
            ) from error
    if not isinstance(drawer, AlignDRAW):
        raise ValueError(f"{checkpoint!r} holds a {type(drawer).__name__}, not an AlignDRAW; {remedy}")
    return drawer
