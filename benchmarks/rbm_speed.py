"""Images per second of one epoch of CD-1 on an RBM with 500 hidden units, beside other libraries on equal images.

One machine (784-500), one batch size (100), the same statically binarized images, SGD, one thread:

- lit_gen: its Trainer as ``lit-gen fit`` sets it up, with CSV logger and default callbacks, from the first to the last
  batch (the pictures at the end of an epoch are drawn by a thousand Gibbs steps, which are no training);
- loop: a plain PyTorch loop with gradients written by hand, momentum and weight decay;
- products: nothing but the five matrix products that a step cannot do without, the limit of the machine;
- scikit-learn: ``BernoulliRBM.partial_fit`` in float32 (persistent chains, its only choice; as many products);
- learnergy: its ``fit`` (which also estimates the pseudo-likelihood of each batch);
- rbms: its ``fit_batch_pcd`` in mode "cd" with its centred gradient, in the loop of its ``train`` without the files
  that this writes in every step.

The last three want ``pip install lit-gen[benchmarks]``.
"""

import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.clock import BatchTime
from benchmarks.conditions import BATCH, quiet, take_turns, without_lightning_settings
from lit_gen.cli import LitGenCLI

HIDDEN, RATE = 500, 0.05
TARGETS = {
    "lit_gen / scikit-learn": 1.0,
    "lit_gen / learnergy": 1.0,
    "lit_gen / rbms": 1.0,
    "lit_gen / products": 0.8,
}


