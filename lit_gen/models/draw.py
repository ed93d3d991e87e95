"""Deep recurrent attentive writer.

Gregor, Danihelka, Graves, Rezende & Wierstra 2015, DRAW: a recurrent neural network for image generation
(https://arxiv.org/abs/1502.04623).

Departures from the paper: the constant of equation 11, which is T / 2 there, is T / 2 for each latent unit. The paper
tells neither learning rate nor clipping nor how weights start; the ready configs say what was chosen. Filters sum to
one over the pixels of the image wherever they lie (published code lets those fade that lie far outside).
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from lit_gen.inference import importance_bound
from lit_gen.models.base import (
    Conditional,
    Decodes,
    Frame,
    HasLowerBound,
    HasReconstructionTrajectory,
    HasTrajectory,
    InfersLatents,
    LikelihoodModel,
    Reconstructs,
    repeat_condition,
)
from lit_gen.models.drawing import Drawing, Moments, Progress, Step, collect
from lit_gen.models.optimizers import FusedAdam
from lit_gen.networks import (
    AttentiveReader,
    AttentiveWriter,
    BernoulliLikelihood,
    CellFactory,
    LikelihoodFactory,
    LSTMCell,
    ReaderFactory,
    RecurrentCell,
    Shape,
    WriterFactory,
    build,
    full_precision,
)
from lit_gen.objectives import LikelihoodTerms, variational_bound


class DRAW(
    LikelihoodModel,
    InfersLatents,
    Decodes,
    Reconstructs,
    HasLowerBound,
    HasTrajectory,
    HasReconstructionTrajectory,
):
    """Deep recurrent attentive writer (Gregor et al. 2015): a VAE that paints its image in T steps.

    Each step reads the image and what the canvas still lacks of it, draws latents, and adds to the canvas; decoder and
    encoder are recurrent. Reader, writer and cell are parts to choose: with attention (:class:`AttentiveReader`,
    :class:`AttentiveWriter`), without (:class:`FullReader`, :class:`FullWriter`), or convolutional.

    A latent, as :attr:`prior` draws and :meth:`decode` takes it, is the standard normal noise of all steps: z_t itself
    where p(z_t) is N(0, I), else what :meth:`step_prior` carries to z_t.

    A variant overrides :meth:`step_prior` (a prior of z_t learned from what was drawn so far), :meth:`decoder_input`
    (what the decoder takes besides z_t; then it builds ``self.decoder`` anew for the larger input), :meth:`context`
    (what is computed from the condition once, before the first step) or :meth:`error_image`. All that is drawn,
    inferred or shown goes through :meth:`unroll`.

    Example:
        >>> model = DRAW((1, 28, 28), steps=4, latent_dim=10, hidden_dim=32)
        >>> model.sample(2).shape
        torch.Size([2, 1, 28, 28])
        >>> [tuple(frame.boxes.shape) for frame in model.trajectory(2) if frame.boxes is not None]
        [(2, 1, 4), (2, 1, 4), (2, 1, 4), (2, 1, 4)]

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        steps: T, glimpses of an image.
        latent_dim: latent units of each step.
        hidden_dim: units of the encoder, and as many of the decoder.
        reader: what the encoder sees of the image at each step.
        writer: what the decoder adds to the canvas.
        cell: encoder and decoder.
        likelihood: p(x given z) from the last canvas. The first of its planes must go through a sigmoid to the mean.
        optimizer: takes the parameters.
        lr_scheduler: takes the optimizer; stepped after each epoch.
    """

    def __init__(
        self,
        image_shape: Shape,
        steps: int = 64,
        latent_dim: int = 100,
        hidden_dim: int = 256,
        reader: ReaderFactory = AttentiveReader,
        writer: WriterFactory = AttentiveWriter,
        cell: CellFactory = LSTMCell,
        likelihood: LikelihoodFactory = BernoulliLikelihood,
        optimizer: OptimizerCallable = FusedAdam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(image_shape, optimizer, lr_scheduler)
        if min(steps, latent_dim, hidden_dim) < 1:
            raise ValueError(
                f"steps, latent_dim and hidden_dim must be at least 1, got {steps}, {latent_dim} and {hidden_dim}"
            )
        self.steps = steps
        self.likelihood = build(likelihood, self.image_shape)
        self.reader = build(reader, self.image_shape, hidden_dim)
        features, *places = self.reader.output_shape
        self.state_shape: Shape = (hidden_dim, *places)
        self.step_shape: Shape = (latent_dim, *places)
        self.encoder = build(cell, (features + hidden_dim, *places), self.state_shape)
        self.posterior_head = self.encoder.head(2 * latent_dim)
        self.decoder = build(cell, self.step_shape, self.state_shape)
        self.writer = build(writer, self.state_shape, self.likelihood.parameter_shape)
        self.initial_canvas = nn.Parameter(torch.zeros(self.likelihood.parameter_shape))
        self.initial_encoder = nn.Parameter(torch.zeros(self.state_shape))
        self.initial_decoder = nn.Parameter(torch.zeros(self.state_shape))
        # A function of the model, not a method of it: copies of the model must not step with this one's weights.
        self.compiled_advance: Callable[..., tuple[Progress, Step]] | None = None

    @property
    def cell(self) -> RecurrentCell:
        """One of the two cells: what a checkpoint names."""
        return self.encoder

    @property
    def is_density(self) -> bool:  # type: ignore[override]
        return self.likelihood.is_density

    @property
    def needs_binary(self) -> bool:  # type: ignore[override]
        return self.likelihood.needs_binary

    # ---- what a variant overrides

    def context(self, condition: Any) -> Any:
        """What every step may ask of the condition, computed once; the condition itself unless overridden."""
        return condition

    def step_prior(self, step: int, hidden: Tensor, context: Any) -> Moments:
        """p(z_t given z_1 .. z_t-1) = N(0, I).

        Args:
            step: from 0.
            hidden: ``(B, *state_shape)`` of the decoder before this step.
            context: of :meth:`context`.
        """
        zeros = hidden.new_zeros(()).expand(len(hidden), *self.step_shape)
        return Moments(zeros, zeros)

    def decoder_input(
        self, latent: Tensor, hidden: Tensor, canvas: Tensor, context: Any
    ) -> tuple[Tensor, Tensor | None]:
        """What the decoder takes at this step, and attention weights ``(B, K)`` over parts of the condition, if any.

        Args:
            latent: ``(B, *step_shape)`` z_t.
            hidden: ``(B, *state_shape)`` of the decoder before this step.
            canvas: ``(B, *parameter_shape)`` c_t-1.
            context: of :meth:`context`.
        """
        return latent, None

    def error_image(self, images: Tensor, canvas: Tensor) -> Tensor:
        """What the canvas lacks of the images, ``(B, C, H, W)`` in [-1, 1]."""
        return images - torch.sigmoid(canvas[:, : self.image_shape[0]])

    # ---- the recurrence

    def unroll(self, noise: Tensor, images: Tensor | None = None, condition: Any = None) -> Iterator[Step]:
        """Draw step by step: the given images from the posterior, or new ones from the prior.

        Args:
            noise: ``(B, T, *step_shape)``, standard normal; zeros follow the means.
            images: ``(B, *image_shape)`` in [0, 1], or None to generate.
            condition: of these images.
        """
        context = self.context(condition)
        rows, compiled = len(noise), self.compiled_advance
        # Compiled for training alone: other batch sizes, and images from the prior, would be compiled again.
        advance = compiled if compiled is not None and self.training and images is not None else type(self).advance
        progress = Progress(
            self.initial_canvas.expand(rows, *self.likelihood.parameter_shape),
            self.encoder.start(self.initial_encoder, rows),
            self.decoder.start(self.initial_decoder, rows),
        )
        for number, step_noise in enumerate(noise.unbind(1)):
            prior = self.step_prior(number, progress.decoder.hidden, context)
            progress, step = advance(self, progress, step_noise, prior, images, context)
            yield step

    def advance(
        self, progress: Progress, noise: Tensor, prior: Moments, images: Tensor | None, context: Any
    ) -> tuple[Progress, Step]:
        """One step from where the last one came to; what torch.compile takes as a whole.

        Args:
            progress: canvas and states before this step.
            noise: ``(B, *step_shape)``, standard normal.
            prior: p(z_t given z_1 .. z_t-1).
            images: ``(B, *image_shape)`` in [0, 1], or None to generate.
            context: of :meth:`context`.
        """
        canvas, encoder, decoder = progress
        drawn_from = prior
        posterior = read = None
        if images is not None:
            error = self.error_image(images, canvas)  # equation 3
            glimpse = self.reader(images, error, decoder.hidden)  # equation 4
            encoder = self.encoder(torch.cat([glimpse.features, decoder.hidden], 1), encoder)  # equation 5
            # Equations 1 and 2, in one product.
            mean, log_std = full_precision(self.posterior_head(encoder.hidden)).chunk(2, 1)
            drawn_from = posterior = Moments(mean, log_std)
            read = glimpse.window
        latent = drawn_from.carry(noise)  # equation 6
        features, weights = self.decoder_input(latent, decoder.hidden, canvas, context)
        decoder = self.decoder(features, decoder)  # equation 7
        stroke = self.writer(decoder.hidden)
        canvas = canvas + stroke.increment  # equation 8
        step = Step(canvas, latent, prior, posterior, read, stroke.window, weights)
        return Progress(canvas, encoder, decoder), step

    def infer(self, images: Tensor, noise: Tensor, condition: Any = None) -> Drawing:
        """Draw given images from the posterior.

        Args:
            images: ``(B, *image_shape)`` in [0, 1].
            noise: ``(B, T, *step_shape)``, standard normal.
            condition: of these images.
        """
        return collect(self.unroll(noise, images, condition), len(self.step_shape))

    def noise(self, count: int) -> Tensor:
        """Standard normal noise of all steps, ``(count, T, *step_shape)``."""
        return torch.randn(count, *self.latent_shape, dtype=self.initial_canvas.dtype, device=self.device)

    def objective(self, images: Tensor, condition: Any = None) -> LikelihoodTerms:
        drawing = self.infer(images, self.noise(len(images)), condition)
        reconstruction = self.likelihood(drawing.canvas).log_prob(images)  # equation 9, its sign turned
        kl = drawing.kl.sum(0)  # equations 10 and 11
        return variational_bound(reconstruction, kl)  # equation 12, with one sample

    @torch.no_grad()
    def lower_bound(self, images: Tensor, num_samples: int = 1, condition: Any = None) -> Tensor:
        """k-sample importance-weighted bound on log p(x), ``(B,)`` nats, in chunks.

        What q says of z_t depends on the draws before it: every sample runs through all steps on its own.
        """

        def log_weights(samples: int) -> Tensor:
            rows = images.expand(samples, *images.shape).flatten(0, 1)
            drawing = self.infer(rows, self.noise(len(rows)), repeat_condition(condition, samples))
            reconstruction = self.likelihood(drawing.canvas).log_prob(rows)
            log_ratio = drawing.prior.log_prob(drawing.latents) - drawing.posterior.log_prob(drawing.latents)
            return (reconstruction + log_ratio.sum(0)).unflatten(0, (samples, len(images)))

        return importance_bound(log_weights, num_samples, len(images), self.max_rows)

    @torch.no_grad()
    def posterior_draws(self, images: Tensor, num_samples: int = 1, condition: Any = None) -> list[Tensor]:
        """Of each step the mean of q(z_t given x, z_1 .. z_t-1), given draws of the steps before it."""
        rows = images.expand(num_samples, *images.shape).flatten(0, 1)
        drawing = self.infer(rows, self.noise(len(rows)), repeat_condition(condition, num_samples))
        return list(drawing.posterior.mean.unflatten(1, (num_samples, -1)))

    # ---- images

    @property
    def latent_shape(self) -> Shape:
        return (self.steps, *self.step_shape)

    @property
    def prior(self) -> Distribution:
        """The noise of all steps, N(0, I)."""
        zeros = self.initial_canvas.new_zeros(self.latent_shape)
        normal = Normal(zeros, torch.ones_like(zeros), validate_args=False)
        return Independent(normal, len(self.latent_shape), validate_args=False)

    def decode(self, z: Tensor, condition: Any = None) -> Distribution:
        """p(x given z), from the last canvas."""
        canvas = z
        for step in self.unroll(z.to(self.initial_canvas.dtype), condition=condition):
            canvas = step.canvas
        return self.likelihood(canvas)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, condition: Any = None) -> Tensor:
        """The mean image when every z_t is the posterior mean, ``(B, C, H, W)`` in [0, 1]."""
        noise = torch.zeros_like(self.noise(len(images)))
        return self.likelihood(self.infer(images, noise, condition).canvas).mean.float()

    def trajectory(self, num_samples: int, condition: Any = None) -> Iterator[Frame]:
        """The canvas before the first step and after each, with the window that was written to."""
        if isinstance(self, Conditional) and condition is None:
            condition = self.sample_condition(num_samples)
        return self._frames(self.sample_latents(num_samples, condition), None, condition)

    def reconstruction_trajectory(self, images: Tensor, condition: Any = None) -> Iterator[Frame]:
        """The same for given images, every z_t the posterior mean, and the window that was read from besides."""
        return self._frames(torch.zeros_like(self.noise(len(images))), images, condition)

    @torch.no_grad()
    def _frames(self, noise: Tensor, images: Tensor | None, condition: Any) -> Iterator[Frame]:
        canvas = self.initial_canvas.expand(len(noise), *self.likelihood.parameter_shape)
        yield Frame(self.likelihood(canvas).mean.float())
        for step in self.unroll(noise, images, condition):
            boxes = line_widths = None
            if windows := [window for window in (step.write, step.read) if window is not None]:
                boxes = torch.stack([window.boxes for window in windows], 1)
                line_widths = torch.stack([window.std for window in windows], 1)
            yield Frame(self.likelihood(step.canvas).mean.float(), boxes, step.weights, line_widths)

    def compile_parts(self, **options: Any) -> None:
        """Compile one step of drawing as a whole, which takes the same time however many steps there are."""
        self.compiled_advance = torch.compile(type(self).advance, **options)
