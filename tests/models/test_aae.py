"""Adversarial autoencoder: who is trained by what, and codes that follow the prior."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from lit_gen.data import Arrays
from lit_gen.models import AAE, FusedAdam
from lit_gen.networks import MLP, Shape
from tests.callbacks.tiny import data, trainer

SHAPE: Shape = (1, 8, 8)


def small(input_shape: Shape, output_shape: Shape) -> MLP:
    return MLP(input_shape, output_shape, hidden_dims=[12])


def still(parameters: Any) -> SGD:
    return SGD(parameters, lr=0.0)


def sgd(parameters: Any) -> SGD:
    return SGD(parameters, lr=0.1)


def autoencoder(**arguments: Any) -> AAE:
    torch.manual_seed(1)
    options = {"optimizer": still, "generator_optimizer": still, "discriminator_optimizer": still}
    return AAE(SHAPE, 3, small, small, small, **{**options, **arguments})


def weights(network: nn.Module) -> list[Tensor]:
    return [part.detach().clone() for part in network.parameters()]


@pytest.mark.parametrize(
    ("optimizer", "moved"),
    [
        ("optimizer", {"encoder", "decoder"}),
        ("generator_optimizer", {"encoder"}),
        ("discriminator_optimizer", {"discriminator"}),
    ],
)
def test_each_phase_trains_its_own_networks(optimizer: str, moved: set[str], tmp_path: Path) -> None:
    model = autoencoder(**{optimizer: sgd})
    before = {name: weights(getattr(model, name)) for name in ("encoder", "decoder", "discriminator")}
    run = trainer(tmp_path, limit_train_batches=2, limit_val_batches=0)
    run.fit(model, data())
    assert run.global_step == 2
    after = {name: weights(getattr(model, name)) for name in before}
    changed = {
        name
        for name, old in before.items()
        if any(not torch.equal(ours, theirs) for ours, theirs in zip(after[name], old, strict=True))
    }
    assert changed == moved


def test_gradients_are_those_of_the_three_losses(tmp_path: Path) -> None:
    model = autoencoder(optimizer=sgd)
    images = torch.cat([batch for batch, _ in loaded()])[:60]
    parameters = [*model.encoder.parameters(), *model.decoder.parameters()]
    output = torch.sigmoid(model.decoder(model.encoder(images)))
    loss = 0.5 * (output - images).square().sum((1, 2, 3)).mean()
    expected = [
        part.detach() - 0.1 * slope
        for part, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True)
    ]
    trainer(tmp_path, limit_train_batches=1, limit_val_batches=0).fit(model, data(batch_size=60, seed=3))
    for ours, theirs in zip(parameters, expected, strict=True):
        torch.testing.assert_close(ours.detach(), theirs, rtol=0, atol=1e-5)

    bce, ones, zeros = nn.BCEWithLogitsLoss(reduction="none"), torch.ones(60, 1), torch.zeros(60, 1)
    draws, codes = torch.randn(60, 3), model.code(images)
    wanted = bce(model.discriminator(draws), ones) + bce(model.discriminator(codes), zeros)
    torch.testing.assert_close(model.discriminator_loss(draws, codes, images).loss, wanted[:, 0])
    torch.testing.assert_close(model.generator_loss(codes, images), bce(model.discriminator(codes), ones)[:, 0])


def loaded() -> Any:
    source = data(batch_size=60, seed=3)
    source.prepare_data()
    source.setup("fit")
    return source.train_dataloader()


def wide(input_shape: Shape, output_shape: Shape) -> MLP:
    return MLP(input_shape, output_shape, hidden_dims=[48], activation="leaky_relu")


def fast(parameters: Any) -> FusedAdam:
    return FusedAdam(parameters, lr=2e-3, betas=(0.5, 0.99))


def test_codes_come_to_follow_the_prior(tmp_path: Path) -> None:
    torch.manual_seed(0)
    # Two grey levels, each uniform: codes must be bent to be Gaussian.
    greys = torch.rand(4000, 2, 1, 1)
    images = (greys * 255).round().to(torch.uint8).numpy()
    rates = {"optimizer": fast, "generator_optimizer": fast, "discriminator_optimizer": fast}
    model = AAE((2, 1, 1), 2, wide, wide, wide, **rates)
    source = Arrays(images=images, layout="NCHW", val_size=100, test_size=100, batch_size=200)
    trainer(tmp_path, max_epochs=-1, max_steps=800, limit_val_batches=0).fit(model, source)
    model.eval()
    with torch.no_grad():
        codes = model.code(greys)
        terms = model.discriminator_loss(model.prior.sample(torch.Size([4000])), codes)
    assert codes.mean(0).abs().max().item() < 0.15
    assert codes.std(0).tolist() == pytest.approx([1, 1], rel=0.1)
    accuracy = 0.5 * ((terms.real_logit > 0).float().mean() + (terms.fake_logit < 0).float().mean())
    assert accuracy.item() == pytest.approx(0.5, abs=0.1)
    error = (model.reconstruct(greys) - greys).square().mean()
    assert error.item() < 0.1 * greys.var().item()


def test_parts_of_a_batch_and_evaluation(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.fit(autoencoder(micro_batches=3, discriminator_steps=2, generator_steps=2), data(binarization="none"))
    assert run.global_step == 6
    assert {"val/reconstruction", "val/reconstruction_error", "val/generator_loss"} <= run.callback_metrics.keys()


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="latent_dim must be at least 1, got 0"):
        AAE(SHAPE, 0)
    with pytest.raises(ValueError, match="clip must be positive"):
        autoencoder(clip=0.0)
