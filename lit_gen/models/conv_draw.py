"""Convolutional DRAW.

Gregor, Besse, Rezende, Danihelka & Wierstra 2016, Towards conceptual compression (https://arxiv.org/abs/1604.08772).

Departures from the paper: one stochastic layer; readers and writers are plain strided convolutions; the decoder is
shown features of the canvas, not the canvas itself.
"""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lit_gen.models.draw import DRAW
from lit_gen.models.drawing import Moments
from lit_gen.models.optimizers import FusedAdam
from lit_gen.networks import (
    BernoulliLikelihood,
    CellFactory,
    ConvLSTMCell,
    ConvReader,
    ConvWriter,
    LikelihoodFactory,
    Shape,
    WriterFactory,
    build,
    full_precision,
    halving_convolutions,
)


class ConvDRAW(DRAW):
    """Convolutional DRAW (Gregor et al. 2016): maps of latents, a learned prior, and a decoder that sees its canvas.

    A :class:`DRAW` of convolutional parts; the prior of z_t is a Gaussian that depends on the decoder before the step.

    Example:
        >>> model = ConvDRAW((3, 20, 28), steps=2, latent_dim=2, hidden_dim=8)
        >>> model.latent_shape
        (2, 2, 5, 7)

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        steps: T.
        latent_dim: latent units of each step at each place.
        hidden_dim: units of the encoder at each place, and as many of the decoder.
        reader: maps of features, whose size the states and the latents have.
        writer: what the decoder adds to the canvas.
        cell: encoder and decoder.
        likelihood: p(x given z) from the last canvas. The first of its planes must go through a sigmoid to the mean.
        optimizer: takes the parameters.
        lr_scheduler: takes the optimizer; stepped after each epoch.
    """

    def __init__(
        self,
        image_shape: Shape,
        steps: int = 16,
        latent_dim: int = 4,
        hidden_dim: int = 64,
        reader: Callable[[Shape, int], ConvReader] = ConvReader,
        writer: WriterFactory = ConvWriter,
        cell: CellFactory = ConvLSTMCell,
        likelihood: LikelihoodFactory = BernoulliLikelihood,
        optimizer: OptimizerCallable = FusedAdam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(
            image_shape, steps, latent_dim, hidden_dim, reader, writer, cell, likelihood, optimizer, lr_scheduler
        )
        assert isinstance(self.reader, ConvReader)
        channels, (features, *places) = self.reader.channels, self.reader.output_shape
        self.prior_head = self.decoder.head(2 * latent_dim)
        self.canvas_features = halving_convolutions(self.likelihood.parameter_shape[0], channels)
        self.decoder = build(cell, (latent_dim + features, *places), self.state_shape)

    def step_prior(self, step: int, hidden: Tensor, context: Any) -> Moments:
        return Moments(*full_precision(self.prior_head(hidden)).chunk(2, 1))

    def decoder_input(
        self, latent: Tensor, hidden: Tensor, canvas: Tensor, context: Any
    ) -> tuple[Tensor, Tensor | None]:
        return torch.cat([latent, self.canvas_features(canvas)], 1), None
