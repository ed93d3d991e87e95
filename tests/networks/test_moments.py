"""Moments of codes that are followed batch by batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Independent, MultivariateNormal

from lit_gen.networks import RunningMoments


def test_first_batches_count_alike() -> None:
    moments, codes = RunningMoments(3), torch.randn(50, 10, 3) @ torch.randn(3, 3) + torch.randn(50, 1, 3)
    for batch in codes:
        moments.update(batch)
    # As many as decay forgets: 50 batches weigh the same.
    pooled = codes.reshape(-1, 3).double().numpy()
    np.testing.assert_allclose(moments.mean, pooled.mean(0), atol=1e-5)
    np.testing.assert_allclose(moments.covariance, np.cov(pooled.T, bias=True), rtol=1e-4, atol=1e-4)


def test_later_batches_count_by_the_decay() -> None:
    moments = RunningMoments(2, decay=0.5)
    batches = torch.randn(6, 7, 2)
    weights = np.array([0.5**5, 0.5**5, 0.5**4, 0.5**3, 0.5**2, 0.5])
    for batch in batches:
        moments.update(batch)
    values = batches.double().numpy()
    mean = np.einsum("b,bij->j", weights, values) / 7
    square = np.einsum("b,bij,bik->jk", weights, values, values) / 7
    np.testing.assert_allclose(moments.mean, mean, atol=1e-6)
    np.testing.assert_allclose(moments.covariance, square - np.outer(mean, mean), atol=1e-5)


@pytest.mark.parametrize("dim", [64, 2000])
def test_codes_that_hardly_differ_and_lie_far_from_zero(dim: int) -> None:
    moments = RunningMoments(dim)
    for _ in range(3):
        moments.update(1000 + 0.01 * torch.randn(8, dim))
    drawn = moments.distribution()
    assert isinstance(drawn, MultivariateNormal if dim == 64 else Independent)
    assert 0.005 < float(drawn.stddev.mean()) < 0.02


def follow(rank: int, folder: str) -> None:
    """One of two processes, which see 4 and 6 of ten codes in each of three batches."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.manual_seed(0)
    moments = RunningMoments(3)
    for codes in torch.randn(3, 10, 3):
        moments.update(codes[:4] if rank == 0 else codes[4:])
    torch.save(moments.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_follow_the_codes_of_both(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(follow, (str(tmp_path),), nprocs=2)
    torch.manual_seed(0)
    whole = RunningMoments(3)
    for codes in torch.randn(3, 10, 3):
        whole.update(codes)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(found[name], value)
