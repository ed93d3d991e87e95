"""A classifier of this package as comparator: its own layers, frozen, and stored with the model."""

from pathlib import Path

import pytest
import torch

from lit_gen.models import Classifier, ClassifierComparator, DeePSiM, DeePSiMInversion, FeatureDistance, load_model
from lit_gen.networks import ConvEncoder, Shape
from tests.callbacks.tiny import SHAPE, data, small, trainer


def convolutions(input_shape: Shape, output_shape: Shape) -> ConvEncoder:
    return ConvEncoder(input_shape, output_shape, channels=(4, 8), batch_norm=True, residual_blocks=1)


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    run = trainer(tmp_path / "classifier")
    run.fit(Classifier(SHAPE, 3, num_features=6, network=convolutions), data())
    run.save_checkpoint(tmp_path / "classifier.ckpt")
    return tmp_path / "classifier.ckpt"


def test_its_layers_are_those_of_the_classifier(classifier: Path) -> None:
    original, comparator = load_model(classifier), ClassifierComparator(SHAPE, str(classifier))
    assert isinstance(original, Classifier)
    assert comparator.layer_shapes() == [(4, 4, 4), (8, 2, 2), (6,), (3,)]
    images = torch.rand(5, *SHAPE)
    found = comparator.layers(images)
    torch.testing.assert_close(found[-2], original.features(images))
    torch.testing.assert_close(found[-1], original(images))
    assert isinstance(original.network, ConvEncoder)
    # What the network goes on from is its last convolution.
    torch.testing.assert_close(original.network.output(found[1]).relu(), found[-2])
    assert min(layer.min() for layer in found[:3]) >= 0


def test_the_model_needs_its_checkpoint_no_more(classifier: Path, tmp_path: Path) -> None:
    path = str(classifier)
    model = DeePSiM(
        SHAPE, 4, small, small, adversarial_weight=0,
        feature_distance=lambda shape: FeatureDistance(shape, lambda s: ClassifierComparator(s, path), [1, -2]),
    )  # fmt: skip
    before = {name: value.clone() for name, value in model.feature_distance.comparator.state_dict().items()}
    run = trainer(tmp_path)
    run.fit(model, data(binarization="none"))
    run.save_checkpoint(tmp_path / "model.ckpt")
    classifier.unlink()
    loaded = load_model(tmp_path / "model.ckpt")
    assert isinstance(loaded, DeePSiM)
    images, others = torch.rand(2, 4, *SHAPE)
    torch.testing.assert_close(loaded.compare(images, others), model.eval().compare(images, others))
    for name, value in loaded.feature_distance.comparator.state_dict().items():
        assert torch.equal(value, before[name]), "running statistics of batch normalisation included"


def test_what_is_absent_or_unfit_is_said(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .* ExemplarComparator needs none"):
        ClassifierComparator(SHAPE, str(tmp_path / "none.ckpt"))
    with pytest.raises(ValueError, match=r"trained on images of shape \(1, 8, 8\), these are \(3, 8, 8\)"):
        ClassifierComparator((3, 8, 8), str(classifier))


@pytest.mark.parametrize("layer", [0, -2])
def test_a_layer_of_a_classifier_is_inverted(layer: int, classifier: Path, tmp_path: Path) -> None:
    model = DeePSiMInversion(
        SHAPE,
        lambda shape: ClassifierComparator(shape, str(classifier)),
        layer,
        decoder=small,
        feature_weight=0,
        adversarial_weight=0,
    )
    before = [weight.clone() for weight in model.inverted.parameters()]
    run = trainer(tmp_path, max_epochs=3)
    run.fit(model, data())
    assert all(torch.equal(old, new) for old, new in zip(before, model.inverted.parameters(), strict=True))
    run.save_checkpoint(tmp_path / "inversion.ckpt")
    classifier.unlink()
    loaded, images = load_model(tmp_path / "inversion.ckpt"), torch.rand(3, *SHAPE)
    assert isinstance(loaded, DeePSiMInversion)
    torch.testing.assert_close(loaded.reconstruct(images), model.eval().reconstruct(images))