def lit_gen_epoch(root: str, images: int) -> tuple[float, Tensor]:
    """Seconds of an epoch as ``lit-gen fit`` runs it, without the bar, and the binary images ``(N, 784)`` it saw."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        words = ["--model=RBM", f"--model.num_hidden={HIDDEN}", "--data=MNIST", f"--data.root={root}"]
        words += [f"--data.batch_size={BATCH}", "--data.binarization=static", "--data.val_size=0"]
        words += [f"--data.subset={images}", f"--trainer.default_root_dir={folder}", "--trainer.accelerator=cpu"]
        words += ["--trainer.max_epochs=1", "--trainer.limit_val_batches=0", "--trainer.enable_model_summary=false"]
        words += ["--trainer.enable_progress_bar=false", "--trainer.callbacks+=benchmarks.clock.BatchTime"]
        cli: Any = LitGenCLI(words, run=False)
        cli.trainer.fit(cli.model, cli.datamodule)
        seen = torch.cat([batch for batch, _ in cli.datamodule.train_dataloader()]).flatten(1)
    clock = next(callback for callback in cli.trainer.callbacks if isinstance(callback, BatchTime))
    return clock.seconds, seen


def loop_epoch(images: Tensor) -> float:
    """The lean loop over binary images ``(N, 784)``."""
    weight, visible_bias, hidden_bias = 0.01 * torch.randn(784, HIDDEN), torch.zeros(784), torch.zeros(HIDDEN)
    parameters = (weight, visible_bias, hidden_bias)
    velocities = [torch.zeros_like(parameter) for parameter in parameters]
    with torch.no_grad():
        start = time.perf_counter()
        for indices in torch.randperm(len(images)).split(BATCH):
            data = images.index_select(0, indices)
            hidden_data = torch.addmm(hidden_bias, data, weight).sigmoid_()
            hidden = (torch.rand_like(hidden_data) < hidden_data).float()
            mean = torch.addmm(visible_bias, hidden, weight.T).sigmoid_()
            model = (torch.rand_like(mean) < mean).float()
            hidden_model = torch.addmm(hidden_bias, model, weight).sigmoid_()
            gradient = (data.T @ hidden_data).addmm_(model.T, hidden_model, alpha=-1)
            changes = (gradient, (data - model).sum(0), (hidden_data - hidden_model).sum(0))
            for parameter, velocity, change in zip(parameters, velocities, changes, strict=True):
                velocity.mul_(0.5).add_(change, alpha=1 / len(data))
                if parameter is weight:
                    velocity.add_(weight, alpha=-2e-4)
                parameter.add_(velocity, alpha=RATE)
        return time.perf_counter() - start


def products_epoch(images: Tensor) -> float:
    """The five matrix products of every step, and nothing else."""
    weight, data = torch.randn(784, HIDDEN), images[:BATCH].clone()
    hidden, gradient = torch.rand(BATCH, HIDDEN).round(), torch.empty(784, HIDDEN)
    above, below = torch.empty(BATCH, HIDDEN), torch.empty(BATCH, 784)
    with torch.no_grad():
        start = time.perf_counter()
        for _ in range(-(-len(images) // BATCH)):
            torch.mm(data, weight, out=above)
            torch.mm(hidden, weight.T, out=below)
            torch.mm(data, weight, out=above)
            torch.mm(data.T, hidden, out=gradient)
            gradient.addmm_(data.T, hidden, alpha=-1)
        return time.perf_counter() - start


def sklearn_epoch(images: Tensor) -> float:
    """``partial_fit`` of every batch."""
    from sklearn.neural_network import BernoulliRBM

    machine, pixels = BernoulliRBM(HIDDEN, learning_rate=RATE, batch_size=BATCH), images.numpy()
    machine.partial_fit(pixels[:BATCH])
    start = time.perf_counter()
    for begin in range(0, len(pixels), BATCH):
        machine.partial_fit(pixels[begin : begin + BATCH])
    return time.perf_counter() - start


def learnergy_epoch(images: Tensor) -> float:
    """Its own ``fit``."""
    from learnergy.models.bernoulli import RBM

    data = torch.utils.data.TensorDataset(images, torch.zeros(len(images)))
    machine = RBM(784, HIDDEN, steps=1, learning_rate=RATE, momentum=0.5, decay=2e-4)
    with quiet(), without_lightning_settings():
        start = time.perf_counter()
        machine.fit(data, batch_size=BATCH, epochs=1)
        return time.perf_counter() - start


def rbms_epoch(images: Tensor) -> float:
    """The loop of its ``train`` in mode "cd"."""
    from rbms.bernoulli_bernoulli.classes import BBRBM
    from rbms.training.pcd import fit_batch_pcd

    machine = BBRBM(0.01 * torch.randn(784, HIDDEN), torch.zeros(784), torch.zeros(HIDDEN))
    machine.init_grad()
    weights = torch.ones(len(images), 1)
    with torch.no_grad(), without_lightning_settings():
        optimizer = torch.optim.SGD(machine.parameters(), lr=RATE, maximize=True)
        start = time.perf_counter()
        for indices in torch.randperm(len(images)).split(BATCH):
            batch = (images[indices], weights[indices])
            chains = machine.init_chains(len(indices), weights=batch[1], start_v=batch[0])
            optimizer.zero_grad(set_to_none=False)
            fit_batch_pcd(batch, chains, machine, gibbs_steps=1, beta=1.0)
            optimizer.step()
        return time.perf_counter() - start


def measure(root: str, images: int, repeats: int) -> dict[str, Any]:
    """All contestants in turn; the best time of each."""
    warnings.filterwarnings("ignore")
    _, binary = lit_gen_epoch(root, images)
    contestants: dict[str, Callable[[], float]] = {
        "lit_gen": lambda: lit_gen_epoch(root, images)[0],
        "loop": lambda: loop_epoch(binary),
        "products": lambda: products_epoch(binary),
        "scikit-learn": lambda: sklearn_epoch(binary),
        "learnergy": lambda: learnergy_epoch(binary),
        "rbms": lambda: rbms_epoch(binary),
    }
    speed, seconds = take_turns(contestants, dict.fromkeys(contestants, images), repeats)
    ratios = {f"lit_gen / {name}": speed["lit_gen"] / speed[name] for name in contestants if name != "lit_gen"}
    return {"images_per_second": speed, "seconds_of_each_epoch": seconds, "ratios": ratios}
