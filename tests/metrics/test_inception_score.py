import math

import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from lit_gen.metrics import InceptionScore, SmallSampleWarning


def score(logits, **settings):
    metric = InceptionScore(**settings)
    metric.update(logits)
    return metric.compute()


def test_toy():
    probabilities = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).double().repeat(4, 1)
    assert score(probabilities.log(), splits=1).mean.item() == pytest.approx(1.4449348, abs=1e-7)


def test_constant_prediction_is_one():
    assert score(torch.randn(1, 7).repeat(20, 1), splits=2).mean.item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("scale", [200.0, 1e30])
def test_saturated_logits_give_the_number_of_classes(scale):
    # The textbook sum of p log p is 0 * -inf = NaN here.
    assert score(torch.eye(5).repeat(4, 1) * scale, splits=1).mean.item() == pytest.approx(5, abs=1e-9)


def test_agrees_with_torch_fidelity():
    torch.manual_seed(0)
    logits = 3 * torch.randn(1003, 12)
    theirs = isc_features_to_metric(logits, splits=10)
    ours = score(logits)
    assert ours.mean.item() == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert ours.std.item() == pytest.approx(theirs["inception_score_std"], rel=1e-9)


def test_few_samples_shrink_the_splits():
    torch.manual_seed(0)
    logits = torch.randn(7, 4)
    with pytest.warns(SmallSampleWarning, match="7 samples are too few for 10 splits.*using 3"):
        shrunk = score(logits)
    assert shrunk == score(logits, splits=3)


def test_is_repeatable_and_leaves_global_generators_alone(generators_untouched):
    logits = torch.rand(20, 3)
    with generators_untouched():
        assert score(logits, splits=2) == score(logits, splits=2)


def test_nan_logits_are_refused():
    with pytest.raises(ValueError, match="1 of 2 rows of logits hold NaN"):
        InceptionScore().update(torch.tensor([[0.0, 1.0], [math.nan, 1.0]]))


def test_too_few_samples_and_bad_splits_are_refused():
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        score(torch.rand(1, 3))
    with pytest.raises(ValueError, match="splits must be at least 1, got 0"):
        InceptionScore(splits=0)
