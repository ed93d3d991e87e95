"""alignDRAW: images drawn step by step from captions.

Mansimov, Parisotto, Ba & Salakhutdinov 2016, Generating images from captions with attention
(https://arxiv.org/abs/1511.02793).

Departures from the published code: the second LSTM really reads the words from the last to the first (there, the order
of the captions within the batch is turned round in place of that of the words); captions in a batch may be of unlike
length, those that are shorter being masked; the grid of filters is symmetric about the image, as in :class:`DRAW`.
Weights start as in :class:`DRAW` (there, from N(0, 0.01^2)), and the gradient is clipped by the trainer, as one vector
(there, each tensor on its own). The skip-thought vectors of the paper are not part of this model; the sharpening of its
images is :class:`SharpenedAlignDRAW`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lit_gen.captions import Caption
from lit_gen.models.base import CaptionConditional
from lit_gen.models.draw import DRAW
from lit_gen.models.drawing import Moments
from lit_gen.models.optimizers import FusedAdam
from lit_gen.networks import (
    AttentiveReader,
    AttentiveWriter,
    BernoulliLikelihood,
    BidirectionalLSTM,
    CellFactory,
    LikelihoodFactory,
    LSTMCell,
    ReaderFactory,
    SentenceEncoderFactory,
    SentenceReaderFactory,
    Shape,
    SoftAlignment,
    WriterFactory,
    build,
    full_precision,
)


class AlignDRAW(DRAW, CaptionConditional):
    """alignDRAW (Mansimov et al. 2016): a :class:`DRAW` that attends, at each step, to the words of a caption.

    The decoder takes z_t and a mean of the words, weighted anew at each step; the prior of z_t is a Gaussian that
    depends on what was drawn before, and so on the caption. The encoder knows the caption through the decoder alone.

    Without attention to words (noalignDRAW): ``sentence_reader=FixedSentence``. Without recurrence over words:
    ``sentence_encoder=WordVectors``.

    Example:
        >>> model = AlignDRAW((1, 20, 20), ["<pad>", "a", "dog", "."], steps=4, latent_dim=5, hidden_dim=16)
        >>> captions = model.make_captions(["a dog .", "dog ."])
        >>> model.sample(2, captions).shape
        torch.Size([2, 1, 20, 20])
        >>> [frame.weights.shape for frame in model.trajectory(2, captions) if frame.weights is not None][0]
        torch.Size([2, 3])

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        vocabulary: words in the order of their numbers; the command line takes them from the data.
        captions: to draw from when none is asked for; the command line takes them from the data.
        steps: T, glimpses of an image.
        latent_dim: latent units of each step.
        hidden_dim: units of the encoder, and as many of the decoder.
        canvas_start: value of the canvas before anything is learned or drawn; below 0 for images that are mostly black.
        reader: what the encoder sees of the image at each step.
        writer: what the decoder adds to the canvas.
        sentence_encoder: vectors for the words.
        sentence_reader: what the decoder takes from the words at each step.
        cell: encoder and decoder; its states must be vectors.
        likelihood: p(x given z) from the last canvas. The first of its planes must go through a sigmoid to the mean.
        optimizer: takes the parameters.
        lr_scheduler: takes the optimizer; stepped after each epoch.

    Raises:
        ValueError: no vocabulary, a size below 1, or a reader of maps.
    """

    bound_samples = 20

    def __init__(
        self,
        image_shape: Shape,
        vocabulary: list[str],
        captions: Sequence[str] = (),
        steps: int = 32,
        latent_dim: int = 150,
        hidden_dim: int = 300,
        canvas_start: float = 0.0,
        reader: ReaderFactory = AttentiveReader,
        writer: WriterFactory = AttentiveWriter,
        sentence_encoder: SentenceEncoderFactory = BidirectionalLSTM,
        sentence_reader: SentenceReaderFactory = SoftAlignment,
        cell: CellFactory = LSTMCell,
        likelihood: LikelihoodFactory = BernoulliLikelihood,
        optimizer: OptimizerCallable = FusedAdam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(
            image_shape, steps, latent_dim, hidden_dim, reader, writer, cell, likelihood, optimizer, lr_scheduler
        )
        if len(self.state_shape) > 1:
            raise ValueError(
                f"AlignDRAW attends to words by a vector, the states here are maps {self.state_shape}; take a reader"
                " that gives a vector (AttentiveReader, FullReader)"
            )
        self.keep_vocabulary(vocabulary, captions)
        self.sentence_encoder = build(sentence_encoder, len(self.vocabulary))
        word_dim = self.sentence_encoder.output_dim
        self.sentence_reader = build(sentence_reader, word_dim, hidden_dim)
        self.prior_head = self.decoder.head(2 * latent_dim)
        self.decoder = build(cell, (latent_dim + word_dim,), self.state_shape)
        # Of a likelihood with a scale beside the mean, the planes of the mean alone.
        nn.init.constant_(self.initial_canvas.data[: self.image_shape[0]], canvas_start)

    def context(self, condition: Any) -> Any:
        captions = self.target_condition(condition)
        captions = Caption(*(part.to(self.device) for part in captions))
        return self.sentence_reader.prepare(self.sentence_encoder(captions.tokens, captions.lengths))

    def step_prior(self, step: int, hidden: Tensor, context: Any) -> Moments:
        """N(0, I) at the first step; then mean and log standard deviation, both in (-1, 1), from the decoder.

        Like Bachman & Precup 2015 (https://arxiv.org/abs/1506.03504), whom the published code names.
        """
        if step == 0:
            return super().step_prior(step, hidden, context)
        return Moments(*torch.tanh(full_precision(self.prior_head(hidden))).chunk(2, 1))

    def decoder_input(
        self, latent: Tensor, hidden: Tensor, canvas: Tensor, context: Any
    ) -> tuple[Tensor, Tensor | None]:
        words, weights = self.sentence_reader(context, hidden)
        return torch.cat([latent, words], 1), weights
