"""The deep Boltzmann machine against enumeration, and its stages."""

import itertools
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from lit_gen.data import Digits, Synthetic
from lit_gen.inference import binary_states
from lit_gen.models import (
    DBM,
    ContrastiveDivergence,
    FastPersistentContrastiveDivergence,
    GrowingSteps,
    PersistentContrastiveDivergence,
    load_model,
)
from lit_gen.models.annealed_dbm import AnnealedDBM
from lit_gen.networks import CategoricalVisible, GaussianVisible
from tests.movements import Movements
from tests.resume import assert_exact_resume

LOG_Z = 9.643349270320
IMAGES = torch.tensor([[1, 0, 1, 0, 1], [1, 1, 0, 0, 1], [0, 0, 0, 0, 0]], dtype=torch.float64)


def toy(**arguments: Any) -> DBM:
    """V = 5, H = (4, 3), W1 = 0.9 sin(1 + 4i + j), W2 = 0.7 cos(2 + 3j + k), b = 0.2 cos(i), c1 = -0.1 + 0.1 j,
    c2 = 0.15 sin(1 + k), in float64."""
    model = DBM((1, 1, 5), (4, 3), **arguments).double()
    i, j, k = (torch.arange(size, dtype=torch.float64) for size in (5, 4, 3))
    with torch.no_grad():
        model.machine.weights[0].copy_(0.9 * torch.sin(1 + 4 * i[:, None] + j))
        model.machine.weights[1].copy_(0.7 * torch.cos(2 + 3 * j[:, None] + k))
        model.machine.visible.get_parameter("bias").copy_(0.2 * torch.cos(i))
        # As after pretraining: the bias of the first layer is the sum of two.
        model.machine.biases[0].copy_(-0.3 + 0.1 * j)
        model.machine.greedy_biases[0].copy_(torch.full_like(j, 0.2))
        model.machine.biases[1].copy_(0.15 * torch.sin(1 + k))
    return model


