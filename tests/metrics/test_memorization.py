"""Measures of copying, where it is known how much is copied."""

import pytest
import torch
from scipy.spatial.distance import cdist

from lit_gen.metrics import NearestNeighbors, memorization


def test_neighbours_of_a_stream_agree_with_scipy():
    queries, stream = torch.randn(30, 5), torch.randn(101, 5)
    neighbors = NearestNeighbors(queries, k=3)
    for part in stream.split(7):
        neighbors.update(part)
    expected = torch.from_numpy(cdist(queries.double(), stream.double())).sort(1)
    assert torch.equal(neighbors.numbers, expected.indices[:, :3])
    torch.testing.assert_close(neighbors.distances, expected.values[:, :3])
    assert neighbors.count == 101


def test_fewer_than_k_neighbours_are_all_of_them():
    neighbors = NearestNeighbors(torch.zeros(1, 1), k=5)
    neighbors.update(torch.tensor([[3.0], [1.0]]))
    assert neighbors.distances.tolist() == [[1.0, 3.0]]


def drawn(count):
    """From ten clusters."""
    return 3 * torch.eye(10)[torch.randint(10, (count,))] + torch.randn(count, 10)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_that_is_copied_is_found(share):
    train, held_out, samples = drawn(1000), drawn(1000), drawn(2000)
    copied = torch.rand(2000) < share
    samples[copied] = (train[torch.randint(1000, (2000,))] + 0.01 * torch.randn(2000, 10))[copied]
    found = memorization(samples, train, held_out)
    assert found.copies == pytest.approx(share + (1 - share) * 0.01, abs=0.02)
    assert found.memorization == pytest.approx(share, abs=4 * found.memorization_error)


def test_the_error_is_that_of_images_held_out_at_random():
    """Also where samples crowd around a few images."""
    samples = torch.cat([drawn(60), torch.randn(1, 10).expand(40, 10)])
    images, scores, errors = drawn(150), [], []
    for _ in range(400):
        order = torch.randperm(150)
        found = memorization(samples, images[order[:100]], images[order[100:]])
        scores.append(found.memorization)
        errors.append(found.memorization_error)
    scores, errors = torch.tensor(scores), torch.tensor(errors)
    assert abs(scores.mean()) < 4 * scores.std() / 20
    assert scores.std().item() == pytest.approx(errors[0].item(), rel=0.15)
    assert errors.std() < 1e-6, "it does not depend on which are held out"


def test_blur_is_near_to_everything_but_no_copy():
    train, held_out = drawn(3000), drawn(1000)
    blurred = 3 * torch.eye(10)[torch.randint(10, (2000,))] + 0.5 * torch.randn(2000, 10)
    found = memorization(blurred, train, held_out)
    assert found.copies > 0.03
    assert abs(found.memorization) < 4 * found.memorization_error


def test_noise_is_far_from_everything():
    found = memorization(100 * torch.randn(500, 10), drawn(1000), drawn(500))
    assert found.copies == 0
    assert abs(found.memorization) < 4 * found.memorization_error


def test_the_threshold_may_come_from_few():
    train, held_out, samples = drawn(500), drawn(400), drawn(300)
    assert memorization(samples, train, held_out, reference=200).threshold == pytest.approx(
        memorization(samples, train, held_out[:200]).threshold
    )


def test_bad_input():
    with pytest.raises(ValueError, match=r"quantile must lie between 0 and 1, got 1.0"):
        memorization(drawn(5), drawn(5), drawn(5), quantile=1.0)
    with pytest.raises(ValueError, match=r"features must have shape \(N, 10\), got \(5, 3\)"):
        memorization(drawn(5), torch.rand(5, 3), drawn(5))
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        NearestNeighbors(drawn(5), 0)
