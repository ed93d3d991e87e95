"""A linear classifier on features, and the features of DCGAN."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from lit_gen.metrics import fit_probe, linear_probe, pooled_features
from lit_gen.models import DCGAN, ClassDCGAN
from lit_gen.networks import MLP, DCGANDiscriminator


def test_maps_are_pooled_to_a_grid():
    maps = torch.randn(3, 2, 12, 8)
    by_hand = maps.reshape(3, 2, 4, 3, 4, 2).amax((3, 5)).flatten(1)
    small = torch.randn(3, 5, 2, 1)
    assert torch.equal(pooled_features([maps, small]), torch.cat([by_hand, small.flatten(1)], 1))


def test_features_of_the_published_network_are_28672():
    """Radford et al. 2015, section 5.1: six convolutions of 128 to 512 maps, at 32x32."""
    network = DCGANDiscriminator((3, 32, 32), (1,), channels=[128, 256, 512], kernel_size=3, refine=True).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        maps = network.feature_maps(images)
        assert [layer.shape[1] for layer in maps] == [128, 128, 256, 256, 512, 512]
        assert pooled_features(maps).shape == (2, 28_672)
        assert torch.equal(network.output(maps[-1].flatten(1)), network(images))


def test_features_are_those_of_what_the_discriminator_sees():
    model = DCGAN((1, 8, 8), discriminator=lambda i, o: DCGANDiscriminator(i, o, width=4)).eval()
    images = torch.rand(3, 1, 8, 8)
    for found, expected in zip(
        model.feature_maps(images), model.discriminator.feature_maps(2 * images - 1), strict=True
    ):
        assert torch.equal(found, expected)


def test_features_know_no_class():
    model = ClassDCGAN((1, 8, 8), 3, discriminator=lambda i, o: DCGANDiscriminator(i, o, width=4)).eval()
    images = torch.rand(3, 1, 8, 8)
    blank = torch.cat([2 * images - 1, torch.zeros(3, 3, 8, 8)], 1)
    assert torch.equal(model.feature_maps(images)[-1], model.discriminator.feature_maps(blank)[-1])


def test_other_discriminators_have_no_features():
    model = DCGAN((1, 8, 8), discriminator=lambda i, o: MLP(i, o, hidden_dims=[4]))
    with pytest.raises(TypeError, match="features are those of a DCGANDiscriminator, and this one is a MLP"):
        model.feature_maps(torch.rand(1, 1, 8, 8))


def two_clouds(count, distance):
    targets = torch.arange(count) % 2
    return torch.randn(count, 5) + distance * targets[:, None] * torch.eye(5)[0], targets


def test_the_classifier_minimises_squared_hinge_and_squared_weights():
    features, targets = two_clouds(60, 1.0)
    probe = fit_probe(features, targets, costs=[3.0], folds=2)
    rows = np.c_[features.double().numpy() / probe.length, np.ones(60)]  # liblinear shrinks the bias too
    signs = 2 * targets.numpy() - 1

    def objective(weights):
        return 0.5 * weights @ weights + 3 * np.maximum(0, 1 - signs * (rows @ weights)).__pow__(2).sum()

    best = minimize(objective, np.zeros(6), tol=1e-10).x
    assert probe.machine.coef_[0] == pytest.approx(best[:5], abs=0.01)
    assert probe.machine.intercept_[0] == pytest.approx(best[5], abs=0.01)
    assert probe.length == pytest.approx(features.norm(dim=1).mean().item(), rel=1e-5)


def test_accuracy_where_it_is_known():
    # The best boundary between two unit normals a distance of 3 apart is right for Phi(1.5) = 93.3 %.
    found = linear_probe(*two_clouds(2000, 3.0), *two_clouds(5000, 3.0), costs=[0.1, 1.0])
    assert found.accuracy == pytest.approx(0.9332, abs=0.012)
    assert found.validation_accuracy == pytest.approx(0.9332, abs=0.02)
    assert (found.num_features, found.num_train) == (5, 2000)
    nothing = linear_probe(
        torch.randn(300, 200), torch.arange(300) % 3, torch.randn(900, 200), torch.arange(900) % 3, (0.1, 1.0)
    )
    assert nothing.accuracy == pytest.approx(1 / 3, abs=0.08)
    assert nothing.validation_accuracy == pytest.approx(1 / 3, abs=0.12), "chosen without a look at the test images"


def test_cross_validation_chooses_the_cost():
    """Of many features nine in ten are noise: a large cost fits it."""
    features, targets = two_clouds(100, 1.5)
    noisy = torch.cat([features, 0.7 * torch.randn(100, 300)], 1)
    tried = {cost: fit_probe(noisy, targets, costs=[cost]).validation_accuracy for cost in (0.01, 1.0, 1000.0)}
    assert len(set(tried.values())) > 1
    assert fit_probe(noisy, targets, costs=list(tried)).cost == max(tried, key=tried.__getitem__)


def test_bad_input():
    with pytest.raises(ValueError, match=r"targets must be class numbers \(4,\), got torch.float32 \(4,\)"):
        fit_probe(torch.rand(4, 2), torch.zeros(4))
    with pytest.raises(ValueError, match="got 2 classes and 2 images of the rarest: take more images or fewer folds"):
        fit_probe(torch.rand(4, 2), torch.arange(4) % 2)
    with pytest.raises(ValueError, match="got 0 maps and grid 4"):
        pooled_features([])
    with pytest.raises(ValueError, match=r"test_features must have shape \(N, 2\), got \(4, 3\)"):
        linear_probe(torch.rand(4, 2), torch.zeros(4).long(), torch.rand(4, 3), torch.zeros(4).long())
