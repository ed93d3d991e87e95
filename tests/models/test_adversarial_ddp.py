"""Several optimizers in two processes: the strategy that the command line chooses, and the weights of one process."""

from pathlib import Path

import pytest
import torch

from lit_gen.cli import main
from tests.models.test_rbm_ddp import run

GAN = """fit --model tests.models.deterministic_gan.Written --model.latent_dim 4
--model.generator MLP --model.generator.hidden_dims [16]
--model.discriminator MLP --model.discriminator.hidden_dims [16]
--model.regularizer R1 --model.discriminator_steps 2 --model.micro_batches 2 --model.ema_decay 0.5
--model.generator_optimizer torch.optim.SGD --model.generator_optimizer.lr 1.0
--model.discriminator_optimizer torch.optim.SGD --model.discriminator_optimizer.lr 0.2
"""
PYRAMID = """fit --model tests.models.deterministic_lapgan.Written --model.latent_dim 4 --model.sizes [4,8]
--model.base_generator MLP --model.base_generator.hidden_dims [16]
--model.base_discriminator MLP --model.base_discriminator.hidden_dims [16]
--model.generator.channels [4,4] --model.discriminator.channels 4 --model.discriminator.dropout 0
--model.balance ErrorBalance --model.balance.margin 0.01 --model.ema_decay 0.5
--model.generator_optimizer torch.optim.SGD --model.generator_optimizer.lr 0.5
--model.discriminator_optimizer torch.optim.SGD --model.discriminator_optimizer.lr 0.2
"""
PERCEPTUAL = """fit --model tests.models.deterministic_deepsim.Written --model.latent_dim 4
--model.encoder MLP --model.encoder.hidden_dims [16] --model.encoder.batch_norm false
--model.decoder MLP --model.decoder.hidden_dims [16] --model.decoder.batch_norm false
--model.discriminator MLP --model.discriminator.hidden_dims [16] --model.feature_weight 0 --model.micro_batches 2
--model.balance RatioBalance --model.adversarial_weight 1
--model.generator_optimizer torch.optim.SGD --model.generator_optimizer.lr 0.2
--model.discriminator_optimizer torch.optim.SGD --model.discriminator_optimizer.lr 0.2
"""
SPECTRAL = """fit --model tests.models.deterministic_gan.Written --model.latent_dim 4
--model.generator MLP --model.generator.hidden_dims [16]
--model.discriminator DCGANDiscriminator --model.discriminator.width 4
--model.discriminator.norm none --model.discriminator.spectral_norm true --model.loss Hinge
--model.generator_optimizer torch.optim.SGD --model.generator_optimizer.lr 1.0
--model.discriminator_optimizer torch.optim.SGD --model.discriminator_optimizer.lr 0.2
"""
VAE_GAN = """fit --model tests.models.deterministic_hybrids.WrittenVAEGAN --model.latent_dim 4
--model.encoder MLP --model.encoder.hidden_dims [16] --model.generator MLP --model.generator.hidden_dims [16]
--model.discriminator MLP --model.discriminator.hidden_dims [16] --model.feature_layer null --model.gamma 0.01
--model.distance PixelDistance --model.distance_weight 0.1
--model.balance Equilibrium --model.balance.margin 0.01
--model.encoder_optimizer torch.optim.SGD --model.encoder_optimizer.lr 0.2
--model.generator_optimizer torch.optim.SGD --model.generator_optimizer.lr 0.2
--model.discriminator_optimizer torch.optim.SGD --model.discriminator_optimizer.lr 0.05
"""
AUTOENCODER = """fit --model tests.models.deterministic_hybrids.WrittenAAE --model.latent_dim 4 --model.micro_batches 2
--model.encoder MLP --model.encoder.hidden_dims [16] --model.decoder MLP --model.decoder.hidden_dims [16]
--model.discriminator MLP --model.discriminator.hidden_dims [16]
--model.optimizer torch.optim.SGD --model.optimizer.lr 0.01
--model.generator_optimizer torch.optim.SGD --model.generator_optimizer.lr 0.2
--model.discriminator_optimizer torch.optim.SGD --model.discriminator_optimizer.lr 0.2
"""
DATA = """--data Synthetic --data.image_shape [1,8,8] --data.num_train 80 --data.num_val 10 --data.num_test 20
--data.batch_size 10 --trainer.max_epochs 1 --trainer.accelerator cpu --trainer.enable_progress_bar false
--trainer.enable_model_summary false"""


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        (GAN, ["generator", "discriminator", "average.network"]),
        (PYRAMID, ["generators.0", "discriminators.0", "generators.1", "discriminators.1", "averages.0.network"]),
        (PERCEPTUAL, ["encoder", "decoder", "discriminator"]),
        pytest.param(SPECTRAL, ["generator"], marks=pytest.mark.slow),
        pytest.param(VAE_GAN, ["encoder", "generator", "discriminator"], marks=pytest.mark.slow),
        pytest.param(AUTOENCODER, ["encoder", "decoder", "discriminator"], marks=pytest.mark.slow),
    ],
)
def test_two_processes_take_the_steps_of_one_with_both_their_batches(
    model: str, parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = f"{model} {DATA}"
    run(f"{words} --trainer.devices 2", tmp_path)
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    # Weights start from the same seed, and two batches of 10 hold the images of one of 20.
    assert main([*words.split(), "--data.batch_size", "20", "--trainer.devices", "1"]) == 0
    first, second = (torch.load(tmp_path / f"process{rank}.pt", weights_only=True) for rank in (0, 1))
    one = torch.load(tmp_path / "one" / "process0.pt", weights_only=True)
    for name, value in one["end"].items():
        assert torch.equal(first["end"][name], second["end"][name]), f"{name} differs between processes"
        torch.testing.assert_close(first["end"][name], value, rtol=0, atol=1e-6)
    for part in parts:
        name = f"{part}.layers.0.weight"
        moved = (one["end"][name] - one["start"][name]).abs().mean().item()
        assert moved > 1e-4, f"{name} hardly moved, which would prove little"
