"""Likelihoods: what turns the output of a decoder into a distribution over images."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from lit_gen.distributions import DiscretizedLogistic, LogitBernoulli
from lit_gen.networks.comparator import TrainingImages
from lit_gen.networks.network import Recorded, Shape, full_precision


class Likelihood(Recorded, nn.Module):
    """Maps decoder outputs ``(B, *parameter_shape)`` to a distribution with events ``(C, H, W)`` in [0, 1].

    Args:
        image_shape: ``(C, H, W)``.
    """

    sizes = 1
    is_density = False
    """Whether ``log_prob`` is a density of continuous pixels in [0, 1], not a probability of discrete ones."""
    needs_binary = False
    """Whether pixels must be 0 or 1 for ``log_prob`` to be a log-probability."""
    adds_loss = False
    """Whether training minimises :meth:`added_loss` beside -log p(x given z)."""
    parameters_per_pixel = 1

    def __init__(self, image_shape: Shape) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)

    def added_loss(self, decoded: Distribution, images: Tensor) -> Tensor:
        """What training minimises beside -log p(x given z) and is no part of it, ``(B,)``: nothing, as a rule.

        Args:
            decoded: what :meth:`forward` gave.
            images: ``(B, C, H, W)`` in [0, 1].
        """
        return images.new_zeros(len(images))

    def start(self, training_images: TrainingImages) -> None:
        """Called when a training starts; a likelihood that looks at training images does so once in its life."""

    @property
    def parameter_shape(self) -> Shape:
        """Shape that the decoder must give: channels are repeated for each parameter of a pixel."""
        return (self.parameters_per_pixel * self.image_shape[0], *self.image_shape[1:])

    def forward(self, parameters: Tensor) -> Distribution:
        """The distribution, in float32 whatever the precision of the decoder."""
        return self.distribution(full_precision(parameters))

    def distribution(self, parameters: Tensor) -> Distribution:
        """What a likelihood defines: the distribution that decoder outputs ``(B, *parameter_shape)`` stand for."""
        raise NotImplementedError(f"{type(self).__name__} must define distribution")

    def _independent(self, pixels: Distribution) -> Distribution:
        return Independent(pixels, len(self.image_shape), validate_args=False)


class BernoulliLikelihood(Likelihood):
    """Binary pixels, from logits (Kingma & Welling 2013, appendix C.1)."""

    needs_binary = True

    def distribution(self, parameters: Tensor) -> Distribution:
        return self._independent(LogitBernoulli(logits=parameters, validate_args=False))


class GaussianLikelihood(Likelihood):
    """Continuous pixels, the mean through a sigmoid so that it lies in (0, 1) (Kingma & Welling 2013, appendix C.2).

    A learned standard deviation on 8-bit data has no largest density: use ``data.dequantize`` and keep the floor.

    Args:
        image_shape: ``(C, H, W)``.
        std: a fixed standard deviation in pixel units (images in [0, 1]); None learns one for each pixel.
        min_std: floor of a learned standard deviation.
    """

    is_density = True

    def __init__(self, image_shape: Shape, std: float | None = None, min_std: float = 0.01) -> None:
        super().__init__(image_shape)
        if (std is not None and std <= 0) or min_std <= 0:
            raise ValueError(f"standard deviations must be positive, got std={std}, min_std={min_std}")
        self.std = std
        self.min_std = min_std
        self.parameters_per_pixel = 2 if std is None else 1

    def distribution(self, parameters: Tensor) -> Distribution:
        if self.std is not None:
            mean = torch.sigmoid(parameters)
            return self._independent(Normal(mean, torch.full_like(mean, self.std), validate_args=False))
        mean, log_std = parameters.chunk(2, dim=1)
        std = self.min_std + torch.exp(log_std.clamp(max=math.log(10.0)))
        return self._independent(Normal(torch.sigmoid(mean), std, validate_args=False))


class DiscretizedLogisticLikelihood(Likelihood):
    """8-bit pixels: a logistic density integrated over each grey level (Kingma et al. 2016, appendix C).

    Args:
        image_shape: ``(C, H, W)``.
        levels: number of grey levels.
        min_scale: floor of the scale, in pixel units (images in [0, 1]).
    """

    parameters_per_pixel = 2

    def __init__(self, image_shape: Shape, levels: int = 256, min_scale: float = 1e-3) -> None:
        super().__init__(image_shape)
        self.levels = levels
        self.min_scale = min_scale

    def distribution(self, parameters: Tensor) -> Distribution:
        mean, log_scale = parameters.chunk(2, dim=1)
        # An untrained network gives 0: a scale of 0.1 covers the range of grey levels without flat gradients.
        scale = self.min_scale + 0.1 * torch.exp(log_scale.clamp(max=math.log(100.0)))
        pixels = DiscretizedLogistic(torch.sigmoid(mean), scale, levels=self.levels, validate_args=False)
        return self._independent(pixels)


LikelihoodFactory = Callable[[Shape], Likelihood]
