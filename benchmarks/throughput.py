"""Images per second of one training epoch, beside what a user could write or install instead.

    python benchmarks/throughput.py --root data
    python benchmarks/throughput.py --root data --model rbm
    python benchmarks/throughput.py --root data --model variational --images 2000
    python benchmarks/throughput.py --root data --model adversarial --images 2000
    python benchmarks/throughput.py --root data --model diffusion --images 500
    python benchmarks/throughput.py --model draw

The others are explained in ``rbm_speed.py``, ``variational_speed.py``, ``adversarial_speed.py``, ``diffusion_speed.py``
and ``draw_speed.py``, which measures training steps on random images. The first trains an MLP VAE:

One network (784-500-20, tanh, Bernoulli pixels), one batch size (100), one optimizer (Adam), one thread:

- lit_gen: its Trainer as ``lit-gen fit`` sets it up, with CSV logger, checkpoints, its default callbacks and the bar;
- bare: a plain PyTorch loop over one tensor in memory, written to be fast (fused Adam, one fused loss);
- torchvision: lit_gen's module and Trainer fed by torchvision's MNIST and a DataLoader with 0 and with 2 workers;
- pythae (``pip install lit-gen[benchmarks]``): its own trainer with its own defaults.

Contestants take turns, the best of several epochs counts. Also the importance-weighted bound with 200 samples beside
pythae's ``get_nll``, on equal weights.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before torch is imported: threads of other libraries count too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from benchmarks import adversarial_speed, diffusion_speed, draw_speed, rbm_speed, variational_speed
from benchmarks.clock import TrainingTime
from benchmarks.conditions import BATCH, quiet, readable_root, take_turns, without_lightning_settings
from benchmarks.receipts import RESULTS, provenance, write_receipt
from lit_gen.cli import LitGenCLI
from lit_gen.data import MNIST
from lit_gen.models import VAE

HIDDEN, LATENT = 500, 20
TARGETS = {
    "with the bar / bare": 0.85,
    "without the bar / bare": 0.9,
    "with the bar / torchvision": 2.0,
    "with the bar / pythae": 1.5,
    "bound / pythae": 3.0,
}


def lit_gen_epoch(root: str, images: int, bar: bool, workers: int | None = None) -> float:
    """An epoch as ``lit-gen fit`` runs it: logger, checkpoints and the default callbacks.

    Args:
        root: folder that holds MNIST.
        images: images of the epoch.
        bar: with the progress bar.
        workers: None for lit_gen's data; else those of a ``DataLoader`` over torchvision's data set.
    """
    with tempfile.TemporaryDirectory() as folder, quiet():
        words = ["--model=VAE", f"--model.latent_dim={LATENT}", "--data=MNIST", f"--data.root={root}"]
        words += [f"--data.batch_size={BATCH}", "--data.binarization=stochastic", "--data.val_size=0"]
        words += [f"--data.subset={images}", f"--trainer.default_root_dir={folder}", "--trainer.accelerator=cpu"]
        words += ["--trainer.max_epochs=1", "--trainer.limit_val_batches=0", "--trainer.enable_model_summary=false"]
        words += [f"--trainer.enable_progress_bar={bar}", "--trainer.callbacks+=benchmarks.clock.TrainingTime"]
        cli: Any = LitGenCLI(words, run=False)
        if workers is None:
            cli.trainer.fit(cli.model, cli.datamodule)
        else:
            cli.trainer.fit(cli.model, torchvision_loader(root, images, workers))
    return next(callback for callback in cli.trainer.callbacks if isinstance(callback, TrainingTime)).seconds


def bare_epoch(images: Tensor) -> float:
    """The lean loop: images ``(N, 784)`` uint8 in memory, stochastic binarization, summed losses, fused Adam."""
    encoder = nn.Sequential(nn.Linear(784, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 2 * LATENT))
    decoder = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 784))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3, fused=True)
    with without_lightning_settings():
        start = time.perf_counter()
        for indices in torch.randperm(len(images)).split(BATCH):
            grey = images.index_select(0, indices)
            x = torch.rand(grey.shape).lt_(grey / 255)
            mean, log_variance = encoder(x).chunk(2, 1)
            z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
            reconstruction = binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
            kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()
            loss = (reconstruction + kl) / len(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return time.perf_counter() - start


def torchvision_loader(root: str, images: int, workers: int) -> DataLoader:
    """torchvision's own way: a Pillow image and ``ToTensor`` for each item."""
    dataset = datasets.MNIST(root, train=True, transform=transforms.ToTensor())
    return DataLoader(Subset(dataset, range(images)), BATCH, shuffle=True, num_workers=workers)


def pythae_model() -> Any:
    """pythae's VAE with the same layers."""
    from pythae.models import VAE as PythaeVAE
    from pythae.models import VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(784, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 2 * LATENT))

        def forward(self, x: Tensor) -> Any:
            mean, log_variance = self.layers(x.flatten(1)).chunk(2, 1)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 784), nn.Sigmoid())

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.layers(z).unflatten(1, (1, 28, 28)))

    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=LATENT, reconstruction_loss="bce")
    return PythaeVAE(config, Encoder(), Decoder())


def pythae_epoch(images: Tensor) -> float:
    """``train_step`` of pythae's trainer, which is its epoch, with its progress bar; grey images, not binarized."""
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    dataset = BaseDataset(images.unflatten(1, (1, 28, 28)) / 255, torch.zeros(len(images)))
    with tempfile.TemporaryDirectory() as folder, quiet(), without_lightning_settings():
        config = BaseTrainerConfig(folder, per_device_train_batch_size=BATCH, num_epochs=1, learning_rate=1e-3)
        trainer = BaseTrainer(pythae_model(), dataset, training_config=config)
        trainer.prepare_training()
        start = time.perf_counter()
        trainer.train_step(1)
        return time.perf_counter() - start


