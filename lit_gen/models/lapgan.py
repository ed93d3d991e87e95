"""Laplacian pyramid of adversarial networks.

Denton, Chintala, Szlam & Fergus 2015, Deep generative image models using a Laplacian pyramid of adversarial networks
(https://arxiv.org/abs/1506.05751); networks and rates are those of the authors' program on CIFAR-10 (eyescream).

Departures from that program: each level is computed from the one below it, not from the full image, so that the pyramid
gives the image back across levels too; pixels are scaled to [-1, 1], not by their mean and deviation; all levels are
trained side by side, on the same batches; momentum and learning rate stay as they are unless a schedule is given
(``RisingMomentum`` is the program's).
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Uniform
from torch.nn.modules.batchnorm import _BatchNorm

from lit_gen.inference import GRID, Progress, PyramidLikelihood
from lit_gen.models.adversarial import Player, check_clip
from lit_gen.models.adversarial_losses import AdversarialLossFactory, NonSaturating
from lit_gen.models.balance import Balanced, BalancingRuleFactory, build_balance
from lit_gen.models.base import Conditional, Decodes, EstimatesLevels, Frame, HasTrajectory
from lit_gen.models.optimizers import FusedSGD
from lit_gen.models.pyramid_likelihood import pyramid_log_likelihood
from lit_gen.models.regularizers import RegularizerFactory
from lit_gen.networks import (
    CoarseDiscriminator,
    CoarseGenerator,
    MovingAverage,
    Network,
    NetworkFactory,
    PlaneDiscriminator,
    PlaneGenerator,
    Shape,
    build,
    full_precision,
)
from lit_gen.networks.laplacian import Size, default_sizes, resize
from lit_gen.objectives import DiscriminatorTerms


class Rung(NamedTuple):
    """What a level is conditioned on."""

    level: int
    """Number of the level; 0 is the finest."""
    coarse: Tensor | None
    """(B, C, H, W) the next coarser image, enlarged to this level, about [-1, 1]; None at the coarsest."""
    condition: Any
    """Of the images, or None."""


class LAPGAN(Balanced, Decodes, HasTrajectory, EstimatesLevels):
    """Laplacian pyramid of adversarial networks (Denton et al. 2015): an image from coarse to fine.

    Level K, the coarsest, is a GAN of small images. Every finer level k has a generator that adds to the enlarged image
    of the level below what a plane of noise suggests, and a discriminator that sees the sum. Levels learn from real
    coarse images, and independently of each other: each has two networks and two optimizers of its own, and every batch
    updates all of them. Logged are ``train/level0/generator_loss`` and so on, and sums over levels without ``level0/``.

    Within the pyramid pixels are scaled to [-1, 1] and not cut off; images given and returned are in [0, 1], the ranges
    cut off after the last level.

    A latent is the noise of all levels in a row, the coarsest first. With ``ema_decay`` samples, validation and
    callbacks draw from the moving averages of the generators, as in :class:`GAN`.

    A variant overrides :meth:`discriminator_loss`, :meth:`generator_loss`, :meth:`penalty`, :meth:`network_input` or
    :attr:`prior`. The condition of the first three is a :class:`Rung`, and their images are those of its level.

    Example:
        >>> from lit_gen.networks import UniformMLP
        >>> model = LAPGAN((3, 32, 32), base_generator=UniformMLP)
        >>> [tuple(frame.images.shape) for frame in model.trajectory(2)]
        [(2, 3, 8, 8), (2, 3, 16, 16), (2, 3, 32, 32)]

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        sizes: shorter sides of the levels, the coarsest first and that of the image last; None: 8-14-28, 8-16-32,
            4-8-16-32-64, 4-8 and alike, each half of the next. One size alone makes it a plain GAN.
        latent_dim: units of noise of the coarsest level; every finer one has a plane.
        base_generator: network of the coarsest level, from noise to the image.
        base_discriminator: network of the coarsest level, from the image to one logit.
        generator: network of each finer level, from the noise and the enlarged image, ``1 + C`` planes, to what is
            added to the image.
        discriminator: network of each finer level, from the sum to one logit.
        loss: what both networks of a level minimise.
        regularizer: of every discriminator; None for none.
        balance: rule that says, at each level, which network is updated; None: both on every batch. ``ErrorBalance`` is
            that of the paper's large images.
        discriminator_steps: batches, each with an update of the discriminators, for one turn of the generators.
        generator_steps: updates of the generators in their turn, each from new noise.
        micro_batches: parts that a batch is computed in, one after the other, to save memory.
        ema_decay: of the moving averages of the generators (0.999, say); None for no averages.
        generator_optimizer: takes the parameters of one generator.
        discriminator_optimizer: takes those of one discriminator.
        generator_lr_scheduler: takes the optimizer of a generator; stepped after each epoch.
        discriminator_lr_scheduler: takes the optimizer of a discriminator; stepped after each epoch.
        generator_clip: largest norm of the gradient of a generator; None for no clipping.
        discriminator_clip: largest norm of the gradient of a discriminator.
        bounded: whether the image of the coarsest level goes through tanh, as those of a DCGAN do. A discriminator with
            batch normalisation sees no scale of images, and without it lets that grow beyond all pixels.
    """

    def __init__(
        self,
        image_shape: Shape,
        sizes: Sequence[int] | None = None,
        latent_dim: int = 100,
        base_generator: NetworkFactory = CoarseGenerator,
        base_discriminator: NetworkFactory = CoarseDiscriminator,
        generator: NetworkFactory = PlaneGenerator,
        discriminator: NetworkFactory = PlaneDiscriminator,
        loss: AdversarialLossFactory = NonSaturating,
        regularizer: RegularizerFactory | None = None,
        balance: BalancingRuleFactory | None = None,
        discriminator_steps: int = 1,
        generator_steps: int = 1,
        micro_batches: int = 1,
        ema_decay: float | None = None,
        generator_optimizer: OptimizerCallable = lambda parameters: FusedSGD(parameters, lr=0.02),
        discriminator_optimizer: OptimizerCallable = lambda parameters: FusedSGD(parameters, lr=0.02),
        generator_lr_scheduler: LRSchedulerCallable | None = None,
        discriminator_lr_scheduler: LRSchedulerCallable | None = None,
        generator_clip: float | None = None,
        discriminator_clip: float | None = None,
        bounded: bool = False,
    ) -> None:
        super().__init__(image_shape, discriminator_steps, generator_steps, micro_batches)
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")
        self.latent_dim = latent_dim
        self.level_sizes = pyramid_sizes(self.image_shape, sizes)
        """Height and width of each level, the finest first."""
        channels = self.image_shape[0]
        fine = [(channels, *size) for size in self.level_sizes]
        coarsest = fine.pop()
        self.generators = nn.ModuleList([build(generator, (1 + channels, *shape[1:]), shape) for shape in fine])
        self.generators.append(build(base_generator, (latent_dim,), coarsest))
        self.discriminators = nn.ModuleList([build(discriminator, shape, (1,)) for shape in fine])
        self.discriminators.append(build(base_discriminator, coarsest, (1,)))
        self.loss = build(loss)
        self.regularizer = None if regularizer is None else build(regularizer)
        mixing = any(isinstance(part, _BatchNorm) for part in self.discriminators.modules())
        if mixing and self.regularizer is not None and self.regularizer.images_alone:
            raise ValueError(
                f"{type(self.regularizer).__name__} needs the gradient at each image by itself, and batch normalisation"
                " mixes the images of a batch: take discriminators without it"
            )
        self.balance = build_balance(balance, self.loss)
        if self.balance is not None and self.balance.remembers:
            raise ValueError(
                f"{type(self.balance).__name__} remembers which network is paused, and a pyramid has a pair of networks"
                " at each level: take a rule without memory, ErrorBalance"
            )
        self.averages = (
            None if ema_decay is None else nn.ModuleList([MovingAverage(net, ema_decay) for net in self.generators])
        )
        self.sample_average = True
        """Whether samples come from the moving averages of the generators, where there are any."""
        self.make_generator_optimizer = generator_optimizer
        self.make_discriminator_optimizer = discriminator_optimizer
        self.make_generator_lr_scheduler = generator_lr_scheduler
        self.make_discriminator_lr_scheduler = discriminator_lr_scheduler
        self.generator_clip = check_clip("generator_clip", generator_clip)
        self.discriminator_clip = check_clip("discriminator_clip", discriminator_clip)
        self.bounded = bounded

    # ---- the networks: what factories made, by the names of their arguments

    @property
    def base_generator(self) -> nn.Module:
        return self.generators[-1]

    @property
    def base_discriminator(self) -> nn.Module:
        return self.discriminators[-1]

    @property
    def generator(self) -> nn.Module | None:
        """That of the finest level, for all of its kind; None in a pyramid of one level."""
        return self.generators[0] if len(self.generators) > 1 else None

    @property
    def discriminator(self) -> nn.Module | None:
        """That of the finest level, for all of its kind; None in a pyramid of one level."""
        return self.discriminators[0] if len(self.discriminators) > 1 else None

    @property
    def num_levels(self) -> int:
        return len(self.level_sizes)

    def network_input(self, level: int, planes: Tensor, condition: Any = None) -> Tensor:
        """What a network of a level is given, of noise, planes or images and the condition of the images."""
        return planes

    # ---- the pyramid

    @property
    def latent_shape(self) -> Shape:
        return (self.latent_dim + sum(height * width for height, width in self.level_sizes[:-1]),)

    @property
    def prior(self) -> Distribution:
        """p(z): uniform in (-1, 1)."""
        zeros = next(self.parameters()).new_zeros(self.latent_shape)
        return Independent(Uniform(zeros - 1, zeros + 1, validate_args=False), 1, validate_args=False)

    def noise_of(self, z: Tensor) -> list[Tensor]:
        """The noise of each level, the finest first: ``(B, 1, H, W)``, and ``(B, latent_dim)`` for the coarsest."""
        planes = self.level_sizes[-2::-1] if self.num_levels > 1 else []
        parts = z.split([self.latent_dim, *(height * width for height, width in planes)], 1)
        finer = [part.unflatten(1, (1, *size)) for part, size in zip(parts[1:], planes, strict=True)]
        return [*reversed(finer), parts[0]]

    def rungs(self, images: Tensor, condition: Any = None) -> list[tuple[Tensor, Rung]]:
        """Images ``(B, C, H, W)`` in [0, 1] at each level, in [-1, 1], with what the level is given of them."""
        levels = [2 * images - 1]
        for size in self.level_sizes[1:]:
            levels.append(resize(levels[-1], size))
        enlarged = [resize(coarse, size) for coarse, size in zip(levels[1:], self.level_sizes)]
        return [
            (image, Rung(level, coarse, condition))
            for level, (image, coarse) in enumerate(zip(levels, [*enlarged, None], strict=True))
        ]

    def imagine(self, rung: Rung, noise: Tensor, averaged: bool) -> Tensor:
        """The generated image ``(B, C, H, W)`` of a level, about [-1, 1]: enlarged image plus residual.

        Args:
            rung: what the level is given.
            noise: of the level, as in :meth:`noise_of`.
            averaged: by the moving average of the weights, where the model keeps one.
        """
        network = (self.averages if averaged and self.averages is not None else self.generators)[rung.level]
        if rung.coarse is None:
            image = full_precision(network(self.network_input(rung.level, noise, rung.condition)))
            return image.tanh() if self.bounded else image
        planes = torch.cat([noise, rung.coarse], 1)
        return rung.coarse + full_precision(network(self.network_input(rung.level, planes, rung.condition)))

    def climb(self, z: Tensor, condition: Any = None, averaged: bool = False) -> Iterator[Tensor]:
        """Generated images of all levels, the coarsest first, each from the one before; about [-1, 1]."""
        noise, coarse = self.noise_of(z), None
        for level in reversed(range(self.num_levels)):
            image = self.imagine(Rung(level, coarse, condition), noise[level], averaged)
            yield image
            coarse = resize(image, self.level_sizes[max(0, level - 1)])

    @staticmethod
    def to_image(signal: Tensor) -> Tensor:
        """From [-1, 1] to [0, 1], cut off there."""
        return (0.5 * (signal + 1)).clamp(0, 1)

    def generate(self, z: Tensor, condition: Any = None) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] of latents, differentiable, by the trained weights."""
        *_, finest = self.climb(z, condition)
        return self.to_image(finest)

    def decode(self, z: Tensor, condition: Any = None) -> Tensor:
        """As :meth:`generate`, by the moving averages of the weights where the model keeps them."""
        *_, finest = self.climb(z, condition, self.sample_average)
        return self.to_image(finest)

    @torch.no_grad()
    def trajectory(self, num_samples: int, condition: Any = None) -> Iterator[Frame]:
        """The image of each level, each larger than the one before."""
        if condition is None and isinstance(self, Conditional):
            condition = self.sample_condition(num_samples)
        for image in self.climb(self.sample_latents(num_samples, condition), condition, self.sample_average):
            yield Frame(self.to_image(image).float())

    @torch.no_grad()
    def sample_level(self, level: int, images: Tensor, condition: Any = None) -> Tensor:
        """What one level makes of real coarse images, by which it is judged apart from the levels below it.

        Args:
            level: 0 for the finest; the coarsest takes nothing but the number of images.
            images: ``(B, C, H, W)`` in [0, 1].
            condition: of these.

        Returns:
            ``(B, C, *level_sizes[level])`` in [0, 1].

        Raises:
            ValueError: no such level.
        """
        if not 0 <= level < self.num_levels:
            raise ValueError(f"level must lie in 0..{self.num_levels - 1}, 0 for the finest, got {level}")
        image, rung = self.rungs(images, condition)[level]
        return self.to_image(self._imagine_anew(image, rung, self.sample_average)).float()

    def log_likelihood_parzen(
        self,
        images: Tensor,
        validation: Tensor | None = None,
        condition: Any = None,
        validation_condition: Any = None,
        num_samples: int = 10_000,
        num_residuals: int = 200,
        sigmas: Sequence[float] = GRID,
        level_sigmas: Sequence[float] | None = None,
        max_rows: int = 20,
        progress: Progress = iter,
    ) -> PyramidLikelihood:
        if level_sigmas is not None and len(level_sigmas) != self.num_levels:
            raise ValueError(f"level_sigmas must be one for each of {self.num_levels} levels, got {list(level_sigmas)}")
        choices = self.num_levels * [sigmas] if level_sigmas is None else [[sigma] for sigma in level_sigmas]
        real, held_out = self.rungs(images, condition), None
        if validation is not None:
            held_out = self.rungs(validation, validation_condition)
        shared = not isinstance(self, Conditional)
        return pyramid_log_likelihood(
            real,
            held_out,
            lambda image, rung: self._imagine_anew(image, rung, self.sample_average),
            shared,
            num_samples,
            num_residuals,
            choices,
            max_rows,
            progress,
        )

    # ---- the game, at each level

    def players(self) -> dict[str, Player]:
        players: dict[str, Player] = {}
        for level, (generator, discriminator) in enumerate(zip(self.generators, self.discriminators, strict=True)):
            players[f"level{level}/discriminator"] = Player(
                [discriminator],
                self.make_discriminator_optimizer,
                self.make_discriminator_lr_scheduler,
                self.discriminator_clip,
            )
            players[f"level{level}/generator"] = Player(
                [generator], self.make_generator_optimizer, self.make_generator_lr_scheduler, self.generator_clip
            )
        return players

    def _imagine_anew(self, images: Tensor, rung: Rung, averaged: bool) -> Tensor:
        noise = self.noise_of(self.sample_latents(len(images), rung.condition))[rung.level]
        return self.imagine(rung, noise, averaged)

    def fakes(self, images: Tensor, condition: Any = None) -> Tensor:
        """Generated images of the level of a :class:`Rung`, about [-1, 1], as many as there are images."""
        return self._imagine_anew(images, condition, averaged=self.sample_average and not self.training)

    def logits(self, images: Tensor, rung: Rung) -> Tensor:
        """What the discriminator of a level says of images ``(B, C, H, W)`` about [-1, 1]: ``(B,)``."""
        seen = self.network_input(rung.level, images, rung.condition)
        return full_precision(self.discriminators[rung.level](seen))[:, 0]

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

    def play(self, images: Tensor, condition: Any = None) -> dict[str, Tensor]:
        generator_turn = self.generator_turn()
        values: dict[str, Tensor] = {}
        for level, (image, rung) in enumerate(self.rungs(images, condition)):
            players = f"level{level}/discriminator", f"level{level}/generator"
            found = self.duel(image, rung, generator_turn, *players)
            values |= {f"level{level}/{name}": value for name, value in found.items()}
        return values | self._sums(values)

    def judge(self, images: Tensor, condition: Any = None) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        for level, (image, rung) in enumerate(self.rungs(images, condition)):
            values |= {f"level{level}/{name}": value for name, value in super().judge(image, rung).items()}
        return values | self._sums(values)

    def _sums(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Both losses summed over levels, where every level has them."""
        sums = {}
        for name in ("discriminator_loss", "generator_loss"):
            found = [values[key] for level in range(self.num_levels) if (key := f"level{level}/{name}") in values]
            if len(found) == self.num_levels:
                sums[name] = torch.stack(found).sum(0)
        return sums

    def after_step(self, player: str) -> None:
        level, role = player.removeprefix("level").split("/")
        if role == "discriminator" and self.regularizer is not None:
            self.regularizer.after_step(self.discriminators[int(level)])
        if role == "generator" and self.averages is not None:
            average = self.averages[int(level)]
            assert isinstance(average, MovingAverage)
            average.update(self.generators[int(level)])

    def compiled_parts(self) -> list[nn.Module]:
        """The networks of all levels; without discriminators where their gradient is part of the loss."""
        twice = self.regularizer is not None and self.regularizer.differentiates_twice
        parts = [*self.generators, *([] if twice else self.discriminators)]
        return [part for part in parts if isinstance(part, Network)]


def pyramid_sizes(image_shape: Shape, sides: Sequence[int] | None = None) -> list[Size]:
    """Height and width of each level, the finest first.

    >>> pyramid_sizes((1, 28, 20), [5, 10, 20])
    [(28, 20), (14, 10), (7, 5)]

    Args:
        image_shape: ``(C, H, W)``.
        sides: the shorter side of each level, the coarsest first; None for what fits the image.

    Raises:
        ValueError: it is no image, or sides do not grow to that of the image.
    """
    if len(image_shape) != 3:
        raise ValueError(f"a pyramid is one of images (channels, height, width), got {image_shape}")
    height, width = image_shape[1:]
    side = min(height, width)
    given = default_sizes(side) if sides is None else list(sides)
    if not given or given[-1] != side or given[0] < 1 or any(small >= large for small, large in pairwise(given)):
        raise ValueError(
            f"sizes must grow from the coarsest level to {side}, the shorter side of the image, as in"
            f" {default_sizes(side)}; got {given}"
        )
    return [(round(height * one / side), round(width * one / side)) for one in reversed(given)]
