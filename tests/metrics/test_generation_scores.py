import warnings
from typing import get_args

import pytest
import torch
from torch import nn

from lit_gen.metrics import (
    FID,
    KID,
    ClassifierFeatures,
    DensityCoverage,
    FeatureExtractor,
    Features,
    GenerationScores,
    InceptionScore,
    MetricName,
    Pixels,
    PrecisionRecall,
    SmallSampleWarning,
)

ALL = get_args(MetricName)


class Counting(nn.Module):
    """A linear classifier that counts its passes and draws random numbers, as a careless user's may."""

    image_shape = (1, 2, 2)
    num_features = 4
    num_classes = 3

    def __init__(self):
        super().__init__()
        self.output = nn.Linear(4, 3)
        self.passes = 0

    def features(self, images):
        self.passes += len(images)
        torch.rand(1)
        return images.flatten(1)

    def classify(self, features):
        return self.output(features)


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.rand(40, 1, 2, 2), torch.rand(30, 1, 2, 2) ** 2


def make_scores(metrics=ALL, **settings):
    torch.manual_seed(1)
    return GenerationScores(
        ClassifierFeatures(Counting()),
        split="toy/test",
        metrics=metrics,
        inception_score_splits=3,
        kid_subsets=4,
        kid_subset_size=20,
        **settings,
    )


def fill(scores, real, generated):
    for batch in real.split(16):
        scores.update(batch, real=True)
    for batch in generated.split(16):
        scores.update(batch, real=False)


def test_gives_what_the_metrics_give_from_one_pass(images):
    real, generated = images
    scores = make_scores()
    fill(scores, real, generated)
    receipts = scores.compute()
    assert scores.extractor.network.passes == 70

    expected = {}
    for metric in (FID(4), KID(4, 20), PrecisionRecall(), DensityCoverage()):
        metric.update(real.flatten(1), real=True)
        metric.update(generated.flatten(1), real=False)
        expected[type(metric).__name__] = metric.compute()
    inception_score = InceptionScore(splits=3)
    inception_score.update(scores.extractor(generated).logits)
    assert {name: receipt.value for name, receipt in receipts.items()} == pytest.approx(
        {
            "fid": expected["FID"].item(),
            "inception_score": inception_score.compute().mean.item(),
            "kid": expected["KID"].mean.item(),
            "precision": expected["PrecisionRecall"].precision.item(),
            "recall": expected["PrecisionRecall"].recall.item(),
            "density": expected["DensityCoverage"].density.item(),
            "coverage": expected["DensityCoverage"].coverage.item(),
        },
        rel=1e-6,
    )
    assert receipts["kid"].std == pytest.approx(expected["KID"].std.item(), rel=1e-6)


def test_receipts_tell_how_each_score_was_measured(images):
    scores = make_scores()
    fill(scores, *images)
    receipts = scores.compute()
    for name, receipt in receipts.items():
        assert receipt.metric == name
        assert receipt.extractor == scores.extractor.digest()
        assert receipt.extractor_description == scores.extractor.description
        assert receipt.split == "toy/test"
        assert receipt.num_generated == 30
        assert receipt.num_real == (0 if name == "inception_score" else 40)
    shape = {"image_shape": "1x2x2"}
    assert receipts["fid"].settings == shape
    assert receipts["kid"].settings == {**shape, "subsets": 4, "subset_size": 20, "seed": 2020}
    assert receipts["inception_score"].settings == {**shape, "splits": 3, "seed": 2020}
    assert receipts["precision"].settings == receipts["recall"].settings == {**shape, "k": 3}
    assert receipts["density"].settings == receipts["coverage"].settings == {**shape, "k": 5}


def test_disturbs_neither_generators_nor_gradients(images, generators_untouched):
    scores = make_scores()
    with generators_untouched():
        fill(scores, *(batch.requires_grad_() for batch in images))
        scores.compute()
    states = [*scores.kid.real_features, *scores.inception_score.logits, scores.fid.real_features_sum]
    assert not any(state.requires_grad for state in states)
    assert torch.is_grad_enabled()


