"""The statistic of active units against its definition."""

import torch

from lit_gen.inference import ACTIVE_VARIANCE, activity, posterior_moments


def statistic(draws: torch.Tensor) -> torch.Tensor:
    mean, error = posterior_moments(draws)
    return activity(mean.var(0, correction=0), error.mean(0))


def test_known_means_give_their_variance_over_images() -> None:
    means = torch.randn(50, 3, 2).double()
    torch.testing.assert_close(statistic(means[None]), means.flatten(1).var(0, correction=0))


def test_noise_of_the_draws_makes_no_unit_active() -> None:
    torch.manual_seed(0)
    means = torch.stack([torch.zeros(20_000), 0.2 * torch.randn(20_000)], 1).double()
    draws = means + torch.randn(10, 20_000, 2).double()
    found = statistic(draws)
    # The mean of ten draws has a variance of 0.1, which would count every unit.
    assert draws.mean(0).var(0).min() > 5 * ACTIVE_VARIANCE
    torch.testing.assert_close(found, torch.tensor([0.0, 0.04]).double(), rtol=0, atol=0.006)
    assert (found > ACTIVE_VARIANCE).tolist() == [False, True]
