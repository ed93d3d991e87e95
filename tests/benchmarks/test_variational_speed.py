"""That the bound which is timed beside pythae's is the same bound (``pip install lit-gen[benchmarks]``)."""

import pytest
import torch

pytest.importorskip("pythae")

from benchmarks.variational_speed import LATENT, SHAPE, Bound


def compared(bound: Bound) -> dict[str, float]:
    bound.lit_gen(300)
    bound.pythae(300)
    return bound.agreement(300)


@pytest.fixture
def bound() -> Bound:
    torch.manual_seed(0)
    return Bound((torch.rand(20, *SHAPE) > 0.5).float())


def test_both_bounds_are_the_same(bound: Bound) -> None:
    found = compared(bound)
    assert found["standard_error_of_difference"] < 0.1
    assert abs(found["lit_gen"] - found["pythae"]) < 0.4
    assert found["kl"] > 0.5, "a bound without log q would be off"


@pytest.mark.parametrize("wrong", ["variance", "mean", "pixels"])
def test_another_bound_is_told(bound: Bound, wrong: str) -> None:
    """What pythae's encoder or decoder gives is misread."""
    with torch.no_grad():
        if wrong == "pixels":
            bound.theirs.decoder.network[0].layers[-1].bias += 0.2
        else:
            bias = bound.theirs.encoder.network.layers[-1].bias
            bias[LATENT["iwae"] :] += 1.0 if wrong == "variance" else 0.0
            bias[: LATENT["iwae"]] += 1.0 if wrong == "mean" else 0.0
    with pytest.raises(RuntimeError, match="the bounds differ"):
        compared(bound)
