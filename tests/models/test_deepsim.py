"""DeePSiM: its terms and weights, which network gets which gradient, who is paused, and resuming."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adam

from lit_gen.models import DeePSiM, DeePSiMInversion, FeatureDistance, PixelDistance, RatioBalance, load_model
from lit_gen.models.deepsim import published_weights
from lit_gen.networks import (
    ConvDecoder,
    ConvEncoder,
    DCGANDiscriminator,
    ExemplarComparator,
    RandomComparator,
    Shape,
)
from lit_gen.objectives import DiscriminatorTerms
from tests.callbacks.tiny import data, trainer
from tests.resume import assert_exact_resume

SHAPE: Shape = (1, 8, 8)


def encoder(input_shape: Shape, output_shape: Shape) -> ConvEncoder:
    return ConvEncoder(input_shape, output_shape, channels=(4, 8))


def decoder(input_shape: Shape, output_shape: Shape) -> ConvDecoder:
    return ConvDecoder(input_shape, output_shape, channels=(8, 4))


def discriminator(input_shape: Shape, output_shape: Shape) -> DCGANDiscriminator:
    return DCGANDiscriminator(input_shape, output_shape, width=4, norm="none")


def features(shape: Shape) -> FeatureDistance:
    return FeatureDistance(shape, lambda shape: RandomComparator(shape, [4, 6]))


def exemplar_features(shape: Shape) -> FeatureDistance:
    return FeatureDistance(shape, lambda s: ExemplarComparator(s, [4], 6, exemplars=20, steps=4, batch_size=8))


def sgd(parameters: Any) -> SGD:
    return SGD(parameters, lr=0.05)


def deepsim(**arguments: Any) -> DeePSiM:
    torch.manual_seed(1)
    options: dict[str, Any] = {
        "latent_dim": 4,
        "encoder": encoder,
        "decoder": decoder,
        "feature_distance": features,
        "discriminator": discriminator,
        "generator_optimizer": sgd,
        "discriminator_optimizer": sgd,
    }
    return DeePSiM(SHAPE, **{**options, **arguments})


COLUMNS = {
    "img": {"feature_weight": 0.0, "adversarial_weight": 0.0},
    "img + adv": {"feature_weight": 0.0},
    "img + feat": {"adversarial_weight": 0.0},
    "all": {},
}


# ---- the loss


def test_what_compares_is_zero_for_equal_images_and_the_rest_is_log_d() -> None:
    model, images = deepsim(adversarial_weight=0.3), torch.rand(5, *SHAPE)
    terms = model.terms(images, images)
    assert terms["pixel_loss"].abs().max() == terms["feature_loss"].abs().max() == 0
    torch.testing.assert_close(terms["adversarial_loss"], -0.3 * torch.log(torch.sigmoid(model.logits(images))))


@pytest.mark.parametrize("name", ["pixel", "feature", "adversarial"])
def test_a_term_is_proportional_to_its_weight(name: str) -> None:
    images, fakes = torch.rand(2, 5, *SHAPE)
    one, other = (deepsim(**{f"{name}_weight": weight}).terms(fakes, images) for weight in (0.5, 2.0))
    torch.testing.assert_close(4 * one[f"{name}_loss"], other[f"{name}_loss"])
    for rest in one.keys() - {f"{name}_loss"}:
        assert torch.equal(one[rest], other[rest])
    torch.testing.assert_close(
        deepsim().generator_loss(fakes, images), torch.stack([*deepsim().terms(fakes, images).values()]).sum(0)
    )


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_has_its_terms_and_their_networks_alone(column: str) -> None:
    model = deepsim(**COLUMNS[column])
    parts = {"pixel": "img", "feature": "feat", "adversarial": "adv"}
    expected = {f"{name}_loss" for name, word in parts.items() if word in column or column == "all"}
    assert model.terms(*torch.rand(2, 3, *SHAPE)).keys() == expected
    assert (model.discriminator is not None) == ("adversarial_loss" in expected) == ("discriminator" in model.players())
    assert (model.feature_distance is not None) == ("feature_loss" in expected)


def test_published_weights_follow_the_range_of_pixels() -> None:
    assert published_weights(255) == (2e-6, 0.01, 100.0)
    assert published_weights(2).pixel / published_weights(255).pixel == pytest.approx(127.5**2)
    images, others = torch.rand(2, 4, *SHAPE)
    caffe = 2e-6 * 0.5 * (255 * images - 255 * others).square().flatten(1).sum(1)
    ours = published_weights().pixel * PixelDistance(SHAPE, normalize=False)(images, others)
    torch.testing.assert_close(ours, caffe)


def test_an_image_must_be_held_to_something() -> None:
    with pytest.raises(ValueError, match="pixel_weight and feature_weight are both 0"):
        deepsim(pixel_weight=0.0, feature_weight=0.0)
    with pytest.raises(ValueError, match="weights must not be negative"):
        deepsim(pixel_weight=-1.0)


# ---- which network gets which gradient


def direction(model: DeePSiM, images: Tensor, name: str) -> Tensor:
    """Gradient in the decoder and encoder of one term."""
    loss = model.terms(model.fakes(images), images)[name].mean()
    parts = torch.autograd.grad(loss, [weight for part in model.generator_parts() for weight in part.parameters()])
    return torch.cat([part.flatten() for part in parts])


def test_each_player_moves_along_its_own_loss(tmp_path: Path) -> None:
    model = deepsim(balance=None, discriminator=encoder, adversarial_weight=3.0)
    source = data(batch_size=60, binarization="none")
    images = next(iter(source.train_dataloader()))[0]
    for distance in (model.pixel_distance, model.feature_distance):
        assert distance is not None
        distance.start(lambda count: images)
    before = {name: value.clone() for name, value in model.named_parameters()}
    model.discriminator_loss(images, model.fakes(images).detach()).loss.mean().backward()
    expected = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    assert all(name.startswith("discriminator.") for name in expected)
    trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(model, source)
    moved = {name: (before[name] - value) / 0.05 for name, value in model.named_parameters()}
    for name, gradient in expected.items():
        torch.testing.assert_close(moved[name], gradient, rtol=1e-3, atol=1e-5)
    assert not any(value.any() for name, value in moved.items() if "comparator" in name)
    # Encoder and decoder went along all three terms, against the discriminator that has just moved.
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.startswith(("encoder.", "decoder.")):
                value.copy_(before[name])
    ours = torch.cat([moved[name].flatten() for name in moved if name.startswith(("encoder.", "decoder."))])
    terms = [direction(model, images, name) for name in ("pixel_loss", "feature_loss", "adversarial_loss")]
    torch.testing.assert_close(ours, torch.stack(terms).sum(0), rtol=1e-3, atol=1e-5)
    assert all(term.abs().max() > 1e-3 for term in terms)


class Told(DeePSiM):
    """A discriminator that is right by a margin, or wrong by it, where the rule looks and where losses are made."""

    margin = 0.0

    def discriminator_loss(self, images: Tensor, fakes: Tensor, condition: Any = None) -> DiscriminatorTerms:
        real, fake = self.logits(images) + self.margin, self.logits(fakes) - self.margin
        return DiscriminatorTerms(self.loss.real(real) + self.loss.fake(fake), real, fake)


@pytest.mark.parametrize(("margin", "moves"), [(0.0, (True, True)), (6.0, (False, True)), (-8.0, (True, False))])
def test_the_rule_pauses_the_side_that_wins(margin: float, moves: tuple[bool, bool], tmp_path: Path) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"generator_optimizer": sgd, "discriminator_optimizer": sgd}
    model = Told(SHAPE, 4, encoder, decoder, feature_distance=features, discriminator=discriminator, **options)
    model.margin = margin
    before = {name: value.clone() for name, value in model.named_parameters()}
    trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(model, data(batch_size=60))
    changed = [
        any(not torch.equal(value, before[name]) for name, value in model.named_parameters() if name.startswith(part))
        for part in ("discriminator.", "encoder.")
    ]
    assert tuple(changed) == moves


# ---- training


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_learns(column: str, tmp_path: Path) -> None:
    model = deepsim(**COLUMNS[column])
    run = trainer(tmp_path, max_epochs=3)
    run.fit(model, data(binarization="none"))
    values = run.callback_metrics
    assert values["val/pixel_error"].isfinite()
    assert 0 < values["val/shift_tolerant_error"] <= values["val/unshifted_error"]
    assert ("val/real_logit" in values) == (model.discriminator is not None)


def test_the_comparator_learns_before_the_first_batch_and_never_after(tmp_path: Path) -> None:
    model = deepsim(feature_distance=exemplar_features)
    seen: list[Tensor] = []
    trainer(tmp_path, max_epochs=1).fit(model, data())
    assert model.feature_distance is not None
    seen.append(torch.cat([value.flatten() for value in model.feature_distance.parameters()]))
    trainer(tmp_path, max_epochs=2).fit(model, data())
    seen.append(torch.cat([value.flatten() for value in model.feature_distance.parameters()]))
    fresh = torch.cat([value.flatten() for value in exemplar_features(SHAPE).parameters()])
    assert torch.equal(*seen)
    assert not torch.equal(seen[0], fresh)


def test_a_run_with_a_comparator_that_learns_resumes_exactly(tmp_path: Path) -> None:
    def make() -> DeePSiM:
        return DeePSiM(SHAPE, 4, encoder, decoder, feature_distance=exemplar_features, discriminator=discriminator)

    assert_exact_resume(make, data, tmp_path)


def test_a_checkpoint_has_the_comparator_and_who_is_paused(tmp_path: Path) -> None:
    model = deepsim(feature_distance=exemplar_features)
    run = trainer(tmp_path)
    run.fit(model, data())
    assert isinstance(model.balance, RatioBalance)
    model.balance.training_now.copy_(torch.tensor([False, True]))
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = load_model(tmp_path / "model.ckpt")
    assert isinstance(loaded, DeePSiM)
    images, others = torch.rand(2, 3, *SHAPE)
    for name, value in model.compare(images, others).items():
        assert torch.equal(loaded.compare(images, others)[name], value)
    assert isinstance(loaded.balance, RatioBalance)
    assert loaded.balance.training_now.tolist() == [False, True]


def test_samples_have_the_moments_of_the_codes(tmp_path: Path) -> None:
    model = deepsim(generator_optimizer=lambda parameters: SGD(parameters, lr=0.0), adversarial_weight=0.0)
    source = data(binarization="none", num_train=200, batch_size=50)
    trainer(tmp_path, max_epochs=30, limit_val_batches=0).fit(model, source)
    codes = model.code(torch.cat([images for images, _ in source.train_dataloader()])).detach()
    drawn = model.prior.sample(torch.Size([20_000]))
    scale = codes.std()
    torch.testing.assert_close(drawn.mean(0), codes.mean(0), rtol=0, atol=0.05 * float(scale))
    torch.testing.assert_close(drawn.T.cov(), codes.T.cov(correction=0), rtol=0.1, atol=0.1 * float(scale**2))


# ---- inversion


def inversion(layer: int, **arguments: Any) -> DeePSiMInversion:
    torch.manual_seed(2)
    return DeePSiMInversion(
        SHAPE, lambda s: ExemplarComparator(s, [4, 6], 3, exemplars=20, steps=20, batch_size=16), layer, decoder,
        feature_weight=0, adversarial_weight=0, **arguments,
    )  # fmt: skip


def test_the_decoder_learns_and_the_inverted_network_does_not(tmp_path: Path) -> None:
    def adam(parameters: Any) -> Adam:
        return Adam(parameters, lr=0.01)

    errors = []
    for layer in (0, 1, 2):
        model = inversion(layer, generator_optimizer=adam)
        assert model.latent_shape == ((4 * 4 * 4,), (6 * 2 * 2,), (3,))[layer]
        run = trainer(tmp_path, max_epochs=25, check_val_every_n_epoch=25)
        run.fit(model, data(binarization="none", num_train=200, batch_size=50))
        errors.append(float(run.callback_metrics["val/pixel_error"]))
        taught = {name: value.clone() for name, value in model.inverted.state_dict().items()}
        trainer(tmp_path, max_epochs=1).fit(model, data())
        assert all(torch.equal(value, taught[name]) for name, value in model.inverted.state_dict().items())
    assert errors[0] < errors[1] < errors[2], "the deeper the layer, the less comes back"


def test_an_inversion_brings_its_network_along(tmp_path: Path) -> None:
    model, run = inversion(1), trainer(tmp_path)
    run.fit(model, data())
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded, images = load_model(tmp_path / "model.ckpt"), torch.rand(3, *SHAPE)
    assert isinstance(loaded, DeePSiMInversion)
    torch.testing.assert_close(loaded.reconstruct(images), model.eval().reconstruct(images))
    with pytest.raises(ValueError, match="layer must be a number from -3 to 2, which ExemplarComparator has; got 3"):
        inversion(3)
