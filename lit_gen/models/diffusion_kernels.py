"""Kernels of :class:`~lit_gen.models.DPM2015`: how a step destroys an image, and what a network says of the way back.

Sohl-Dickstein et al. 2015, Deep unsupervised learning using nonequilibrium thermodynamics, table 1 and appendix D
(https://arxiv.org/abs/1503.03585).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal
from torch.nn.functional import logsigmoid

from lit_gen.networks import Recorded, Shape
from lit_gen.objectives import GaussianChain, binomial_posterior, erasing_rates, gaussian_chain, kept_signal

LARGEST_RATE = 0.999
"""Of a Gaussian step: at 1 the precision of the step back is no number."""


class DiffusionKernel(Recorded, nn.Module, ABC):
    """The distributions of the chain, over events of the shape of an image.

    Args:
        image_shape: ``(C, H, W)``.
        steps: T, at least 2.
    """

    sizes = 1
    is_density = False
    """Whether pixels are continuous, and the bound is one on their density."""
    needs_binary = False
    """Whether pixels must be 0 or 1."""
    parameters_per_pixel = 1
    """What the network says of each pixel."""
    learns_first_step = True
    """Whether the last step back, to the data, asks the network."""

    def __init__(self, image_shape: Shape, steps: int) -> None:
        super().__init__()
        if steps < 2:
            raise ValueError(f"a diffusion needs at least 2 steps, got {steps}")
        self.image_shape = tuple(image_shape)
        self.steps = steps

    @property
    def log_scale(self) -> float:
        """Sum over pixels of log(pixels per unit of the state), by which densities of the two differ."""
        return 0.0

    def to_state(self, images: Tensor) -> Tensor:
        """Images in [0, 1] as the chain has them."""
        return images

    def to_images(self, state: Tensor) -> Tensor:
        """A state of the chain in units of images, not clipped."""
        return state

    @abstractmethod
    def noise(self) -> Distribution:
        """p(x_T), batch shape ``()``."""

    @abstractmethod
    def marginal(self, data: Tensor, t: Tensor) -> Distribution:
        """q(x_t given x_0)."""

    @abstractmethod
    def posterior(self, data: Tensor, x: Tensor, t: Tensor) -> Distribution:
        """q(x_t-1 given x_t and x_0), from t = 2."""

    @abstractmethod
    def reverse(self, x: Tensor, t: Tensor, output: Tensor) -> Distribution:
        """p(x_t-1 given x_t), from t = 2.

        Args:
            x: ``(B, *image_shape)``.
            t: ``(B,)``.
            output: ``(B, parameters_per_pixel * C, H, W)`` of the network, float32.
        """

    @abstractmethod
    def first_step(self, x: Tensor, output: Tensor | None) -> Distribution:
        """p(x_0 given x_1); the output is None unless :attr:`learns_first_step`."""

    def _events(self, pixels: Distribution) -> Distribution:
        return Independent(pixels, len(self.image_shape), validate_args=False)

    def _over_pixels(self, values: Tensor) -> Tensor:
        return values.view(-1, *[1] * len(self.image_shape))


class BinomialKernel(DiffusionKernel):
    """Binary pixels: a step replaces each with probability beta by a fair coin; beta = 1 / (T - t + 1).

    The network gives logits of x_0, and p(x_t-1 given x_t) is q(x_t-1 given x_t and x_0) averaged over them: the form
    that the reverse process of independent pixels has.

    Args:
        image_shape: ``(C, H, W)``.
        steps: T, at least 2.
    """

    needs_binary = True
    rate: Tensor
    kept: Tensor

    def __init__(self, image_shape: Shape, steps: int = 1000) -> None:
        super().__init__(image_shape, steps)
        rates = erasing_rates(steps)
        dtype = torch.get_default_dtype()
        self.register_buffer("rate", torch.cat([rates.new_zeros(1), rates]).to(dtype), persistent=False)
        # What is left is (T - t) / T; the last product is zero but for rounding.
        self.register_buffer("kept", kept_signal(rates).to(dtype), persistent=False)

    def noise(self) -> Distribution:
        return self._events(Bernoulli(self.kept.new_full(self.image_shape, 0.5), validate_args=False))

    def marginal(self, data: Tensor, t: Tensor) -> Distribution:
        kept = self._over_pixels(self.kept[t])
        return self._events(Bernoulli(kept * data + (1 - kept) / 2, validate_args=False))

    def _posterior(self, data: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        one, zero = binomial_posterior(x, data, self._over_pixels(self.kept[t - 1]), self._over_pixels(self.rate[t]))
        return one.log(), zero.log()

    def posterior(self, data: Tensor, x: Tensor, t: Tensor) -> Distribution:
        one, zero = self._posterior(data, x, t)
        return self._events(Bernoulli(logits=one - zero, validate_args=False))

    def reverse(self, x: Tensor, t: Tensor, output: Tensor) -> Distribution:
        on, off = logsigmoid(output), logsigmoid(-output)
        one_if_on, zero_if_on = self._posterior(torch.ones_like(x), x, t)
        one_if_off, zero_if_off = self._posterior(torch.zeros_like(x), x, t)
        one = torch.logaddexp(on + one_if_on, off + one_if_off)
        zero = torch.logaddexp(on + zero_if_on, off + zero_if_off)
        return self._events(Bernoulli(logits=one - zero, validate_args=False))

    def first_step(self, x: Tensor, output: Tensor | None) -> Distribution:
        assert output is not None
        return self._events(Bernoulli(logits=output, validate_args=False))


class GaussianKernel(DiffusionKernel):
    """Continuous pixels: a step shrinks them by the root of 1 - beta and adds noise of variance beta.

    The network gives z of the mean and of the variance of the step back: Sigma = sigmoid(z_Sigma + logit beta) and
    mu = (x_t - z_mu)(1 - Sigma) + z_mu (appendix D.2.1). The first step, back to the data, is that of the noise turned
    round, without the network. The bound is one on a density: use ``data.dequantize``.

    Args:
        image_shape: ``(C, H, W)``.
        steps: T, at least 2.
        learn_rates: learn every beta but the first together with the network; else they are 1 / (T - t + 1).
        first_rate: beta of the first step.
        mean: of the pixels, which the chain sees with mean 0 ...
        std: ... and standard deviation 1.
    """

    is_density = True
    parameters_per_pixel = 2
    learns_first_step = False
    initial: Tensor

    def __init__(
        self,
        image_shape: Shape,
        steps: int = 1000,
        learn_rates: bool = True,
        first_rate: float = 1e-3,
        mean: float = 0.5,
        std: float = 0.5,
    ) -> None:
        super().__init__(image_shape, steps)
        if not 0 < first_rate < 1 or std <= 0:
            raise ValueError(f"first_rate must lie in 0..1 and std be positive, got {first_rate} and {std}")
        self.mean = mean
        self.std = std
        rates = erasing_rates(steps).clamp(max=LARGEST_RATE)
        rates[0] = first_rate
        self.register_buffer("initial", torch.logit(rates).to(torch.get_default_dtype()), persistent=False)
        self.shift = nn.Parameter(torch.zeros(steps - 1), requires_grad=learn_rates)

    @property
    def log_scale(self) -> float:
        return math.prod(self.image_shape) * math.log(self.std)

    def to_state(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std

    def to_images(self, state: Tensor) -> Tensor:
        return state * self.std + self.mean

    def rates(self) -> Tensor:
        """beta of each step, ``(T,)``."""
        return torch.sigmoid(self.initial + torch.cat([self.shift.new_zeros(1), self.shift]))

    def chain(self, t: Tensor) -> GaussianChain:
        """The constants at steps ``(B,)``, each to be broadcast over images."""
        return GaussianChain(*(self._over_pixels(values[t]) for values in gaussian_chain(self.rates())))

    def _normal(self, mean: Tensor, variance: Tensor) -> Distribution:
        return self._events(Normal(mean, variance.sqrt().expand_as(mean), validate_args=False))

    def noise(self) -> Distribution:
        zeros = self.initial.new_zeros(self.image_shape)
        return self._normal(zeros, torch.ones_like(zeros))

    def marginal(self, data: Tensor, t: Tensor) -> Distribution:
        chain = self.chain(t)
        return self._normal(chain.signal * data, chain.noise.square())

    def posterior(self, data: Tensor, x: Tensor, t: Tensor) -> Distribution:
        chain = self.chain(t)
        return self._normal(chain.from_data * data + chain.from_noisy * x, chain.posterior_variance)

    def reverse(self, x: Tensor, t: Tensor, output: Tensor) -> Distribution:
        mean, variance = output.chunk(2, 1)
        variance = torch.sigmoid(variance + self._over_pixels(torch.logit(self.rates())[t - 1]))
        return self._normal((x - mean) * (1 - variance) + mean, variance)

    def first_step(self, x: Tensor, output: Tensor | None) -> Distribution:
        rate = self.rates()[0]
        return self._normal(torch.sqrt(1 - rate) * x, rate)


KernelFactory = Callable[[Shape], DiffusionKernel]
