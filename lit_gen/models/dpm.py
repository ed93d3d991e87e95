"""Diffusion probabilistic model.

Sohl-Dickstein, Weiss, Maheswaranathan & Ganguli 2015, Deep unsupervised learning using nonequilibrium thermodynamics
(https://arxiv.org/abs/1503.03585).

Departures from the paper: Adam instead of the sum of functions optimizer; images go through the dense network of its
MNIST model or a U-Net, not through its multi-scale convolutions; the network of the binomial kernel says what the data
were and not what the step before was, from which that follows; and the binomial chain learns its first step too.
"""

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.distributions import Distribution

from lit_gen.models.diffusion import DiffusionModel, uncorrected
from lit_gen.models.diffusion_kernels import GaussianKernel, KernelFactory
from lit_gen.models.diffusion_samplers import Correction
from lit_gen.models.optimizers import FusedAdam
from lit_gen.networks import BumpMLP, Shape, TimedNetworkFactory, build, full_precision
from lit_gen.objectives import LikelihoodTerms


class DPM2015(DiffusionModel):
    """Diffusion probabilistic model (Sohl-Dickstein et al. 2015), trained by its bound.

    ``elbo`` is the unbiased estimate with one step of each image; a test sums all steps, or
    estimates the sum by ``bound_steps`` of each image. :meth:`inpaint` draws the
    missing part of an image.

    Example:
        >>> from lit_gen.models import BinomialKernel
        >>> model = DPM2015((1, 8, 8), kernel=lambda shape: BinomialKernel(shape, steps=20))
        >>> model.sample(4).shape
        torch.Size([4, 1, 8, 8])
        >>> images = (torch.rand(2, 1, 8, 8) > 0.5).float()
        >>> upper_half = torch.arange(8)[:, None].expand(8, 8) < 4
        >>> torch.equal(model.inpaint(images, upper_half)[:, :, :4], images[:, :, :4])
        True

    Args:
        image_shape: ``(C, H, W)``; the command line takes it from the data.
        kernel: how a step destroys an image: binomial for binary pixels, Gaussian for continuous ones.
        network: from a noisy image and its time to what the kernel needs for the step back.
        bound_steps: steps of each image that stand for all in the bound of a test, an unbiased estimate; None: all,
            a pass through the network for each.
        optimizer: takes the parameters, the rates of the kernel among them if it learns any.
        lr_scheduler: takes the optimizer; stepped after each epoch.
    """

    def __init__(
        self,
        image_shape: Shape,
        kernel: KernelFactory = GaussianKernel,
        network: TimedNetworkFactory = BumpMLP,
        bound_steps: int | None = None,
        optimizer: OptimizerCallable = FusedAdam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(image_shape, optimizer, lr_scheduler)
        self.kernel = build(kernel, self.image_shape)
        self.bound_steps = self._check_bound_steps(bound_steps)
        output_shape = (self.kernel.parameters_per_pixel * self.image_shape[0], *self.image_shape[1:])
        self.network = build(network, self.image_shape, output_shape, 0)

    @property
    def is_density(self) -> bool:  # type: ignore[override]
        return self.kernel.is_density

    @property
    def needs_binary(self) -> bool:  # type: ignore[override]
        return self.kernel.needs_binary

    @property
    def steps(self) -> int:
        return self.kernel.steps

    def to_state(self, images: Tensor) -> Tensor:
        return self.kernel.to_state(images)

    def to_images(self, state: Tensor) -> Tensor:
        return self.kernel.to_images(state).clamp(0, 1)

    @property
    def noise(self) -> Distribution:
        return self.kernel.noise()

    def marginal(self, data: Tensor, t: Tensor) -> Distribution:
        return self.kernel.marginal(data, t)

    def posterior(self, data: Tensor, x: Tensor, t: Tensor) -> Distribution:
        return self.kernel.posterior(data, x, t)

    def _output(self, x: Tensor, t: Tensor) -> Tensor:
        return full_precision(self.network(x, t / self.steps))

    def reverse(self, x: Tensor, t: Tensor, condition: Any = None) -> Distribution:
        return self.kernel.reverse(x, t, self._output(x, t))

    def first_step(self, x: Tensor) -> Distribution:
        """p(x_0 given x_1)."""
        output = self._output(x, self._at(x, 1)) if self.kernel.learns_first_step else None
        return self.kernel.first_step(x, output)

    def data_log_prob(self, data: Tensor, x: Tensor, condition: Any = None) -> Tensor:
        return self.first_step(x).log_prob(data) - self.kernel.log_scale

    def objective(self, images: Tensor, condition: Any = None) -> LikelihoodTerms:
        return self.estimated_bound(images)

    def states(self, num_samples: int, condition: Any = None, correct: Correction = uncorrected) -> Iterator[Tensor]:
        x = correct(self.noise.sample(torch.Size([num_samples])), self.steps)
        yield x
        for step in range(self.steps, 1, -1):
            x = correct(self.reverse(x, self._at(x, step)).sample(), step - 1)
            yield x
        yield correct(self.first_step(x).mean, 0)
