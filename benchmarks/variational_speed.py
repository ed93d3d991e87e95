"""Variational models beside pythae (``pip install lit-gen[benchmarks]``): the same networks, images and batches.

- conv: a convolutional VAE (the layers of ``ConvEncoder`` and ``ConvDecoder``, 20 latents);
- iwae: an IWAE of 50 samples (784-200-200-50, tanh);
- bound: the importance-weighted bound with 5,000 samples of that IWAE's networks, beside ``get_nll``.

lit_gen trains as ``lit-gen fit`` does, with its bar, loggers and default callbacks, pythae by the ``train_step`` of
its own trainer with its bar. lit_gen trains under ``bf16-mixed`` too, which pythae has on CUDA alone; what that is
worth on a CPU depends on the CPU. pythae takes grey images, lit_gen binarizes them anew in every batch. Contestants
take turns, and the best of several epochs counts, in seconds of the processor: one thread, whatever else the machine
does.
"""

import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from benchmarks.clock import ProcessorTime
from benchmarks.conditions import BATCH, lit_gen_epoch, quiet, take_turns, without_lightning_settings
from lit_gen.data import MNIST
from lit_gen.models import IWAE
from lit_gen.networks import ConvDecoder, ConvEncoder, GlorotMLP

SHAPE, LATENT, SAMPLES, BOUND_SAMPLES = (1, 28, 28), {"conv": 20, "iwae": 50}, 50, 5000
TARGETS = {"conv / pythae": 1.5, "iwae / pythae": 1.5, "bound / pythae": 3.0}
TARGETS |= {"conv in bf16 / pythae": 1.5, "iwae in bf16 / pythae": 1.5}
NETWORKS = {"conv": (ConvEncoder, ConvDecoder), "iwae": (GlorotMLP, GlorotMLP)}
WORDS = {
    "conv": ["--model=VAE", "--model.latent_dim=20", "--model.encoder=ConvEncoder", "--model.decoder=ConvDecoder"],
    "iwae": ["--model=IWAE", "--model.latent_dims=[50]", f"--model.num_samples={SAMPLES}"],
}


def pythae_model(kind: str) -> Any:
    """pythae's VAE or IWAE around the same networks."""
    from pythae.models import IWAE as PythaeIWAE
    from pythae.models import VAE as PythaeVAE
    from pythae.models import IWAEConfig, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    make_encoder, make_decoder = NETWORKS[kind]

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = make_encoder(SHAPE, (2 * LATENT[kind],))

        def forward(self, x: Tensor) -> Any:
            mean, log_variance = self.network(x).chunk(2, 1)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Sequential(make_decoder((LATENT[kind],), SHAPE), nn.Sigmoid())

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.network(z))

    options: dict[str, Any] = {"input_dim": SHAPE, "latent_dim": LATENT[kind], "reconstruction_loss": "bce"}
    if kind == "conv":
        return PythaeVAE(VAEConfig(**options), Encoder(), Decoder())
    return PythaeIWAE(IWAEConfig(**options, number_samples=SAMPLES), Encoder(), Decoder())


def pythae_epoch(kind: str, images: Tensor) -> float:
    """``train_step`` of pythae's trainer, which is its epoch."""
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    dataset = BaseDataset(images, torch.zeros(len(images)))
    with tempfile.TemporaryDirectory() as folder, quiet(), without_lightning_settings():
        config = BaseTrainerConfig(folder, per_device_train_batch_size=BATCH, num_epochs=1, learning_rate=1e-3)
        trainer = BaseTrainer(pythae_model(kind), dataset, training_config=config)
        trainer.prepare_training()
        with ProcessorTime() as clock:
            trainer.train_step(1)
    return clock.seconds