def test_metrics_share_the_memory_of_the_features(images):
    scores = make_scores()
    scores.update(images[0], real=True)
    kept = [metric.real_features[0] for metric in (scores.kid, scores.precision_recall, scores.density_coverage)]
    assert len({tensor.data_ptr() for tensor in kept}) == 1


def test_real_side_is_kept_over_resets(images):
    real, generated = images
    expected = make_scores()
    fill(expected, real, generated)
    scores = make_scores(reset_real_features=False)
    assert scores.needs_real
    fill(scores, real, 1 - generated)
    assert scores.compute() != expected.compute()
    scores.reset()
    assert not scores.needs_real
    for batch in generated.split(16):
        scores.update(batch, real=False)
    assert scores.compute() == expected.compute()
    assert scores.extractor.network.passes == 40 + 2 * 30


def test_reset_forgets_everything(images):
    real, generated = images
    expected = make_scores()
    fill(expected, real, generated)
    scores = make_scores()
    fill(scores, 1 - real, 1 - generated)
    scores.reset()
    assert scores.needs_real
    with pytest.raises(ValueError, match="got 0 real and 0 generated"), pytest.warns(UserWarning, match="before the"):
        scores.compute()
    fill(scores, real, generated)
    assert scores.compute() == expected.compute()


def test_inception_score_alone_needs_no_real_images(images):
    scores = make_scores(metrics=("inception_score",))
    assert not scores.needs_real
    scores.update(images[1], real=False)
    assert list(scores.compute()) == ["inception_score"]


def test_inception_score_needs_logits():
    with pytest.raises(ValueError, match=r"needs class logits, which Pixels does not give.*ClassifierFeatures"):
        GenerationScores(Pixels((1, 2, 2)), split="toy/test", metrics=("fid", "inception_score"))


def test_an_extractor_that_breaks_its_promise_of_logits_is_named(images):
    class Promising(FeatureExtractor):
        def __init__(self):
            super().__init__(nn.Flatten(), name="promising", num_features=4, num_classes=10)

        def extract(self, images):
            return Features(self.network(images), None)

    scores = GenerationScores(Promising(), split="toy/test", metrics=("inception_score",))
    with pytest.raises(ValueError, match="Promising announced 10 classes but gave no logits"):
        scores.update(images[0], real=False)


@pytest.mark.parametrize("metrics", [("fdi",), (), ("fid", "fid")])
def test_bad_metric_names_are_refused(metrics):
    with pytest.raises(ValueError, match="metrics must be one or more of fid, inception_score, kid"):
        make_scores(metrics=metrics)


def test_unlike_image_shapes_are_refused(images):
    class Any(FeatureExtractor):
        def __init__(self):
            super().__init__(nn.Identity(), name="mean", num_features=1)

        def extract(self, images):
            return Features(images.mean(dim=(1, 2, 3))[:, None], None)

    scores = GenerationScores(Any(), split="toy/test", metrics=("fid",))
    scores.update(images[0], real=True)
    with pytest.raises(ValueError, match=r"generated images have shape \(1, 3, 3\), those before \(1, 2, 2\)"):
        scores.update(torch.rand(4, 1, 3, 3), real=False)


def test_one_side_alone_is_refused(images):
    scores = make_scores()
    scores.update(images[0], real=True)
    with pytest.raises(ValueError, match="got 40 real and 0 generated: call update with both sides"):
        scores.compute()


@pytest.mark.parametrize(("count", "left_out"), [(3, 2), (4, 1), (5, 1), (6, 0)])
def test_metrics_of_neighbours_are_left_out_of_few_samples(count, left_out):
    scores = GenerationScores(Pixels((1, 2, 2)), "toy/test", ("fid", "precision_recall", "density_coverage"))
    scores.update(torch.rand(20, 1, 2, 2), real=True)
    scores.update(torch.rand(count, 1, 2, 2), real=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        receipts = scores.compute()
    told = [str(warning.message) for warning in caught if "are left out" in str(warning.message)]
    assert {warning.category for warning in caught} <= {SmallSampleWarning}
    assert len(told) == left_out
    assert all(f"got 20 and {count}" in text for text in told)
    assert list(receipts) == ["fid", "precision", "recall", "density", "coverage"][: 5 - 2 * left_out]
