import pickle
import sys
import urllib.error
from pathlib import Path

import pytest
import torch
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3

from lit_gen.metrics import ClassifierFeatures, FeatureExtractor, Features, InceptionV3, Pixels


class TinyClassifier(nn.Module):
    """Has everything a feature extractor must take care of: dropout, batch statistics, gradients."""

    image_shape = (1, 4, 4)
    num_features = 6
    num_classes = 3

    def __init__(self):
        super().__init__()
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
        self.output = nn.Linear(6, 3)

    def features(self, images):
        return self.hidden(images)

    def classify(self, features):
        return self.output(features)


@pytest.fixture
def extractor():
    torch.manual_seed(0)
    return ClassifierFeatures(TinyClassifier())


def test_classifier_features_and_logits(extractor):
    images = torch.rand(5, 1, 4, 4)
    features, logits = extractor(images)
    classifier = extractor.network
    assert torch.equal(features, classifier.hidden(images))
    assert torch.equal(logits, classifier.output(features))
    assert (extractor.num_features, extractor.num_classes) == (6, 3)
    assert "TinyClassifier of 3 classes" in extractor.description


def test_never_leaves_evaluation_mode(extractor):
    images = torch.rand(5, 1, 4, 4)
    expected = extractor(images)
    statistics = extractor.network.hidden[2].running_mean.clone()
    nn.Sequential(extractor).train()
    assert not any(module.training for module in extractor.modules())
    # Someone who holds the classifier switches it himself.
    extractor.network.train()
    features, logits = extractor(images)
    assert torch.equal(features, expected.features)
    assert torch.equal(logits, expected.logits)
    assert torch.equal(extractor.network.hidden[2].running_mean, statistics)


def test_computes_in_float32_without_gradients_whatever_surrounds_it(extractor):
    images = torch.rand(5, 1, 4, 4)
    expected = extractor(images).features
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, logits = extractor(images.requires_grad_())
    assert torch.equal(features, expected)
    assert features.dtype == logits.dtype == torch.float32
    assert not features.requires_grad
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    assert extractor(images.half()).features.dtype == torch.float32
    assert ClassifierFeatures(TinyClassifier().bfloat16())(images).features.dtype == torch.float32


def test_digest_identifies_the_weights(extractor):
    digest = extractor.digest()
    assert len(digest) == 16
    assert int(digest, 16) >= 0
    torch.manual_seed(0)
    assert ClassifierFeatures(TinyClassifier()).digest() == digest
    with torch.no_grad():
        extractor.network.output.bias[0] += 1e-6
    changed = extractor.digest()
    assert changed != digest
    extractor.network.hidden[2].running_var *= 2  # a buffer
    assert extractor.digest() != changed


def test_digest_covers_the_description():
    class Renamed(Pixels):
        @property
        def description(self):
            return "other"

    assert Renamed((1, 2, 2)).digest() != Pixels((1, 2, 2)).digest()


def test_what_is_no_classifier_is_refused():
    with pytest.raises(TypeError, match=r"got Linear, which is no ImageClassifier: it needs image_shape.*classify"):
        ClassifierFeatures(nn.Linear(2, 2))


def test_pixels():
    images = torch.rand(3, 2, 4, 5)
    features, logits = Pixels((2, 4, 5))(images)
    assert torch.equal(features, images.flatten(1))
    assert logits is None
    assert Pixels((2, 4, 5)).num_features == 40


def test_takes_voxels():
    assert Pixels((1, 2, 3, 4))(torch.rand(2, 1, 2, 3, 4)).features.shape == (2, 24)