class Bound:
    """The bound of both on the same images, with equal weights.

    The last layers of both networks are made small: the posterior then is near the prior, but not equal to it, pixels
    depend on z a little, and the estimates of both sides vary by hundredths of a nat, where a term that is left out or
    scaled otherwise makes a difference of half a nat or more.

    Args:
        images: ``(N, 1, 28, 28)``, binary.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.ours, self.theirs = IWAE(SHAPE, [LATENT["iwae"]], SAMPLES).eval(), pythae_model("iwae").eval()
        with torch.no_grad():
            for network, scale in ((self.ours.encoder, 0.2), (self.ours.decoder, 0.1)):
                assert isinstance(network, GlorotMLP)
                network.layers[-1].weight *= scale
        self.theirs.encoder.network.load_state_dict(self.ours.encoder.state_dict())
        self.theirs.decoder.network[0].load_state_dict(self.ours.decoder.state_dict())
        with torch.no_grad():
            # lit_gen's gives the log standard deviation, pythae's the log-variance.
            last = self.theirs.encoder.network.layers[-1]
            last.weight[LATENT["iwae"] :] *= 2
            last.bias[LATENT["iwae"] :] *= 2

    def lit_gen(self, samples: int = BOUND_SAMPLES) -> float:
        """Seconds."""
        with ProcessorTime() as clock:
            self.ours_found = self.ours.lower_bound(self.images, samples)
        return clock.seconds

    def pythae(self, samples: int = BOUND_SAMPLES) -> float:
        """Seconds."""
        with ProcessorTime() as clock, torch.no_grad():
            self.theirs_found = float(self.theirs.get_nll(self.images, n_samples=samples))
        return clock.seconds

    def agreement(self, samples: int = BOUND_SAMPLES) -> dict[str, float]:
        """Mean nats of both on the images, after each has had its turn, and how far apart chance may take them.

        The standard error of the difference comes from a second estimate of lit_gen's; ``kl`` are the nats that a bound
        without the posterior would be off by, about.

        Raises:
            RuntimeError: the two differ by more than four standard errors: they do not measure the same.
        """
        again = self.ours.lower_bound(self.images, samples)
        error = float((again - self.ours_found).std()) / len(again) ** 0.5
        ours = float(self.ours_found.mean())
        if abs(ours - self.theirs_found) > 4 * error:
            raise RuntimeError(
                f"the bounds differ: {ours:.3f} nats here, {self.theirs_found:.3f} in pythae, standard error"
                f" {error:.3f}"
            )
        with torch.no_grad():
            kl = float(kl_divergence(self.ours.encode(self.images), self.ours.prior).mean())
        return {"lit_gen": ours, "pythae": self.theirs_found, "standard_error_of_difference": error, "kl": kl}


def measure(root: str, images: int, repeats: int) -> dict[str, Any]:
    """All contestants in turn; the best time of each."""
    data: Any = MNIST(root, val_size=0)
    grey = data.load("train").images[:images] / 255
    bound = Bound((data.load("test").images[: max(50, images // 200)] > 127).float())

    def epoch(kind: str, precision: str = "32-true") -> float:
        words = [*WORDS[kind], "--data.binarization=stochastic", f"--trainer.precision={precision}"]
        return lit_gen_epoch(words, root, images)

    contestants: dict[str, Callable[[], float]] = {
        "conv, lit_gen": lambda: epoch("conv"),
        "conv in bf16, lit_gen": lambda: epoch("conv", "bf16-mixed"),
        "conv, pythae": lambda: pythae_epoch("conv", grey),
        "iwae, lit_gen": lambda: epoch("iwae"),
        "iwae in bf16, lit_gen": lambda: epoch("iwae", "bf16-mixed"),
        "iwae, pythae": lambda: pythae_epoch("iwae", grey),
        "bound, lit_gen": bound.lit_gen,
        "bound, pythae": bound.pythae,
    }
    counts = {name: len(bound.images) if "bound" in name else images for name in contestants}
    speed, seconds = take_turns(contestants, counts, repeats)
    ratios = {f"{part} / pythae": speed[f"{part}, lit_gen"] / speed[f"{part}, pythae"] for part in (*NETWORKS, "bound")}
    for part in NETWORKS:
        ratios[f"{part} in bf16 / pythae"] = speed[f"{part} in bf16, lit_gen"] / speed[f"{part}, pythae"]
    facts = {"samples": BOUND_SAMPLES, "images": len(bound.images), "nats_on_the_same_images": bound.agreement()}
    return {"images_per_second": speed, "seconds_of_each_epoch": seconds, "bound": facts, "ratios": ratios}