def bounds(images: Tensor, repeats: int, samples: int = 200) -> dict[str, Any]:
    """Milliseconds per image of the bound here and of ``get_nll``, and both values, with equal weights."""
    ours: Any = VAE((1, 28, 28), LATENT).eval()
    theirs = pythae_model().eval()
    theirs.encoder.layers.load_state_dict(ours.encoder.layers.state_dict())
    theirs.decoder.layers.load_state_dict(ours.decoder.layers.state_dict())
    few = images[: max(1, len(images) // 5)]
    best, values = {"lit_gen": float("inf"), "pythae": float("inf")}, {}
    for _ in range(repeats):
        start = time.perf_counter()
        bound = torch.cat([ours.lower_bound(batch, samples) for batch in images.split(BATCH)])
        best["lit_gen"] = min(best["lit_gen"], (time.perf_counter() - start) / len(images))
        start = time.perf_counter()
        with torch.no_grad():
            values["pythae"] = float(theirs.get_nll(few, n_samples=samples))
        best["pythae"] = min(best["pythae"], (time.perf_counter() - start) / len(few))
        values["lit_gen"] = float(bound[: len(few)].mean())
    return {
        "samples": samples,
        "milliseconds_per_image": {name: 1000 * seconds for name, seconds in best.items()},
        "images": {"lit_gen": len(images), "pythae": len(few)},
        "nats_on_the_same_images": values,
    }


def measure(root: str, images: int, repeats: int) -> dict[str, Any]:
    """All contestants in turn; the best time of each."""
    data: Any = MNIST(root, val_size=0)
    pixels = data.load("train").images[:images].flatten(1)
    contestants: dict[str, Callable[[], float]] = {
        "lit_gen with the bar": lambda: lit_gen_epoch(root, images, bar=True),
        "bare": lambda: bare_epoch(pixels),
        "lit_gen without the bar": lambda: lit_gen_epoch(root, images, bar=False),
        "pythae": lambda: pythae_epoch(pixels),
        "torchvision, 0 workers": lambda: lit_gen_epoch(root, images, bar=True, workers=0),
        "torchvision, 2 workers": lambda: lit_gen_epoch(root, images, bar=True, workers=2),
    }
    speed, seconds = take_turns(contestants, dict.fromkeys(contestants, images), repeats)
    speed["torchvision"] = max(value for name, value in speed.items() if name.startswith("torchvision"))
    test = data.load("test").images[: 2 * BATCH].float() / 255
    bound = bounds((test > 0.5).float(), repeats)
    times = bound["milliseconds_per_image"]
    ratios = {
        f"{ours} / {other}": speed[f"lit_gen {ours}"] / speed[other]
        for ours in ("with the bar", "without the bar")
        for other in ("bare", "torchvision", "pythae")
    } | {"bound / pythae": times["pythae"] / times["lit_gen"]}
    return {"images_per_second": speed, "seconds_of_each_epoch": seconds, "bound": bound, "ratios": ratios}


def draw_steps(root: str, images: int, repeats: int) -> dict[str, Any]:
    """Training steps of DRAW on random pixels, which change nothing in its speed."""
    return draw_speed.measure(repeats, batch_size=images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="folder that holds MNIST in torchvision's layout")
    models = ["vae", "rbm", "variational", "adversarial", "diffusion", "draw"]
    parser.add_argument("--model", choices=models, default="vae", help="what is trained")
    parser.add_argument("--images", type=int, default=60_000, help="images of an epoch")
    parser.add_argument("--repeats", type=int, default=4, help="epochs of each contestant, of which the best counts")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="the receipt")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")  # advice on loaders and loggers, which are as they are on purpose
    output = options.output or RESULTS / f"throughput{'' if options.model == 'vae' else f'-{options.model}'}.json"
    others = {
        "rbm": ["scikit-learn", "learnergy", "rbms"],
        "adversarial": ["torch-mimicry"] if adversarial_speed.is_installed("torch_mimicry") else [],
        "diffusion": ["diffusers"],
        "draw": [],
    }
    conditions = provenance(others.get(options.model, ["pythae"]))
    network, targets, run = {
        "vae": (f"VAE 784-{HIDDEN}-{LATENT}, tanh, Bernoulli pixels", TARGETS, measure),
        "rbm": (f"RBM 784-{rbm_speed.HIDDEN}, CD-1, static binarization", rbm_speed.TARGETS, rbm_speed.measure),
        "variational": ("convolutional VAE, IWAE-50", variational_speed.TARGETS, variational_speed.measure),
        "adversarial": ("DCGAN, 64 to 256 channels", adversarial_speed.TARGETS, adversarial_speed.measure),
        "diffusion": ("U-Net of 1.6 million parameters", diffusion_speed.TARGETS, diffusion_speed.measure),
        "draw": ("DRAW with attention, Bernoulli pixels", draw_speed.TARGETS, draw_steps),
    }[options.model]
    with tempfile.TemporaryDirectory() as folder:
        if options.model == "draw":
            root, data, options.images = Path(), "random binary pixels", BATCH
        else:
            root, data = readable_root(Path(options.root), Path(folder), options.images)
        result = run(str(root), options.images, options.repeats)
    for name, ratio in result["ratios"].items():
        target = f"   (target {targets[name]})" if name in targets else ""
        print(f"{name:<32} {ratio:6.2f}{target}")
    settings = {"network": network, "batch_size": BATCH, "images": options.images, "repeats": options.repeats}
    write_receipt(output, {**settings, "data": data, **result, "targets": targets, "provenance": conditions})
    print(f"receipt: {output}")


if __name__ == "__main__":
    main()
