"""The k-sample bound and the weights of its gradient, against their definitions."""

import pytest
import torch

from lit_gen.objectives import importance_weighted_bound, normalized_weights

LOG_WEIGHTS = torch.tensor([[0.0, 5.0], [1.0, -3.0], [2.0, 0.5], [-1.0, 0.0]]).double()


def test_bound_is_the_logarithm_of_the_mean() -> None:
    torch.testing.assert_close(importance_weighted_bound(LOG_WEIGHTS), LOG_WEIGHTS.exp().mean(0).log())
    halves = 0.5 * (LOG_WEIGHTS[:2].exp().mean(0).log() + LOG_WEIGHTS[2:].exp().mean(0).log())
    torch.testing.assert_close(importance_weighted_bound(LOG_WEIGHTS, groups=2), halves)
    torch.testing.assert_close(importance_weighted_bound(LOG_WEIGHTS, groups=4), LOG_WEIGHTS.mean(0))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_weights_are_the_derivative_of_the_bound(groups: int) -> None:
    leaf = LOG_WEIGHTS.clone().requires_grad_()
    gradient = torch.autograd.grad(importance_weighted_bound(leaf, groups).sum(), leaf)[0]
    torch.testing.assert_close(normalized_weights(LOG_WEIGHTS, groups), gradient)
    torch.testing.assert_close(gradient.sum(0), torch.ones(2).double())


def test_thousands_of_nats_do_not_overflow() -> None:
    far = torch.tensor([[-5000.0], [-9000.0]])
    assert importance_weighted_bound(far).item() == pytest.approx(-5000.6931)
    assert normalized_weights(far).flatten().tolist() == [1.0, 0.0]


def test_unequal_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="4 samples cannot be shared evenly by 3 groups"):
        importance_weighted_bound(LOG_WEIGHTS, groups=3)