def three_layers() -> DBM:
    torch.manual_seed(1)
    model = DBM((1, 1, 3), (2, 3, 2)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


def log_joint(model: DBM) -> tuple[Tensor, list[Tensor]]:
    """-E of every state, from scratch, and the states of all layers in the same order."""
    sizes = [model.machine.visible.num_units, *model.machine.hidden_dims]
    states = list(binary_states(sum(sizes)).split(sizes, 1))
    biases = [model.machine.visible.get_parameter("bias"), *model.machine.hidden_biases()]
    total = sum(layer @ bias for layer, bias in zip(states, biases, strict=True))
    for weight, (below, above) in zip(model.machine.weights, itertools.pairwise(states), strict=True):
        total = total + torch.einsum("bi,ij,bj->b", below, weight, above)
    return total, states


def log_marginal(model: DBM, images: Tensor) -> Tensor:
    """Exact log p(v) of binary images ``(N, V)``."""
    joint, states = log_joint(model)
    joint = torch.log_softmax(joint, 0)
    return torch.stack([torch.logsumexp(joint[(states[0] == image).all(1)], 0) for image in images])


def as_images(visible: Tensor, model: DBM) -> Tensor:
    return visible.unflatten(1, model.image_shape)


@pytest.mark.parametrize("make", [toy, three_layers])
def test_energies_are_those_of_every_state(make: Any) -> None:
    model = make()
    joint, states = log_joint(model)
    torch.testing.assert_close(-model.energy(tuple(states)), joint, rtol=0, atol=1e-12)
    # Odd layers summed out, group by group of equal pixels and even layers.
    even = torch.cat([states[0], *(states[number] for number in model.machine.even)], 1)
    groups, group = even.unique(dim=0, return_inverse=True)
    sums = torch.stack([torch.logsumexp(joint[group == number], 0) for number in range(len(groups))])
    torch.testing.assert_close(-model.model_energy(tuple(states)), sums[group], rtol=0, atol=1e-12)
    torch.testing.assert_close(model.exact_log_partition(), torch.logsumexp(joint, 0), rtol=0, atol=1e-11)


def test_golden_numbers() -> None:
    model = toy()
    assert model.exact_log_partition().item() == pytest.approx(LOG_Z, abs=1e-11)
    exact = log_marginal(model, IMAGES)
    torch.testing.assert_close(
        exact, torch.tensor([-4.735773189, -3.063991918, -4.168158901], dtype=torch.float64), rtol=0, atol=1e-9
    )
    bound = -model.free_energy_bound(as_images(IMAGES, model)) - LOG_Z
    torch.testing.assert_close(
        bound, torch.tensor([-4.815082965, -3.125486730, -4.244703718], dtype=torch.float64), rtol=0, atol=1e-9
    )
    first, second = model.machine.mean_field(IMAGES[:1], tolerance=1e-14)
    golden = ([0.32678183, 0.62698625, 0.20295926, 0.65343412], [0.5341661, 0.64287914, 0.62208109])
    torch.testing.assert_close(first[0], torch.tensor(golden[0], dtype=torch.float64), rtol=0, atol=1e-8)
    torch.testing.assert_close(second[0], torch.tensor(golden[1], dtype=torch.float64), rtol=0, atol=1e-8)


@pytest.mark.parametrize("make", [toy, three_layers])
def test_mean_field_bounds_and_is_stationary(make: Any) -> None:
    model = make()
    visible = binary_states(model.machine.visible.num_units)
    exact = log_marginal(model, visible) + model.exact_log_partition()
    values = [
        -model.machine.variational_free_energy(visible, model.machine.mean_field(visible, steps))
        for steps in (1, 2, 5, 200)
    ]
    for lower, higher in itertools.pairwise([*values, exact]):
        assert (lower <= higher + 1e-6).all(), "each update of a layer raises the bound"
    posterior = [part.clone().requires_grad_() for part in model.machine.mean_field(visible, 2000, 1e-15)]
    model.machine.variational_free_energy(visible, posterior).sum().backward()
    for part in posterior:
        assert part.grad is not None
        assert part.grad.abs().max() < 1e-6


def test_without_the_second_layer_it_is_an_rbm() -> None:
    model = toy()
    with torch.no_grad():
        model.machine.weights[1].zero_()
    hidden = binary_states(4)
    first = model.machine.biases[0] + model.machine.greedy_biases[0]
    visible = model.machine.visible.get_parameter("bias")
    rbm = torch.logsumexp(
        hidden @ first + torch.nn.functional.softplus(visible + hidden @ model.machine.weights[0].T).sum(1), 0
    )
    expected = rbm + torch.nn.functional.softplus(model.machine.biases[1]).sum()
    torch.testing.assert_close(model.exact_log_partition(), expected.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", [toy, three_layers])
def test_gibbs_leaves_the_distribution_alone(make: Any) -> None:
    model = make()
    joint, states = log_joint(model)
    torch.manual_seed(0)
    chosen = torch.multinomial(joint.softmax(0), 200_000, replacement=True)
    after = model.gibbs(tuple(state[chosen] for state in states), 1)
    places = 2.0 ** torch.arange(sum(state.shape[1] for state in states) - 1, -1, -1).double()
    counts = torch.bincount((torch.cat(after, 1) @ places).long(), minlength=len(joint))
    expected = joint.softmax(0) * len(chosen)
    statistic = ((counts - expected).square() / expected).sum().item()
    freedom = len(joint) - 1
    assert abs(statistic - freedom) < 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("make", [toy, three_layers])
def test_annealing_brackets_the_exact_partition_function(make: Any) -> None:
    model = make()
    torch.manual_seed(0)
    exact = model.exact_log_partition().item()
    forward = model.log_partition_ais(4000, 100)
    assert abs(forward.log_partition - exact) < 4 * forward.standard_error
    assert forward.standard_error < 0.02
    joint, states = log_joint(model)
    chosen = torch.multinomial(joint.softmax(0), 4000, replacement=True)
    reverse = model.log_partition_reverse_ais(as_images(states[0][chosen], model), 100, 20)
    assert abs(reverse.log_partition - exact) < 4 * reverse.standard_error
    assert forward.log_weights.mean() < exact < reverse.log_weights.mean()


def test_annealing_of_gaussian_pixels() -> None:
    """log f of the odd layers at every temperature is the integral over the pixels."""
    torch.manual_seed(0)
    model = DBM((1, 1, 1), (3, 2), lambda shape: GaussianVisible(shape, min_std=0.1)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
        model.machine.visible.get_buffer("offset").fill_(0.3)
    path = AnnealedDBM(model.machine)
    grid = torch.linspace(-40, 40, 20001, dtype=torch.float64)[:, None]
    step = (grid[1] - grid[0]).item()
    odd, even = binary_states(3), binary_states(2)
    for beta in (0.0, 0.37, 1.0):
        densities = path.log_density(path.state([odd]), beta)
        for units, density in zip(odd, densities, strict=True):
            base = sum(
                (eta * part).sum(1) for eta, part in zip(path.base, model.machine.visible.statistics(grid), strict=True)
            )
            terms = []
            for above in even:
                rows = (grid, units.expand(len(grid), -1), above.expand(len(grid), -1))
                terms.append((1 - beta) * base - beta * model.energy(rows))
            total = torch.logsumexp(torch.stack(terms), (0, 1)) + math.log(step)
            assert density.item() == pytest.approx(total.item(), abs=1e-9)


# ---- gradients


def test_gradient_is_that_of_the_bound_when_states_are_exact() -> None:
    model = toy(negative_phase=lambda: ContrastiveDivergence(1))
    joint, states = log_joint(model)
    posterior = model.machine.mean_field(IMAGES, tolerance=1e-14)
    parameters = [*model.machine.weights, *model.machine.biases, model.machine.visible.get_parameter("bias")]
    bound = (-model.machine.variational_free_energy(IMAGES, posterior)).mean() - torch.logsumexp(joint, 0)
    expected = torch.autograd.grad(-bound, parameters)
    weights = log_joint(model)[0].softmax(0).detach()
    loss = model.machine.variational_free_energy(IMAGES, posterior).mean()
    loss = loss - (weights * model.model_energy(tuple(states))).sum()
    for ours, theirs in zip(torch.autograd.grad(loss, parameters), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_greedy_gradient_is_the_published_rule() -> None:
    """Statistics with probabilities from doubled inputs, as in the code of the authors."""
    model = toy()
    below = IMAGES
    for number, data in ((1, below), (2, torch.randint(0, 2, (6, 4)).double())):
        factor = model.machine.doubled(number)
        assert factor == (2 if number == 1 else 1)
        probabilities = torch.sigmoid(
            factor * (data @ model.machine.weights[number - 1] + model.machine.biases[number - 1])
        )
        weight, bias = torch.autograd.grad(
            model.machine.greedy_energy(number, data).sum(),
            [model.machine.weights[number - 1], model.machine.biases[number - 1]],
        )
        torch.testing.assert_close(weight, -(data.T @ probabilities))
        torch.testing.assert_close(bias, -probabilities.sum(0))


def test_centred_gradient_is_that_of_centred_coordinates() -> None:
    """Against autograd in the parametrisation E = -sum (x - mu) W (y - lambda) - sum (x - mu) b."""
    model = toy(centering=0.1)
    sizes = [5, 4, 3]
    model.centres = torch.rand(12, dtype=torch.float64)
    centres = list(model.centres.split(sizes))
    joint, states = log_joint(model)
    weights = torch.randn(len(joint), dtype=torch.float64)  # any difference of expectations
    weights -= weights.mean()
    (weights * model.energy(tuple(states))).sum().backward()
    model.machine.centre_gradients(model.centres.split(model.machine.sizes))

    centred_weights = [weight.detach().clone().requires_grad_() for weight in model.machine.weights]
    centred_biases = [torch.zeros(size, dtype=torch.float64, requires_grad=True) for size in sizes]
    shifted = [state - centre for state, centre in zip(states, centres, strict=True)]
    energy = -sum(layer @ bias for layer, bias in zip(shifted, centred_biases, strict=True))
    for weight, (below, above) in zip(centred_weights, itertools.pairwise(shifted), strict=True):
        energy = energy - torch.einsum("bi,ij,bj->b", below, weight, above)
    (weights * energy).sum().backward()
    step = 1e-3
    # A step in centred coordinates, written in plain ones.
    for ours, theirs in zip(model.machine.weights, centred_weights, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-10)
    changes = [-step * gradient(weight) for weight in centred_weights]
    plain = [model.machine.visible.get_parameter("bias"), *model.machine.biases]
    for number, bias in enumerate(plain):
        change = -step * gradient(centred_biases[number])
        if number > 0:
            change = change - centres[number - 1] @ changes[number - 1]
        if number < len(changes):
            change = change - changes[number] @ centres[number + 1]
        torch.testing.assert_close(-step * gradient(bias), change, rtol=0, atol=1e-12)


def test_autocast_changes_nothing() -> None:
    """Training centres the gradient under the autocast of bf16-mixed, and callbacks anneal there."""
    model = toy(centering=0.1).float()
    state = tuple(part.float() for part in log_joint(toy())[1])
    odd = binary_states(4).float()
    gradients, values = [], []
    for precise in (True, False):
        model.zero_grad()
        model.energy(state)[::7].sum().backward()
        path = AnnealedDBM(model.machine)
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            model.machine.centre_gradients(model.centres.split(model.machine.sizes))
            values.append([path.log_density(path.state([odd]), 1.0), model.model_energy(state)])
        gradients.append([gradient(part).clone() for part in [*model.machine.weights, *model.machine.biases]])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(values[1], values[0], rtol=0, atol=1e-5)


def gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


# ---- stages


def data(**arguments: Any) -> Synthetic:
    options = {"num_train": 60, "num_val": 20, "num_test": 20, "batch_size": 10, "binarization": "threshold"}
    return Synthetic(image_shape=(1, 8, 8), num_classes=3, **{**options, **arguments})


def small(**arguments: Any) -> DBM:
    options: dict[str, Any] = {"hidden_dims": [6, 5], "pretraining_epochs": 1, "sample_steps": 3}
    options |= {"negative_phase": lambda: PersistentContrastiveDivergence(2, 7)}
    return DBM((1, 8, 8), **{**options, **arguments})


def trainer(folder: Path, **arguments: Any) -> pl.Trainer:
    options = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return pl.Trainer(
        default_root_dir=folder, enable_checkpointing=False, inference_mode=False, **{**options, **arguments}
    )


def test_each_stage_trains_its_own_parameters(tmp_path: Path) -> None:
    model, changes = small(joint_epochs=1, discriminative_epochs=1, num_classes=3, centering=0.01), Movements()
    run = trainer(tmp_path, max_epochs=4, callbacks=[changes], log_every_n_steps=1)
    run.fit(model, data())
    first, second, joint, discriminative = changes.moved
    assert first == {"machine.weights.0", "machine.biases.0", "machine.visible.bias"}
    assert second == {"machine.weights.1", "machine.biases.1", "machine.greedy_biases.0"}
    assert joint == {
        "machine.weights.0",
        "machine.weights.1",
        "machine.biases.0",
        "machine.biases.1",
        "machine.visible.bias",
    }
    assert {name.split(".")[0] for name in discriminative} == {"classifier"}
    assert {f"train/{name}" for name in ("layer1/loss", "layer2/loss", "joint/loss", "loss", "accuracy")} <= set(
        run.callback_metrics
    )
    assert model.class_logits(torch.rand(2, 1, 8, 8).round()).shape == (2, 3)


def test_fast_weights_are_those_of_the_stage(tmp_path: Path) -> None:
    """A bias of the joint machine is the sum of two, one of which stays: the fast bias must not count double."""
    phase = FastPersistentContrastiveDivergence(1, 7)
    model = small(negative_phase=lambda: phase, joint_epochs=1, discriminative_epochs=1, num_classes=3)
    trainer(tmp_path, max_epochs=3).fit(model, data())
    assert model.negative_phase is phase
    assert set(phase.fast) == {
        "machine.weights.0",
        "machine.weights.1",
        "machine.biases.0",
        "machine.biases.1",
        "machine.visible.bias",
    }


def test_gibbs_steps_grow_with_the_epochs_of_the_joint_stage(tmp_path: Path) -> None:
    model = small(negative_phase=lambda: PersistentContrastiveDivergence(GrowingSteps(2, 9), 7))
    run = trainer(tmp_path, max_epochs=5, limit_val_batches=0)
    run.fit(model, data())
    assert model.negative_phase.steps == 2, "the joint stage has had three epochs, after two of the layers"
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = load_model(tmp_path / "model.ckpt")
    assert isinstance(loaded, DBM)
    assert loaded.negative_phase.steps == 2


def test_the_classifier_begins_as_the_mean_field() -> None:
    model = toy(joint_epochs=1, discriminative_epochs=1, num_classes=2)
    assert model.classifier is not None
    model.begin_stage(model.stages[-1])
    posterior = model.machine.mean_field(IMAGES, tolerance=1e-14)
    layers: list[Tensor] = []
    model.classifier.output.register_forward_hook(lambda module, inputs, output: layers.append(inputs[0]))
    model.classifier(IMAGES, posterior)
    torch.testing.assert_close(layers[0], posterior[1], rtol=0, atol=1e-10)


def test_stages_resume_exactly(tmp_path: Path) -> None:
    def make() -> DBM:
        return small(joint_epochs=1, discriminative_epochs=1, num_classes=3, centering=0.1)

    assert_exact_resume(make, data, tmp_path, interrupt_at=15, max_epochs=4)


def test_each_stage_raises_the_bound(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = Digits(batch_size=50, binarization="stochastic", subset=500)
    model = DBM(
        (1, 8, 8),
        [10, 8],
        negative_phase=lambda: PersistentContrastiveDivergence(2, 50),
        pretraining_epochs=[25, 10],
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.5),
    )
    values: list[float] = []

    class Measure(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            images = torch.cat([batch for batch, _ in source.val_dataloader()])
            values.append((-model.free_energy_bound(images).mean() - model.exact_log_partition()).item())

    trainer(tmp_path, max_epochs=70, callbacks=[Measure()], check_val_every_n_epoch=70).fit(model, source)
    assert values[35] > values[0] + 0.5
    assert values[-1] > values[35] + 0.5


def test_mistakes_are_told() -> None:
    for arguments, message in [
        ({"hidden_dims": []}, r"at least one layer, got \[\]"),
        ({"pretraining_epochs": [1]}, r"each of the 2 hidden layers; got \[1\]"),
        ({"sample_steps": 0}, "must be at least 1, got 1, 10 and 0"),
        ({"centering": 2.0}, r"rate from 0 to 1, got 2\.0"),
        ({"discriminative_epochs": 1}, "labels of at least 2 classes, the data has 0"),
        ({"discriminative_epochs": 1, "num_classes": 2}, "need joint_epochs"),
        ({"centering": 0.1, "visible": GaussianVisible}, "centering is for binary pixels"),
        ({"visible": CategoricalVisible}, "CategoricalVisible has 128 units for 16 pixels"),
        ({"pretraining_epochs": -1}, "stage layer1 must not be negative, got -1"),
        ({"pretraining_epochs": 0, "joint_epochs": 0}, "no stage with any epochs"),
    ]:
        with pytest.raises(ValueError, match=message):
            DBM((1, 4, 4), **{"hidden_dims": [4, 3], **arguments})
    with pytest.raises(ValueError, match="set discriminative_epochs"):
        toy().class_logits(as_images(IMAGES, toy()))


@pytest.mark.parametrize(
    ("epochs", "arguments", "told"),
    [
        (2, {}, "max_epochs=2 leaves out joint: joint begins after 2 epochs"),
        (1, {"joint_epochs": 4}, "max_epochs=1 leaves out layer2, joint: joint begins after 2 epochs"),
        (
            7,
            {"joint_epochs": 4},
            "max_epochs=7 is more than the 6 epochs of all stages: the last, joint, goes on for 1",
        ),
        (6, {"joint_epochs": 4}, ""),
        (3, {}, ""),
    ],
)
def test_epochs_that_do_not_fit_the_stages_are_told(
    epochs: int, arguments: dict[str, Any], told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = trainer(tmp_path, max_epochs=epochs, limit_train_batches=1, limit_val_batches=0)
    run.fit(small(**arguments), data())
    found = [record.getMessage() for record in caplog.records if record.name == "lit_gen.models.staged"]
    assert len(found) == bool(told)
    assert told in "".join(found)


def test_checkpoint_of_any_stage_loads(tmp_path: Path) -> None:
    model = small()
    run = trainer(tmp_path, max_epochs=1)
    run.fit(model, data())
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = load_model(tmp_path / "model.ckpt")
    assert isinstance(loaded, DBM)
    assert int(loaded.stages_begun) == 1
    assert loaded.sample(2).shape == (2, 1, 8, 8)
