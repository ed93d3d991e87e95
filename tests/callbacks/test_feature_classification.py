"""Accuracy of a linear classifier on what a model sees."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_gen.callbacks import FeatureClassification
from lit_gen.data import Digits, Synthetic
from lit_gen.metrics import linear_probe
from lit_gen.models import DCGAN
from lit_gen.networks import DCGANDiscriminator, DCGANGenerator, Shape
from tests.callbacks.tiny import SHAPE, trainer, vae


def generator(input_shape: Shape, output_shape: Shape) -> DCGANGenerator:
    return DCGANGenerator(input_shape, output_shape, width=4)


def discriminator(input_shape: Shape, output_shape: Shape) -> DCGANDiscriminator:
    return DCGANDiscriminator(input_shape, output_shape, width=4)


def dcgan() -> DCGAN:
    return DCGAN(SHAPE, 4, generator=generator, discriminator=discriminator)


def split(part: str) -> tuple[Tensor, Tensor]:
    data: Any = Digits(batch_size=50, subset=400)
    loader = {"train": data.train_dataloader, "test": data.test_dataloader}[part]()
    images, targets = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(targets)


def test_pixels_are_classified_as_by_hand(tmp_path: Path) -> None:
    run = trainer(tmp_path, FeatureClassification(num_train=None, folds=3))
    (result,) = run.test(dcgan(), Digits(batch_size=50, subset=400), verbose=False)
    (images, targets), (test_images, test_targets) = split("train"), split("test")
    expected = linear_probe(images.flatten(1), targets, test_images.flatten(1), test_targets, folds=3)
    assert result["test/pixel_accuracy"] == pytest.approx(expected.accuracy, abs=0.01)
    assert expected.accuracy > 0.85
    assert result["test/feature_accuracy"] > 0.6, "even of maps at random"


class Oracle(DCGAN):
    """Sees the class, which a pixel tells."""

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        return [
            torch.nn.functional.one_hot((images[:, :1, :1, 0] * 10).round().long()[:, 0, 0], 10)[
                ..., None, None
            ].float()
        ]


class Marked(Digits):
    """The class stands in the first pixel."""

    def load(self, part: Any) -> Any:
        images, targets = super().load(part)
        assert isinstance(targets, Tensor)
        images = images.clone()
        images[:, 0, 0, 0] = (targets * 25.5).round().to(images.dtype)
        return type(super().load(part))(images, targets)


def test_features_that_tell_the_class_are_worth_all(tmp_path: Path) -> None:
    run = trainer(tmp_path, FeatureClassification(num_train=300, folds=2))
    (result,) = run.test(Oracle(SHAPE, 4, generator=generator, discriminator=discriminator), Marked(), verbose=False)
    assert result["test/feature_accuracy"] == 1


def test_so_many_labels_of_each_class(tmp_path: Path) -> None:
    callback = FeatureClassification(labels_per_class=5, folds=5)
    trainer(tmp_path, callback).test(dcgan(), Digits(batch_size=50), verbose=False)
    assert set(callback._probes["feature"].machine.classes_) == set(range(10))
    with pytest.raises(ValueError, match="10 classes and 5 images of the rarest"):
        trainer(tmp_path, FeatureClassification(labels_per_class=5, folds=6)).test(dcgan(), Digits(), verbose=False)


def test_what_cannot_be_classified_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="needs feature maps, and VAE has none: leave it out"):
        trainer(tmp_path, FeatureClassification()).test(vae(), Digits(), verbose=False)
    with pytest.raises(ValueError, match="give the data as a data module"):
        trainer(tmp_path, FeatureClassification()).test(dcgan(), Digits().test_dataloader(), verbose=False)
    unlabelled = Synthetic(image_shape=SHAPE, num_train=20, num_val=0, num_test=10, num_classes=0)
    with pytest.raises(ValueError, match="needs class numbers"):
        trainer(tmp_path, FeatureClassification()).test(dcgan(), unlabelled, verbose=False)
    with pytest.raises(ValueError, match="folds must be at least 2, got 1"):
        FeatureClassification(folds=1)
