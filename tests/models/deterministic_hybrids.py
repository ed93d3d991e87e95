"""Hybrids whose noise follows from the batch, so that runs differ by nothing but their arithmetic."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from lit_gen.models import AAE, VAEGAN
from tests.models.written import WritesWeights

ONE = torch.Size()


class Still(Normal):
    """A Gaussian that draws nothing but its mean."""

    has_rsample = True

    def rsample(self, sample_shape: Any = ONE) -> Tensor:
        return self.loc.expand(self._extended_shape(sample_shape))


def pixels(images: Tensor, count: int) -> Tensor:
    return images.flatten(1)[:, 20 : 20 + count]


class WrittenVAEGAN(WritesWeights, VAEGAN):
    """Takes pixels of the batch for what it draws from the prior, and the means of the posterior."""

    def encode(self, images: Tensor, condition: Any = None) -> Distribution:
        posterior = super().encode(images, condition)
        return Independent(Still(posterior.mean, posterior.stddev), 1)

    def fakes(self, images: Tensor, condition: Any = None) -> Tensor:
        self.drawn = pixels(images, self.latent_dim)
        return super().fakes(images, condition)

    def sample_latents(self, num_samples: int, condition: Any = None) -> Tensor:
        return self.drawn


class WrittenAAE(WritesWeights, AAE):
    """Takes pixels of the batch for what it draws from the prior."""

    def play(self, images: Tensor, condition: Any = None) -> dict[str, Tensor]:
        self.drawn = pixels(images, self.latent_dim)
        return super().play(images, condition)

    def judge(self, images: Tensor, condition: Any = None) -> dict[str, Tensor]:
        self.drawn = pixels(images, self.latent_dim)
        return super().judge(images, condition)

    def sample_latents(self, num_samples: int, condition: Any = None) -> Tensor:
        return self.drawn
