"""Where the codes of a network lie: their mean and covariance, followed while it trains."""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

LARGEST_COVARIANCE = 1024
"""Units above which only variances are followed."""


def summed_over_processes(values: Tensor) -> Tensor:
    """The sum of the values of all processes that train together, or the values themselves where there is but one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
    return values


class RunningMoments(nn.Module):
    """Mean and covariance of codes, as a moving average over batches (the first ones alike).

    Args:
        dim: units of a code; above 1024 their correlations are left out.
        decay: of the average.
    """

    mean: Tensor
    covariance: Tensor
    batches: Tensor

    def __init__(self, dim: int, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.correlated = dim <= LARGEST_COVARIANCE
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("covariance", torch.eye(dim) if self.correlated else torch.ones(dim))
        self.register_buffer("batches", torch.tensor(0))

    @torch.no_grad()
    def update(self, codes: Tensor) -> None:
        """Take in the codes of a batch, ``(B, dim)``, with those of all other processes that train beside this one."""
        codes = codes.detach().float()
        self.batches += 1
        weight = max(1 - self.decay, 1 / int(self.batches))
        count = summed_over_processes(codes.new_full((), len(codes)))
        # About the mean of their own batch: of codes far from zero that hardly differ, squares would leave nothing.
        mean = summed_over_processes(codes.sum(0)) / count
        shift, centred = mean - self.mean, codes - mean
        with torch.autocast(codes.device.type, enabled=False):
            squares = centred.T @ centred if self.correlated else centred.square().sum(0)
        within = summed_over_processes(squares) / count
        between = torch.outer(shift, shift) if self.correlated else shift.square()
        self.covariance.lerp_(within, weight).add_(between, alpha=weight * (1 - weight))
        self.mean.lerp_(mean, weight)

    def distribution(self) -> Distribution:
        """The Gaussian of these moments, batch shape ``()``, event shape ``(dim,)``."""
        mean = self.mean
        if not self.correlated:
            deviation = self.covariance.clamp(min=1e-8).sqrt()
            return Independent(Normal(mean, deviation, validate_args=False), 1, validate_args=False)
        covariance = self.covariance.double()
        floor = 1e-4 * covariance.diagonal().mean().clamp(min=1e-6)
        root = torch.linalg.cholesky(covariance + floor * torch.eye(len(mean), device=mean.device))
        return MultivariateNormal(mean, scale_tril=root.float(), validate_args=False)