def test_a_subclass_gives_only_extract():
    class Means(FeatureExtractor):
        def __init__(self):
            super().__init__(nn.Identity(), name="channel means", num_features=3)

        def extract(self, images):
            return Features(images.mean(dim=(2, 3)), None)

    assert Means()(torch.full((2, 3, 4, 4), 0.5)).features.tolist() == [[0.5] * 3] * 2
    with pytest.raises(TypeError, match="abstract"):
        FeatureExtractor(nn.Identity(), name="", num_features=1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(2, 2), r"shape \(B, C, H, W\), got \(2, 2\)"),
        (torch.rand(0, 1, 2, 2), r"shape \(B, C, H, W\), got \(0, 1, 2, 2\)"),
        (torch.ones(1, 1, 2, 2, dtype=torch.uint8), "got torch.uint8; divide"),
        (torch.full((1, 1, 2, 2), float("nan")), "NaN"),
        (torch.full((1, 1, 2, 2), -1.0), r"in \[0, 1\], got values from -1 to -1"),
        (torch.full((1, 1, 2, 2), 255.0), "from 255 to 255"),
        (torch.rand(1, 3, 2, 2), r"shape \(1, 2, 2\), got \(3, 2, 2\)"),
    ],
)
def test_bad_images_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        Pixels((1, 2, 2))(images)


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory):
    """A file of random weights in the layout of the published ones."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *args, **kwargs: None)
        patch.setattr(
            feature_extractor_inceptionv3.FeatureExtractorInceptionV3, "load_state_dict", lambda self, weights: None
        )
        network = feature_extractor_inceptionv3.FeatureExtractorInceptionV3("random", ["2048"])
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.mul_(6**0.5)  # PyTorch's default initialisation lets the signal die out over so many layers
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), path)
    yield str(path)
    path.unlink()


def test_inception_rounds_to_uint8_and_repeats_grey(inception_weights):
    inception = InceptionV3(weights_path=inception_weights)
    levels = torch.arange(256, dtype=torch.uint8)
    colour = torch.stack([levels, levels.flip(0), (levels * 7) % 255]).view(1, 3, 16, 16)
    grey = levels.view(1, 1, 16, 16)
    darker = colour.clamp(min=1) - 1  # what truncation would make of the images below
    expected, logits_expected = inception.network(torch.cat([colour, darker, grey.repeat(1, 3, 1, 1)]))
    features, logits = inception((colour / 255 - 0.3 / 255).clamp(min=0))
    assert torch.allclose(features, expected[:1], rtol=1e-4, atol=1e-5)
    assert torch.allclose(logits, logits_expected[:1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(features, expected[1:2], rtol=1e-4, atol=1e-5)
    assert torch.allclose(inception(grey / 255).features, expected[2:], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(features, expected[2:], rtol=1e-4, atol=1e-5)
    assert features.shape == (1, inception.num_features)
    assert logits.shape == (1, inception.num_classes)
    with pytest.raises(ValueError, match=r"grey or colour images.*got \(1, 2, 8, 8\).*ClassifierFeatures"):
        inception(torch.rand(1, 2, 8, 8))


def test_inception_describes_itself(inception_weights):
    inception = InceptionV3(weights_path=inception_weights)
    for word in ("2015-12-05", "299x299", "uint8"):
        assert word in inception.description
    assert len(inception.digest()) == 16


def test_missing_inception_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no Inception weights at .*nowhere.pth"):
        InceptionV3(weights_path=str(tmp_path / "nowhere.pth"))


def test_inception_without_a_network(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(
        FileNotFoundError, match=r"be downloaded.*Name or service.*weights_path.*inception:PATH.*Classifier"
    ):
        InceptionV3()


def test_inception_without_torch_fidelity(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(ModuleNotFoundError, match="not installed: pip install torch-fidelity"):
        InceptionV3()


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("content", ["empty", "text", "other weights", "no weights", "code"])
def test_a_file_that_holds_no_inception_weights_is_refused(tmp_path, content):
    path, trap = tmp_path / "weights.pth", tmp_path / "trap"
    match content:
        case "empty":
            path.touch()
        case "text":
            path.write_text("<html>404</html>")
        case "other weights":
            torch.save(nn.Linear(2, 2).state_dict(), path)
        case "no weights":
            torch.save(torch.ones(3), path)
        case "code":
            path.write_bytes(pickle.dumps(Malicious(trap), protocol=2))
    with pytest.raises(ValueError, match=r"weights.pth does not hold the Inception weights"):
        InceptionV3(weights_path=str(path))
    assert not trap.exists()
