"""Precision and recall, density and coverage."""

import pytest
import torch
from scipy.spatial.distance import cdist
from torch_fidelity.metric_prc import prc_features_to_metric

from lit_gen.metrics import DensityCoverage, PrecisionRecall, neighbors
from lit_gen.metrics.neighbors import distance_blocks, neighbor_distances


def score(metric, real, generated):
    metric.update(real, real=True)
    metric.update(generated, real=False)
    return [value.item() for value in metric.compute()]


def column(*values):
    return torch.tensor(values)[:, None]


def test_distances_agree_with_scipy_whatever_the_budget():
    torch.manual_seed(0)
    rows, columns = torch.randn(17, 5, dtype=torch.float64), torch.randn(23, 5, dtype=torch.float64)
    expected = cdist(rows, columns, "sqeuclidean")
    for block_bytes in (1, 23 * 8 * 4, 2**28):
        blocks = list(distance_blocks(rows, columns, block_bytes))
        assert torch.cat(blocks).numpy() == pytest.approx(expected, rel=1e-10)
        assert max(block.numel() * 8 for block in blocks) <= max(block_bytes, 23 * 8)
    nearest_two = torch.from_numpy(cdist(rows, rows, "sqeuclidean")).sort(dim=1).values[:, 2]
    assert neighbor_distances(rows, k=2, block_bytes=500).numpy() == pytest.approx(nearest_two.numpy(), rel=1e-10)


def test_block_size_does_not_matter(monkeypatch):
    torch.manual_seed(0)
    real, generated = torch.randn(50, 3), 0.7 * torch.randn(40, 3)
    expected = [score(metric, real, generated) for metric in (PrecisionRecall(), DensityCoverage())]
    monkeypatch.setattr(neighbors.distance_blocks, "__defaults__", (50 * 8 * 7,))
    assert [score(metric, real, generated) for metric in (PrecisionRecall(), DensityCoverage())] == expected


def test_precision_and_recall_of_the_toy():
    assert score(PrecisionRecall(k=1), column(0.0, 1.0, 2.0, 3.0), column(0.4, 10.0)) == [0.5, 1.0]


def test_precision_and_recall_of_equal_and_of_distant_sets():
    torch.manual_seed(0)
    features = torch.randn(60, 8) * 100
    assert score(PrecisionRecall(), features, features) == [1.0, 1.0]
    assert score(PrecisionRecall(), features, features + 1e4) == [0.0, 0.0]


@pytest.mark.parametrize("k", [1, 3, 6])
def test_precision_and_recall_agree_with_torch_fidelity(k):
    torch.manual_seed(0)
    real, generated = torch.randn(150, 4).double(), 0.7 * torch.randn(120, 4).double() + 0.4
    theirs = prc_features_to_metric(generated, real, prc_neighborhood=k, verbose=False)
    precision, recall = score(PrecisionRecall(k=k), real, generated)
    assert 0.1 < recall < precision < 1
    assert precision == pytest.approx(theirs["precision"], abs=1e-6)
    assert recall == pytest.approx(theirs["recall"], abs=1e-6)


def test_copies_of_repeated_images_lie_inside_balls_of_radius_zero():
    torch.manual_seed(0)
    repeated = (torch.rand(1, 300) * 7).repeat(10, 1)
    real = torch.cat([repeated, torch.randn(30, 300) - 50])
    assert neighbor_distances(repeated.double(), k=3).tolist() == [0.0] * 10
    precision, _ = score(PrecisionRecall(k=3), real, repeated)
    assert precision == 1.0


def test_density_and_coverage_by_hand():
    # Radii of the real 0, 1, 3, 7 with k = 1: 1, 1, 2, 4. Generated 0.5 lies in the first two balls, 2.5 in the third,
    # 5 in the last (|5 - 3| = 2 is on the border of the third), 20 in none.
    density, coverage = score(DensityCoverage(k=1), column(0.0, 1.0, 3.0, 7.0), column(0.5, 2.5, 5.0, 20.0))
    assert density == 4 / 4
    assert coverage == 1.0
    # Radii with k = 2: 3, 2, 3, 6. 0.5 lies in the balls of 0, 1 and 3; 2.5 in all four, 5 in those of 3 and 7.
    density, coverage = score(DensityCoverage(k=2), column(0.0, 1.0, 3.0, 7.0), column(0.5, 2.5, 5.0, 20.0))
    assert density == (3 + 4 + 2 + 0) / (2 * 4)
    assert coverage == 1.0


def test_density_and_coverage_agree_with_their_definition():
    torch.manual_seed(0)
    k, real, generated = 5, torch.randn(80, 3).double(), 0.5 * torch.randn(60, 3).double()
    among, across = cdist(real, real), cdist(real, generated)
    balls = [sorted(row)[k] for row in among]
    inside = [[across[i, j] < balls[i] for j in range(60)] for i in range(80)]
    density, coverage = score(DensityCoverage(k=k), real, generated)
    assert density == pytest.approx(sum(map(sum, inside)) / (k * 60), rel=1e-12)
    assert coverage == pytest.approx(sum(map(any, inside)) / 80, rel=1e-12)
    assert 0 < coverage < 1 < density


def test_density_and_coverage_of_equal_sets_and_of_expectation():
    torch.manual_seed(0)
    features = torch.randn(100, 4)
    assert score(DensityCoverage(), features, features) == pytest.approx([1.0, 1.0])
    density, coverage = score(DensityCoverage(k=3), torch.randn(3000, 4), torch.randn(3000, 4))
    assert density == pytest.approx(1, abs=0.05)
    assert coverage == pytest.approx(1 - 2**-3, abs=0.02)


def test_generated_outliers_raise_recall_but_not_coverage():
    torch.manual_seed(0)
    real = torch.randn(100, 2)
    generated = torch.cat([torch.randn(98, 2) * 0.01, torch.tensor([[50.0, 0.0], [-50.0, 0.0]])])
    _, recall = score(PrecisionRecall(k=3), real, generated)
    _, coverage = score(DensityCoverage(k=3), real, generated)
    assert recall > 0.9
    assert coverage < 0.2


@pytest.mark.parametrize("metric_class", [PrecisionRecall, DensityCoverage])
def test_too_few_samples_and_bad_k_are_refused(metric_class):
    with pytest.raises(ValueError, match="needs at least 5 real and 5 generated samples, got 4 real and 9 generated"):
        score(metric_class(k=4), torch.rand(4, 2), torch.rand(9, 2))
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        metric_class(k=0)
