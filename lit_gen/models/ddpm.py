r"""Denoising diffusion probabilistic model.

Ho, Jain & Abbeel 2020, Denoising diffusion probabilistic models (https://arxiv.org/abs/2006.11239).

Departures from the paper: the steps of a batch are spread evenly over the chain instead of drawn independently, which
leaves the loss the same on average; samplers and schedules of later papers can be chosen. The averaged weights that the
paper samples from are the callback ``EMAWeightAveraging``, which the ready configs have.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from lit_gen.models.diffusion import DiffusionModel, uncorrected
from lit_gen.models.diffusion_samplers import AncestralSampler, Correction, SamplerFactory, check_variance
from lit_gen.models.noise_schedules import LinearSchedule, ScheduleFactory
from lit_gen.models.optimizers import FusedAdam
from lit_gen.networks import Shape, TimedNetworkFactory, UNet, build, full_precision
from lit_gen.objectives import (
    GaussianChain,
    LikelihoodTerms,
    discretized_gaussian_log_prob,
    gaussian_chain,
    kept_signal,
    reverse_variances,
    stratified_steps,
)


class DDPM(DiffusionModel):
    """Denoising diffusion (Ho et al. 2020): a network that tells the noise from the image, trained by L_simple.

    ``loss`` is the squared error of epsilon, a mean over pixels and no likelihood. The bound is logged by evaluation
    alone: ``val/elbo`` and ``val/bits_per_dim`` are unbiased estimates with one step of each image, those of a test are
    summed over all steps, a pass through the network for each. ``kl`` is the paper's rate, ``reconstruction`` its
    distortion with another sign.

    A variant overrides :meth:`epsilon` or :meth:`objective`.

    Example:
        >>> from lit_gen.models import CosineSchedule, DDIMSampler
        >>> from lit_gen.networks import UNet
        >>> small = lambda i, o, c: UNet(i, o, c, channels=16, multipliers=[1, 2], blocks=1)
        >>> model = DDPM((1, 8, 8), small, lambda: CosineSchedule(100), sampler=lambda: DDIMSampler(10))
        >>> model.sample(4).shape
        torch.Size([4, 1, 8, 8])

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        network: from a noisy image and its time to its noise.
        schedule: noise rates of the steps.
        variance: of the reverse process in the bound: ``large`` is beta, ``small`` is beta-tilde.
        levels: grey levels of the data, for the bound: 256 for 8 bits, 2 for binary pixels.
        sampler: the way from noise to samples, whatever the training.
        bound_steps: steps of each image that stand for all in the bound of a test, an unbiased estimate; None: all,
            a pass through the network for each.
        optimizer: takes the parameters.
        lr_scheduler: takes the optimizer; stepped after each epoch.
    """

    constants: Tensor
    variances: Tensor

    def __init__(
        self,
        image_shape: Shape,
        network: TimedNetworkFactory = UNet,
        schedule: ScheduleFactory = LinearSchedule,
        variance: Literal["large", "small"] = "large",
        levels: int = 256,
        sampler: SamplerFactory = AncestralSampler,
        bound_steps: int | None = None,
        optimizer: OptimizerCallable = lambda p: FusedAdam(p, lr=2e-4),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(image_shape, optimizer, lr_scheduler)
        if levels < 2:
            raise ValueError(f"levels must be at least 2, got {levels}")
        self.levels = levels
        self.network = build(network, self.image_shape, self.image_shape, self.network_classes)
        self.schedule = build(schedule)
        self.sampler = build(sampler)
        self.bound_steps = self._check_bound_steps(bound_steps)
        self.sampler.visited(self.steps)  # refuses an impossible number of steps now
        rates = self.schedule.rates()
        chain = gaussian_chain(rates)
        self.kept = kept_signal(rates).tolist()
        """alpha-bar of the steps 0 to T."""
        dtype = torch.get_default_dtype()  # rounded last: the constants come out of float64
        self.register_buffer("constants", torch.stack(chain).to(dtype), persistent=False)
        self.register_buffer(
            "variances", reverse_variances(chain, check_variance(variance) == "large").to(dtype), persistent=False
        )

    network_classes = 0
    """Classes that the network is told."""

    @property
    def steps(self) -> int:
        return self.schedule.steps

    def to_state(self, images: Tensor) -> Tensor:
        return 2 * images - 1

    def to_images(self, state: Tensor) -> Tensor:
        return ((state + 1) / 2).clamp(0, 1)

    # ---- the distributions

    def chain(self, t: Tensor) -> GaussianChain:
        """The constants at steps ``(B,)``, each to be broadcast over images."""
        return GaussianChain(*self.constants[:, t].view(len(self.constants), -1, 1, 1, 1))

    def _normal(self, mean: Tensor, std: Tensor) -> Distribution:
        return Independent(Normal(mean, std.expand_as(mean), validate_args=False), 3, validate_args=False)

    @property
    def noise(self) -> Distribution:
        zeros = self.constants.new_zeros(self.image_shape)
        return self._normal(zeros, torch.ones_like(zeros))

    def marginal(self, data: Tensor, t: Tensor) -> Distribution:
        chain = self.chain(t)
        return self._normal(chain.signal * data, chain.noise)

    def posterior(self, data: Tensor, x: Tensor, t: Tensor) -> Distribution:
        chain = self.chain(t)
        return self._normal(chain.from_data * data + chain.from_noisy * x, chain.posterior_variance.sqrt())

    def epsilon(self, x: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """The network's guess of the noise in x_t, ``(B, *image_shape)`` float32."""
        return full_precision(self.network(x, t / self.steps))

    def guided_epsilon(self, x: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """The guess that samples are drawn by."""
        return self.epsilon(x, t, condition)

    def denoised(self, x: Tensor, t: Tensor, epsilon: Tensor) -> Tensor:
        """The guess of x_0 that goes with a guess of the noise, clipped to the range of images."""
        chain = self.chain(t)
        return ((x - chain.noise * epsilon) / chain.signal).clamp(-1, 1)

    def reverse(self, x: Tensor, t: Tensor, condition: Any = None) -> Distribution:
        # Equation 11, by way of x_0, so that it can be clipped.
        mean = self.posterior_mean(self.denoised(x, t, self.epsilon(x, t, condition)), x, t)
        return self._normal(mean, self.variances[t].sqrt().view(-1, 1, 1, 1))

    def posterior_mean(self, data: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Mean of q(x_t-1 given x_t and x_0) (equation 7); at the first step, x_0."""
        chain = self.chain(t)
        return chain.from_data * data + chain.from_noisy * x

    def data_log_prob(self, data: Tensor, x: Tensor, condition: Any = None) -> Tensor:
        t = self._at(x, 1)
        mean = self.denoised(x, t, self.epsilon(x, t, condition))
        pixels = discretized_gaussian_log_prob(data, mean, self.variances[1].sqrt(), self.levels)
        return pixels.flatten(1).sum(1)

    # ---- training and evaluation

    def objective(self, images: Tensor, condition: Any = None) -> LikelihoodTerms:
        data = self.to_state(images)
        t = stratified_steps(len(data), 1, self.steps, data.device)
        chain, noise = self.chain(t), torch.randn_like(data)
        guess = self.epsilon(chain.signal * data + chain.noise * noise, t, condition)
        # Equation 14, as a mean over pixels.
        return LikelihoodTerms((noise - guess).square().flatten(1).mean(1))

    def measure(self, stage: str, images: Tensor, condition: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        loss, values = super().measure(stage, images, condition)
        if stage != "train":  # beside the bound, the loss that is minimized
            loss = self.objective(images, condition).loss
        return loss, values | {"loss": loss}

    # ---- sampling

    def states(self, num_samples: int, condition: Any = None, correct: Correction = uncorrected) -> Iterator[Tensor]:
        def denoise(x: Tensor, step: int) -> Tensor:
            t = self._at(x, step)
            return self.denoised(x, t, self.guided_epsilon(x, t, condition))

        return self.sampler.walk(denoise, self.noise.sample(torch.Size([num_samples])), self.kept, correct)
