import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from lit_gen.metrics import FID, SmallSampleWarning, frechet_distance


def score(real, generated):
    fid = FID(num_features=real.shape[1])
    fid.update(real, real=True)
    fid.update(generated, real=False)
    return fid.compute()


def sample_with_moments(mean, covariance, num_samples=50):
    """Draw points whose sample mean and sample covariance are exactly those given."""
    points = torch.randn(num_samples, len(mean), dtype=torch.float64)
    points = points - points.mean(dim=0)
    whitened = points @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(points.mT))).mT
    return mean + whitened @ torch.linalg.cholesky(covariance).mT


def test_closed_form_of_two_known_gaussians():
    torch.manual_seed(0)
    real = sample_with_moments(torch.zeros(2).double(), torch.tensor([[1.0, 0.0], [0.0, 4.0]]).double())
    generated = sample_with_moments(torch.tensor([1.0, -1.0]).double(), torch.tensor([[2.0, 1.0], [1.0, 2.0]]).double())
    assert score(real, generated).item() == pytest.approx(2.77122045, abs=1e-8)
    assert score(generated, real).item() == pytest.approx(2.77122045, abs=1e-8)


@pytest.mark.parametrize(("sigma1", "sigma2"), [(1.0, 1.0), (0.5, 3.0), (2.0, 0.0)])
def test_closed_form_of_isotropic_gaussians(sigma1, sigma2):
    mean1, mean2, eye = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([3.0, 1.0, 0.0]), torch.eye(3)
    distance = frechet_distance(mean1, sigma1**2 * eye, mean2, sigma2**2 * eye)
    assert distance.item() == pytest.approx(13 + 3 * (sigma1 - sigma2) ** 2, rel=1e-6)


def test_of_equal_features_is_zero():
    torch.manual_seed(0)
    features = torch.randn(100, 16) * 5 + 30
    assert 0 <= score(features, features).item() < 1e-9


def test_agrees_with_torch_fidelity():
    torch.manual_seed(0)
    real = torch.randn(400, 24) @ torch.randn(24, 24)
    generated = torch.randn(300, 24) @ torch.randn(24, 24) + 1
    statistics = [fid_features_to_statistics(features) for features in (real.double(), generated.double())]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert score(real, generated).item() == pytest.approx(theirs, rel=1e-9)


def test_batches_do_not_matter():
    torch.manual_seed(0)
    real, generated = torch.randn(70, 5), torch.rand(70, 5)
    fid = FID(num_features=5)
    for start in range(0, 70, 20):
        fid.update(real[start : start + 20], real=True)
        fid.update(generated[start : start + 20], real=False)
    assert fid.compute().item() == pytest.approx(score(real, generated).item(), rel=1e-9)


def test_bias_of_few_samples_has_the_size_its_docstring_gives():
    torch.manual_seed(0)
    num_samples, dim = 1000, 64
    expected = 2 * dim / num_samples + dim * (dim + 1) / (2 * num_samples)
    value = score(torch.randn(num_samples, dim), torch.randn(num_samples, dim)).item()
    assert value == pytest.approx(expected, rel=0.1)


def test_fewer_samples_than_features_gives_a_real_score_and_advice():
    torch.manual_seed(0)
    real, generated = torch.randn(10, 40, dtype=torch.float64), torch.randn(12, 40, dtype=torch.float64) + 0.5
    with pytest.warns(SmallSampleWarning, match="10 real and 12 generated samples of 40 features.*KID"):
        value = score(real, generated)
    # An independent way to the trace of the root: the nuclear norm of the product of the centred samples.
    centred = [(x - x.mean(dim=0)) / (len(x) - 1) ** 0.5 for x in (real, generated)]
    nuclear = torch.linalg.matrix_norm(centred[0] @ centred[1].mT, ord="nuc")
    spread = sum(x.square().sum() for x in centred)
    expected = (real.mean(dim=0) - generated.mean(dim=0)).square().sum() + spread - 2 * nuclear
    assert value.item() == pytest.approx(expected.item(), rel=1e-10)
    with pytest.warns(SmallSampleWarning):
        assert 0 <= score(real, real).item() < 1e-9


def test_of_a_collapsed_model_is_finite():
    torch.manual_seed(0)
    real, collapsed = torch.randn(50, 4), torch.ones(50, 4)
    expected = (real.mean(dim=0) - 1).square().sum() + torch.cov(real.mT).trace()
    assert score(real, collapsed).item() == pytest.approx(expected.item(), rel=1e-5)


def test_one_sample_is_refused():
    fid = FID(num_features=3)
    fid.update(torch.rand(1, 3), real=True)
    fid.update(torch.rand(5, 3), real=False)
    with pytest.raises(ValueError, match="at least 2 real and 2 generated samples, got 1 real and 5 generated"):
        fid.compute()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.rand(4, 2), r"shape \(N, 3\), got \(4, 2\)"),
        (torch.rand(3), r"shape \(N, 3\), got \(3,\)"),
        (torch.ones(4, 3, dtype=torch.uint8), "floating point, got torch.uint8"),
        (torch.tensor([[1.0, 2.0, 3.0], [1.0, float("nan"), 3.0]]), "1 of 2 rows of features hold NaN"),
    ],
)
def test_bad_features_are_refused(features, message):
    with pytest.raises(ValueError, match=message):
        FID(num_features=3).update(features, real=True)


def test_real_side_can_be_kept():
    torch.manual_seed(0)
    real, generated = torch.randn(30, 4), torch.rand(30, 4)
    fid = FID(num_features=4, reset_real_features=False)
    fid.update(real, real=True)
    fid.update(torch.randn(30, 4), real=False)
    fid.reset()
    fid.update(generated, real=False)
    assert fid.compute().item() == pytest.approx(score(real, generated).item())
