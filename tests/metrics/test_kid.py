import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from lit_gen.metrics import KID, SmallSampleWarning

TOY_REAL = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
TOY_GENERATED = torch.tensor([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]])


def score(real, generated, **settings):
    kid = KID(**settings)
    kid.update(real, real=True)
    kid.update(generated, real=False)
    return kid.compute()


def kernel(x, y):
    return (x @ y.mT / x.shape[1] + 1) ** 3


def test_unbiased_toy():
    assert score(TOY_REAL, TOY_GENERATED, subsets=1, subset_size=3).mean.item() == pytest.approx(0.5, abs=1e-12)


def test_is_the_biased_toy_less_its_known_bias():
    # The biased estimate 6.0277... counts the diagonals too. Taking them out again must lead to the same 0.5.
    xx, yy, xy = kernel(TOY_REAL, TOY_REAL), kernel(TOY_GENERATED, TOY_GENERATED), kernel(TOY_REAL, TOY_GENERATED)
    biased = (xx.mean() + yy.mean() - 2 * xy.mean()).item()
    assert biased == pytest.approx(6.02777778, abs=1e-6)
    bias = sum(k.trace() / 3 - k.mean() for k in (xx, yy)).item() / 2
    unbiased = score(TOY_REAL, TOY_GENERATED, subsets=1, subset_size=3).mean.item()
    assert unbiased == pytest.approx(biased - bias, abs=1e-5)


def test_point_masses():
    dim = 10
    generated = torch.zeros(4, dim)
    generated[:, 0] = dim**0.5
    assert score(torch.zeros(4, dim), generated, subset_size=4).mean.item() == pytest.approx(1 + 8 - 2, abs=1e-5)


def test_equal_sets_are_below_zero():
    assert score(TOY_REAL, TOY_REAL, subsets=1, subset_size=3).mean.item() == pytest.approx(-1.0556, abs=1e-4)


def test_agrees_with_torch_fidelity():
    torch.manual_seed(0)
    real, generated = torch.randn(300, 16), torch.randn(250, 16) * 1.2
    theirs = kid_features_to_metric(generated, real, kid_subsets=20, kid_subset_size=100, verbose=False)
    ours = score(real, generated, subsets=20, subset_size=100)
    assert ours.mean.item() == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert ours.std.item() == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-4)


def test_few_samples_shrink_the_subsets():
    torch.manual_seed(0)
    real, generated = torch.randn(40, 3), torch.randn(30, 3)
    with pytest.warns(SmallSampleWarning, match="subset_size 1000 exceeds the 40 real or the 30 generated.*using 30"):
        shrunk = score(real, generated, subsets=5)
    assert torch.equal(shrunk.mean, score(real, generated, subsets=5, subset_size=30).mean)


def test_one_subset_stands_for_many_equal_ones():
    torch.manual_seed(0)
    real, generated = torch.randn(20, 3), torch.randn(20, 3)
    result = score(real, generated, subsets=50, subset_size=20)
    xx, yy, xy = (kernel(a.double(), b.double()) for a, b in [(real, real), (generated, generated), (real, generated)])
    expected = sum((k.sum() - k.trace()) / (20 * 19) for k in (xx, yy)) - 2 * xy.mean()
    assert result.mean.item() == pytest.approx(expected.item(), rel=1e-9)
    assert result.std.item() == 0


def test_is_repeatable_and_leaves_global_generators_alone(generators_untouched):
    torch.manual_seed(0)
    real, generated = torch.randn(50, 3), torch.randn(50, 3)
    with generators_untouched():
        first = score(real, generated, subsets=3, subset_size=10)
    assert first == score(real, generated, subsets=3, subset_size=10)
    assert first != score(real, generated, subsets=3, subset_size=10, seed=1)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="subset_size of at least 2, got 5 and 1"):
        KID(subsets=5, subset_size=1)
    with pytest.raises(ValueError, match="got 0 and 10"):
        KID(subsets=0, subset_size=10)


def test_one_sample_is_refused():
    with pytest.raises(ValueError, match="KID needs at least 2 real and 2 generated samples, got 3 real and 1"):
        score(TOY_REAL, TOY_GENERATED[:1])


def test_unlike_widths_are_refused():
    kid = KID()
    kid.update(torch.rand(3, 4), real=True)
    with pytest.raises(ValueError, match=r"shape \(N, 4\), got \(3, 5\).*same extractor"):
        kid.update(torch.rand(3, 5), real=False)
