"""A VAE with a perceptual term: what is added to the loss is no part of the bound."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lit_gen.cli import main
from lit_gen.models import IWAE, VAE, ConvVAE, FeatureDistance, PerceptualLikelihood, PixelDistance, load_model
from lit_gen.networks import (
    DiscretizedLogisticLikelihood,
    ExemplarComparator,
    GaussianLikelihood,
    RandomComparator,
    Shape,
)
from tests.callbacks.tiny import SHAPE, data, small, trainer


def features(shape: Shape) -> FeatureDistance:
    return FeatureDistance(shape, lambda s: ExemplarComparator(s, [4], 6, exemplars=20, steps=4, batch_size=8))


def perceptual(shape: Shape, weight: float = 30.0) -> PerceptualLikelihood:
    return PerceptualLikelihood(shape, DiscretizedLogisticLikelihood, features, weight)


def gaussian(shape: Shape) -> PerceptualLikelihood:
    return PerceptualLikelihood(shape, lambda s: GaussianLikelihood(s, std=0.1), PixelDistance, 7.0)


def test_the_bound_is_that_of_the_pixels_and_the_loss_has_more() -> None:
    torch.manual_seed(1)
    plain, images = VAE(SHAPE, 3, small, small, lambda s: GaussianLikelihood(s, std=0.1)), torch.rand(6, *SHAPE)
    torch.manual_seed(1)
    model = VAE(SHAPE, 3, small, small, gaussian)
    model.likelihood.start(lambda count: images)
    torch.manual_seed(2)
    theirs = plain.objective(images)
    torch.manual_seed(2)
    ours = model.objective(images)
    torch.manual_seed(2)
    mean = model.decode(model.encode(images).rsample()).mean
    for name in ("elbo", "reconstruction", "kl"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))
    # 7 nats for the squared error as a share of the variance of the images.
    share = (mean - images).square().flatten(1).sum(1) / images.var(0, correction=0).sum()
    torch.testing.assert_close(ours.loss - theirs.loss, 7 * share, rtol=1e-4, atol=1e-3)
    torch.manual_seed(3)
    bound = plain.lower_bound(images, 3)
    torch.manual_seed(3)
    torch.testing.assert_close(model.lower_bound(images, 3), bound)
    assert model.is_density
    assert not VAE(SHAPE, 3, small, small, perceptual).is_density


def test_the_decoder_and_the_encoder_get_its_gradient() -> None:
    model, images = VAE(SHAPE, 3, small, small, perceptual), torch.rand(6, *SHAPE)
    decoded = model.decode(model.encode(images).rsample())
    model.likelihood.added_loss(decoded, images).mean().backward()
    for part in (model.encoder, model.decoder):
        assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in part.parameters())
    assert all(weight.grad is None for weight in model.likelihood.parameters())


@pytest.mark.parametrize("kind", [VAE, ConvVAE])
def test_it_trains_and_its_checkpoint_is_complete(kind: type[VAE], tmp_path: Path) -> None:
    networks: dict[str, Any] = {"encoder": small, "decoder": small} if kind is VAE else {}
    model = kind(SHAPE, 3, likelihood=perceptual, **networks)
    run = trainer(tmp_path)
    run.fit(model, data(binarization="none"))
    values = run.callback_metrics
    assert values["val/loss"] > -values["val/elbo"], "the distance costs something"
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded, images = load_model(tmp_path / "model.ckpt"), torch.rand(4, *SHAPE)
    assert isinstance(loaded, kind)
    decoded = model.eval().decode(torch.zeros(4, 3))
    ours, theirs = (owner.likelihood.added_loss(decoded, images) for owner in (model, loaded))
    torch.testing.assert_close(ours, theirs)


def test_by_the_command_line_alone(tmp_path: Path) -> None:
    words = ["--model=ConvVAE", "--model.likelihood=PerceptualLikelihood", "--model.likelihood.weight=50"]
    words += ["--model.likelihood.distance=FeatureDistance", "--model.likelihood.distance.comparator=RandomComparator"]
    words += ["--model.likelihood.distance.comparator.channels=[4,4]", "--data=Synthetic", "--data.image_shape=[1,8,8]"]
    words += ["--data.num_train=20", "--data.num_val=10", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    words += ["--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={tmp_path / 'runs'}"]
    assert main(["fit", *words]) == 0
    model = load_model(tmp_path / "runs")
    assert isinstance(model, ConvVAE)
    assert isinstance(model.likelihood, PerceptualLikelihood)
    assert model.likelihood.weight == 50
    assert isinstance(model.likelihood.distance, FeatureDistance)
    assert isinstance(model.likelihood.distance.comparator, RandomComparator)


def test_objectives_that_would_ignore_it_are_refused(tmp_path: Path) -> None:
    model = IWAE(SHAPE, [4], 3, encoder=small, decoder=small, likelihood=perceptual)
    with pytest.raises(ValueError, match="objective of IWAE would ignore the distance of its PerceptualLikelihood"):
        trainer(tmp_path).fit(model, data())


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="weight must be positive, got 0"):
        perceptual(SHAPE, 0.0)
    with pytest.raises(ValueError, match="would add its distance twice"):
        PerceptualLikelihood(SHAPE, perceptual)
