"""A VAE with a linear Gaussian decoder, for which log p(x), the posterior and every bound are known in closed form.

The constants are those of the golden numbers: D=4, K=2, W = cos(1 + 2i + j), x = (1, -.5, .8, .2), variance .5.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from lit_gen.models import VAE
from lit_gen.networks import MLP

WEIGHTS = torch.tensor([[torch.cos(torch.tensor(1.0 + 2 * i + j).double()).item() for j in range(2)] for i in range(4)])
WEIGHTS = WEIGHTS.double()
OFFSET = torch.tensor([0.1, -0.2, 0.3, 0.0]).double()
VARIANCE = 0.5
X = torch.tensor([1.0, -0.5, 0.8, 0.2]).double().reshape(1, 1, 2, 2)
LOG_P = -4.457938384206
PRECISION = torch.eye(2).double() + WEIGHTS.T @ WEIGHTS / VARIANCE
POSTERIOR_MEAN = torch.linalg.solve(PRECISION, WEIGHTS.T @ (X.flatten() - OFFSET) / VARIANCE)


class LinearGaussianVAE(VAE):
    """Posterior: the best diagonal Gaussian, whose ELBO is -4.493772617."""

    def __init__(self) -> None:
        super().__init__((1, 2, 2), latent_dim=2, encoder=lambda i, o: MLP(i, o, hidden_dims=[1]))
        self.double()

    def encode(self, images: Tensor, condition: Any = None) -> Distribution:
        mean = POSTERIOR_MEAN.expand(len(images), 2)
        variance = (1 / PRECISION.diagonal()).expand(len(images), 2)
        return Independent(Normal(mean, variance.sqrt()), 1)

    def decode(self, z: Tensor, condition: Any = None) -> Distribution:
        mean = (z @ WEIGHTS.T + OFFSET).unflatten(-1, (1, 2, 2))
        return Independent(Normal(mean, VARIANCE**0.5), 3)
