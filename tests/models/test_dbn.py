"""The deep belief net against enumeration, and its stages."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from lit_gen.data import Digits, Synthetic
from lit_gen.inference import binary_states
from lit_gen.models import DBN, ContrastiveDivergence, PersistentContrastiveDivergence, load_model
from lit_gen.models.dbn import turn_over
from lit_gen.models.schedules import GrowingSteps
from lit_gen.networks import GaussianVisible
from tests.movements import Movements
from tests.resume import assert_exact_resume

SHAPE = (1, 2, 3)


def toy(hidden_dims: tuple[int, ...] = (4, 3), **arguments: Any) -> DBN:
    """Six pixels and a few hidden units, every parameter of size one, in float64; with recognition weights, untied."""
    torch.manual_seed(1)
    model = DBN(SHAPE, hidden_dims, **arguments).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    model.untied.fill_(bool(model.recognition_weights))
    return model


def gauged(**arguments: Any) -> DBN:
    """A second layer that is the first one turned over."""
    model = toy((4, 8), **arguments)
    with torch.no_grad():
        model.machines[1].weight[:, 6:] = 0.0
        model.machines[1].hidden_bias[6:] = 0.0
    turn_over(*model.machines)
    return model


def log_bernoulli(units: Tensor, logits: Tensor) -> Tensor:
    """From scratch: sum of x log sigma + (1 - x) log(1 - sigma)."""
    probabilities = torch.sigmoid(logits)
    return torch.log(torch.where(units == 1, probabilities, 1 - probabilities)).sum(-1)


def states(model: DBN) -> list[Tensor]:
    """Every joint state of the pixels and of the layers up to the visible units of the top machine."""
    sizes = [layer.visible.num_units for layer in model.machines]
    return list(binary_states(sum(sizes)).split(sizes, 1))


def log_joint(model: DBN) -> Tensor:
    """log p of :func:`states`, the hidden units of the top machine summed out one state at a time."""
    layers, (*directed, top) = states(model), model.machines
    own = binary_states(layers[-1].shape[1])
    hidden = binary_states(top.num_hidden)
    bias = top.visible.get_parameter("bias")
    table = own @ top.weight @ hidden.T + (own @ bias)[:, None] + (hidden @ top.hidden_bias)[None]
    marginal = torch.logsumexp(table, 1) - torch.logsumexp(table, (0, 1))
    total = marginal.repeat(len(layers[0]) // len(own))  # the last layer counts fastest
    for layer, (below, above) in zip(directed, pairwise(layers), strict=True):
        total = total + log_bernoulli(below, layer.visible.get_parameter("bias") + above @ layer.weight.T)
    return total


def log_posterior(model: DBN) -> Tensor:
    """log q(h given v) of :func:`states`."""
    total = torch.zeros(len(states(model)[0]), dtype=torch.float64)
    weights = model.recognition_weights or [layer.weight for layer in model.machines[:-1]]
    for layer, weight, (below, above) in zip(model.machines, weights, pairwise(states(model)), strict=False):
        total = total + log_bernoulli(above, below @ weight + layer.hidden_bias)
    return total


def exact_bound(model: DBN) -> tuple[Tensor, Tensor]:
    """log p(v) and its bound for each of the 64 images, ``(64,)`` each."""
    joint, posterior = log_joint(model).view(64, -1), log_posterior(model).view(64, -1)
    return torch.logsumexp(joint, 1), (posterior.exp() * (joint - posterior)).sum(1)


def all_images() -> Tensor:
    return binary_states(6).unflatten(1, SHAPE)


MACHINES = [toy, lambda: toy((4, 3, 2)), lambda: toy((4, 3, 2), finetuning_epochs=1)]


# ---- the distribution and its bound


@pytest.mark.parametrize("make", MACHINES)
def test_probabilities_of_all_images_sum_to_one(make: Any) -> None:
    model = make()
    ours = -model.top.free_energy(states(model)[-1]) - model.wake_loss(states(model)) - model.exact_log_partition()
    assert torch.logsumexp(ours, 0).item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(ours, log_joint(model), rtol=0, atol=1e-12)
    torch.testing.assert_close(-model.sleep_loss(states(model)), log_posterior(model), rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", MACHINES)
def test_bound_is_that_of_enumeration(make: Any) -> None:
    model = make()
    exact, bound = exact_bound(model)
    assert (bound < exact - 0.01).all(), "nothing to tell apart"
    draws = drawn_bounds(model, 3000)
    errors = (draws.mean(0) - bound) / (draws.std(0) / math.sqrt(len(draws)))
    assert errors.abs().max() < 5
    several = -model.free_energy_bound(all_images(), num_samples=500) - model.exact_log_partition()
    torch.testing.assert_close(several, bound, rtol=0, atol=5 * draws.std(0).max().item() / math.sqrt(500))


def drawn_bounds(model: DBN, count: int) -> Tensor:
    """The bound of each image from one draw, ``count`` times: ``(count, 64)``."""
    bounds = -model.free_energy_bound(all_images().repeat(count, 1, 1, 1), num_samples=1)
    return bounds.view(count, 64) - model.exact_log_partition()


def test_a_layer_turned_over_changes_nothing() -> None:
    model = gauged()
    exact, _ = exact_bound(model)
    bottom = model.machines[0]
    machine = torch.log_softmax(-bottom.free_energy(binary_states(6)), 0)
    torch.testing.assert_close(exact, machine, rtol=0, atol=1e-12)
    draws = drawn_bounds(model, 3000)
    errors = (draws.mean(0) - machine) / (draws.std(0) / math.sqrt(len(draws)))
    assert errors.abs().max() < 5, "the bound is tight"


def test_turning_over_asks_for_binary_pixels_and_room() -> None:
    for model in (toy(), toy((4, 8), visible=GaussianVisible)):
        before = [parameter.clone() for parameter in model.parameters()]
        turn_over(*model.machines)
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_one_layer_is_a_machine() -> None:
    model = toy((4,))
    torch.testing.assert_close(
        model.free_energy_bound(all_images()), model.machines[0].free_energy(binary_states(6)), rtol=0, atol=0
    )


def test_conditional_density_of_gaussian_pixels() -> None:
    model = toy(visible=GaussianVisible)
    layer, hidden, pixels = model.machines[0], binary_states(4)[5:6], torch.rand(1, 6, dtype=torch.float64)
    visible = layer.visible
    assert isinstance(visible, GaussianVisible)
    expected = torch.distributions.Normal(visible.loc + visible.std * (hidden @ layer.weight.T), visible.std)
    torch.testing.assert_close(model.log_conditional(0, pixels, hidden), expected.log_prob(pixels).sum(1))


# ---- sampling


def test_samples_are_of_the_net() -> None:
    model = toy((4, 3, 2), sample_steps=50)
    mean = torch.exp(log_joint(model)) @ states(model)[0]
    samples = model.sample(40_000).flatten(1).double()
    errors = (samples.mean(0) - mean) / (samples.std(0) / math.sqrt(len(samples)))
    assert errors.abs().max() < 5
    # A mean given its parents, not a draw; that of the last layer of binary units, not of probabilities.
    parents = torch.sigmoid(
        model.machines[0].visible.get_parameter("bias") + binary_states(4) @ model.machines[0].weight.T
    )
    distance = (samples[:50, None] - parents[None]).abs().amax(2).amin(1)
    assert distance.max() < 1e-6


def test_dreams_are_of_the_net() -> None:
    model = toy((4, 3, 2))
    chosen = torch.multinomial(torch.exp(log_joint(model)), 100_000, replacement=True)
    drawn = model.descend(states(model)[2][chosen], 2)
    places = 2.0 ** torch.arange(sum(part.shape[1] for part in drawn) - 1, -1, -1).double()
    counts = torch.bincount((torch.cat(drawn, 1) @ places).long(), minlength=len(log_joint(model)))
    expected = torch.exp(log_joint(model)) * len(chosen)
    common = expected > 5  # where the statistic has its distribution
    statistic = ((counts - expected).square() / expected)[common].sum().item()
    freedom = int(common.sum())
    assert abs(statistic - freedom) < 5 * math.sqrt(2 * freedom)


def test_annealing_brackets_the_exact_partition_function() -> None:
    model = toy((5, 4))
    exact = model.exact_log_partition().item()
    forward = model.log_partition_ais(2000, 100)
    reverse = model.log_partition_reverse_ais(all_images()[torch.arange(2000) % 64], 100, 30)
    for estimate in (forward, reverse):
        assert abs(estimate.log_partition - exact) < 4 * estimate.standard_error
        assert estimate.standard_error < 0.1
    assert forward.log_weights.mean() < exact < reverse.log_weights.mean()


# ---- gradients


CHOSEN = torch.tensor([0, 1, 1, 7, 21, 21, 21, 42, 63])
"""Numbers of images whose frequencies are those of no model here."""
FREQUENCY = torch.bincount(CHOSEN, minlength=64).double() / len(CHOSEN)


def many_images() -> Tensor:
    return all_images()[CHOSEN].repeat(4000, 1, 1, 1)


def test_greedy_gradient_is_that_of_the_bound() -> None:
    """With exact states of the top machine, the loss of its layer differs from -bound by a constant."""
    model = toy((4, 3, 2))
    _, bound = exact_bound(model)
    parameters = list(model.machines[2].parameters())
    expected = torch.autograd.grad(-FREQUENCY @ bound, parameters)
    # Draws of the layers below, with the probabilities that recognition gives them.
    weights = torch.exp(log_posterior(model).view(64, -1)) * FREQUENCY[:, None]
    machine, own = model.machines[2], binary_states(3)
    model_weights = torch.softmax(-machine.free_energy(own), 0).detach()
    loss = weights.flatten().detach() @ machine.free_energy(states(model)[-1]) - model_weights @ machine.free_energy(
        own
    )
    for ours, theirs in zip(torch.autograd.grad(loss, parameters), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_greedy_stage_draws_what_its_layer_needs(layer: int) -> None:
    """A long chain from many images gives the gradient of the bound, except for noise."""
    model = toy((4, 3, 2), negative_phase=lambda: ContrastiveDivergence(60))
    part = model.machines[layer - 1]
    net = toy((4, 3, 2)[:layer])
    for ours, theirs in zip(net.machines, model.machines, strict=False):
        ours.load_state_dict(theirs.state_dict())
    expected = torch.autograd.grad(-FREQUENCY @ exact_bound(net)[1], list(net.machines[-1].parameters()))
    loss = model.stage_terms(model.stages[layer - 1], many_images(), None)["loss"]
    for ours, theirs in zip(torch.autograd.grad(loss, list(part.parameters())), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02)


def test_up_down_gradients_are_those_of_wake_and_sleep() -> None:
    """Generative parameters follow the bound; recognition follows the divergence of p(h, v) from its own."""
    model = toy((4, 3, 2), finetuning_epochs=1, negative_phase=lambda: ContrastiveDivergence(60))
    joint, posterior = log_joint(model), log_posterior(model)
    data = (torch.exp(posterior).view(64, -1) * FREQUENCY[:, None]).flatten().detach()
    wake = -(data @ joint)
    sleep = torch.exp(joint.detach()) @ (joint.detach() - posterior)
    names, parameters = zip(*model.named_parameters(), strict=True)
    expected = torch.autograd.grad(wake + sleep, parameters)
    loss = model.stage_terms(model.stages[-1], many_images(), None)["loss"]
    largest = 0.0
    for name, ours, theirs in zip(names, torch.autograd.grad(loss, parameters), expected, strict=True):
        assert (ours - theirs).abs().max() < 0.02, name
        largest = max(largest, theirs.abs().max().item())
    assert largest > 0.2


# ---- stages


def data(**arguments: Any) -> Synthetic:
    options = {"num_train": 60, "num_val": 20, "num_test": 20, "batch_size": 10, "binarization": "threshold"}
    return Synthetic(image_shape=(1, 8, 8), num_classes=3, **{**options, **arguments})


def small(**arguments: Any) -> DBN:
    options = {"hidden_dims": [6, 70], "pretraining_epochs": 1, "finetuning_epochs": 1, "sample_steps": 3}
    return DBN((1, 8, 8), **{"negative_phase": persistent, **options, **arguments})


def persistent() -> PersistentContrastiveDivergence:
    return PersistentContrastiveDivergence(2, 7)


def trainer(folder: Path, **arguments: Any) -> pl.Trainer:
    options = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return pl.Trainer(
        default_root_dir=folder, enable_checkpointing=False, inference_mode=False, **{**options, **arguments}
    )


def test_each_stage_trains_its_own_parameters(tmp_path: Path) -> None:
    model, changes = small(), Movements()
    run = trainer(tmp_path, max_epochs=3, callbacks=[changes], log_every_n_steps=1)
    run.fit(model, data())
    first, second, finetuning = changes.moved
    assert first == {f"layers.0.{name}" for name in ("weight", "hidden_bias", "visible.bias")}
    assert second == {f"layers.1.{name}" for name in ("weight", "hidden_bias", "visible.bias")}
    assert finetuning == {*first, *second, "recognition_weights.0"}
    logged = {"layer1/loss", "layer2/loss", "loss", "wake", "sleep"}
    assert {f"train/{name}" for name in logged} <= set(run.callback_metrics)


def test_each_layer_knows_the_units_below_it(tmp_path: Path) -> None:
    """And the second begins as the first turned over."""
    model, source = small(finetuning_epochs=0), data()
    begun: list[dict[str, Tensor]] = []

    class Note(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 0:
                begun.append({name: value.clone() for name, value in pl_module.state_dict().items()})

    trainer(tmp_path, max_epochs=2, callbacks=[Note()]).fit(model, source)
    pixels = torch.cat([images for images, _ in source.train_dataloader()]).flatten(1)
    torch.testing.assert_close(model.machines[0].data_mean, pixels.mean(0))
    assert torch.equal(begun[1]["layers.1.weight"][:, :64], begun[1]["layers.0.weight"].T)
    assert torch.equal(begun[1]["layers.1.hidden_bias"][:64], begun[1]["layers.0.visible.bias"])
    assert torch.equal(begun[1]["layers.1.visible.bias"], begun[1]["layers.0.hidden_bias"])
    hidden = torch.sigmoid(pixels @ begun[1]["layers.0.weight"] + begun[1]["layers.0.hidden_bias"]).mean(0)
    assert (model.machines[1].data_mean - hidden).abs().max() < 5 * 0.5 / math.sqrt(60)


def test_a_fit_that_ends_early_leaves_the_layers_that_have_begun(tmp_path: Path) -> None:
    model = small()
    run = trainer(tmp_path, max_epochs=1)
    run.fit(model, data())
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = load_model(tmp_path / "model.ckpt")
    assert isinstance(loaded, DBN)
    assert loaded.stack == loaded.machines[:1]
    images = torch.rand(2, 1, 8, 8).round()
    torch.testing.assert_close(loaded.free_energy_bound(images), loaded.machines[0].free_energy(images.flatten(1)))
    assert loaded.sample(2).shape == (2, 1, 8, 8)


def test_layers_without_epochs_start_from_the_data_too(tmp_path: Path) -> None:
    model = small(pretraining_epochs=[0, 1], finetuning_epochs=0)
    trainer(tmp_path, max_epochs=1).fit(model, data())
    assert all(layer.knows_data for layer in model.machines)


@pytest.mark.parametrize("interrupt_at", [8, 15])
def test_later_stages_resume_exactly(interrupt_at: int, tmp_path: Path) -> None:
    assert_exact_resume(small, data, tmp_path, interrupt_at=interrupt_at, max_epochs=3)


def test_gibbs_steps_grow_within_each_stage(tmp_path: Path) -> None:
    model = small(pretraining_epochs=2, finetuning_epochs=2, negative_phase=growing)
    steps: list[list[int]] = []

    class Note(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            steps.append([phase.steps for phase in model.negative_phases])

    run = trainer(tmp_path, max_epochs=6, callbacks=[Note()])
    run.fit(model, data())
    assert steps == [[1, 1], [2, 1], [2, 1], [2, 2], [2, 1], [2, 2]]
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = load_model(tmp_path / "model.ckpt")
    assert isinstance(loaded, DBN)
    assert loaded.negative_phases[1].steps == 2


def growing() -> ContrastiveDivergence:
    return ContrastiveDivergence(GrowingSteps(every_n_epochs=1, maximum=2))


def test_training_raises_the_bound(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = Digits(batch_size=50, binarization="stochastic", subset=500)
    model = DBN(
        (1, 8, 8),
        [10, 64],
        negative_phase=lambda: PersistentContrastiveDivergence(2, 50),
        pretraining_epochs=[25, 5],
        finetuning_epochs=20,
        pretraining_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.5),
        finetuning_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.03, momentum=0.5),
    )
    values: dict[int, float] = {}

    class Measure(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 0 and trainer.current_epoch in (0, 25, 30):
                self.on_train_end(trainer, pl_module)

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 24:
                values[24] = self.bound()

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            values[trainer.current_epoch] = self.bound()

        def bound(self) -> float:
            images = torch.cat([batch for batch, _ in source.val_dataloader()])
            return (-model.free_energy_bound(images, num_samples=20).mean() - model.exact_log_partition()).item()

    trainer(tmp_path, max_epochs=50, callbacks=[Measure()], check_val_every_n_epoch=50).fit(model, source)
    assert values[24] > values[0] + 0.7
    assert values[25] == pytest.approx(values[24], abs=0.1), "the second layer begins as the first turned over"
    assert values[50] > values[30] + 0.1, "up-down"
    assert values[50] > values[24] + 0.2


def test_parameter_count() -> None:
    """784-500-2000 has 1,395,284 in its generative net; the biases of h_1 in q come on top."""
    model = DBN((1, 28, 28))
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_395_284 + 500
    untied = DBN((1, 28, 28), finetuning_epochs=1)
    assert sum(parameter.numel() for parameter in untied.parameters()) == 1_395_284 + 500 + 784 * 500


def test_mistakes_are_told() -> None:
    for arguments, message in [
        ({"hidden_dims": []}, "at least one layer, got none"),
        ({"hidden_dims": [4, 0]}, "num_hidden must be at least 1, got 0"),
        ({"pretraining_epochs": [1]}, r"each of the 2 hidden layers; got \[1\]"),
        ({"sample_steps": 0}, "sample_steps must be at least 1, got 0"),
        ({"finetuning_epochs": -1}, "stage finetuning must not be negative, got -1"),
        ({"pretraining_epochs": 0}, "no stage with any epochs"),
    ]:
        with pytest.raises(ValueError, match=message):
            DBN((1, 4, 4), **{"hidden_dims": [4, 3], **arguments})
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        toy().free_energy_bound(all_images(), num_samples=0)
