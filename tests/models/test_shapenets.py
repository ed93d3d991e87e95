"""3D ShapeNets: its stages, its top machine against enumeration, and what it makes of half-seen shapes."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from lit_gen.data import Synthetic
from lit_gen.inference import binary_states
from lit_gen.models import PersistentContrastiveDivergence, ShapeNets3D
from tests.movements import Movements
from tests.resume import assert_exact_resume

SHAPE = (1, 8, 8, 8)


def small(**arguments: Any) -> ShapeNets3D:
    options: dict[str, Any] = {
        "channels": [4, 6],
        "kernel_sizes": [4, 2],
        "strides": [2, 1],
        "sparsity_targets": 0.1,
        "sparsity_costs": 0.1,
        "fully_connected": 8,
        "top": 10,
        "conv_epochs": 1,
        "dense_epochs": 1,
        "sample_steps": 3,
    }
    return ShapeNets3D(
        SHAPE, 3, negative_phase=lambda: PersistentContrastiveDivergence(2, 7), **{**options, **arguments}
    )


def data(**arguments: Any) -> Synthetic:
    options: dict[str, Any] = {"num_train": 60, "num_val": 20, "num_test": 20, "batch_size": 10}
    return Synthetic(image_shape=SHAPE, num_classes=3, binarization="threshold", **{**options, **arguments})


def trainer(folder: Path, **arguments: Any) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        inference_mode=False,
        logger=False,
        **arguments,
    )


def test_sizes_of_the_paper() -> None:
    model = ShapeNets3D((1, 30, 30, 30), 40)
    shapes = [model.convolution(number).hidden_shape for number in (1, 2, 3)]
    assert shapes == [(48, 13, 13, 13), (160, 5, 5, 5), (512, 2, 2, 2)]
    weights = [*(layer.weight for layer in model.convolutions), model.dense.weight, model.top.weight]
    counts = [weight.numel() for weight in weights]
    assert counts == [10_368, 960_000, 5_242_880, 4_915_200, 4_960_000]
    with torch.no_grad():
        layers = model.up(torch.zeros(1, 1, 30, 30, 30))
        assert [tuple(part.shape) for part in model.down(layers[-1])] == [tuple(part.shape) for part in layers]


def test_each_stage_trains_its_own_parameters(tmp_path: Path) -> None:
    model, changes = small(top_epochs=1, fine_tuning_epochs=1), Movements()
    run = trainer(tmp_path, max_epochs=5, callbacks=[changes], log_every_n_steps=1)
    run.fit(model, data())
    everything = {name for name, _ in model.named_parameters()}
    first, second, dense, top, fine_tuning = changes.moved
    assert first == {name for name in everything if name.startswith("convolutions.0")}
    assert second == {name for name in everything if name.startswith("convolutions.1")}
    assert dense == {name for name in everything if name.startswith("dense")}
    assert top == {name for name in everything if name.startswith("top")}
    assert fine_tuning == everything
    metrics = run.callback_metrics
    assert {"train/conv1/loss", "train/conv2/reconstruction_error", "train/top/loss", "val/accuracy"} <= set(metrics)


def test_stages_resume_exactly(tmp_path: Path) -> None:
    assert_exact_resume(
        lambda: small(top_epochs=1, fine_tuning_epochs=1), data, tmp_path, interrupt_at=21, max_epochs=5
    )


# ---- the top machine


def tiny(copies: int) -> ShapeNets3D:
    """A top machine over 3 units and 3 classes with 4 hidden units, in float64."""
    torch.manual_seed(0)
    model = small(fully_connected=3, top=4, label_copies=copies).double()
    with torch.no_grad():
        for parameter in model.top.parameters():
            parameter.normal_(std=0.7)
    return model


def joint(model: ShapeNets3D) -> tuple[Tensor, Tensor]:
    """All states of the units and of the label, and their log-probabilities."""
    counts = model.label_copies * torch.eye(3, dtype=torch.float64)
    states = binary_states(3)
    every = torch.cat([states.repeat_interleave(len(counts), 0), counts.repeat(len(states), 1)], 1)
    with torch.no_grad():
        return every, torch.log_softmax(-model.top.free_energy(every), 0)


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_class_probabilities_are_those_of_the_energy(copies: int) -> None:
    model = tiny(copies)
    every, log_probs = joint(model)
    features = binary_states(3)
    with torch.no_grad():
        ours = torch.log_softmax(-model.class_free_energies(features), 1)
    for number, state in enumerate(features):
        pure = [
            log_probs[((every[:, :3] == state).all(1)) & (every[:, 3 + label] == copies)].item() for label in range(3)
        ]
        expected = torch.log_softmax(torch.tensor(pure, dtype=torch.float64), 0)
        torch.testing.assert_close(ours[number], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("copies", [1, 3])
def test_gibbs_sampling_of_labels_is_that_of_the_energy(copies: int) -> None:
    """Labels are as frequent in chains, their units held fast, as their free energies say."""
    model = tiny(copies)
    every, log_probs = joint(model)
    state = torch.tensor([1.0, 0, 1], dtype=torch.float64)
    given = (every[:, :3] == state).all(1)
    expected = torch.softmax(log_probs[given], 0) @ every[given][:, 3:]
    torch.manual_seed(1)
    start = torch.cat([state.expand(20_000, -1), model.units.label.sample((torch.zeros(20_000, 3).double(),))], 1)
    chains = (start,)
    for _ in range(30):
        chains = model.top.sweep(chains)[:1]
        chains = (torch.cat([state.expand(20_000, -1), chains[0][:, 3:]], 1),)
    torch.testing.assert_close(chains[0][:, 3:].mean(0), expected, rtol=0, atol=0.03)
    assert (chains[0][:, 3:].sum(1) == copies).all()


def test_the_hidden_states_sum_as_the_visible_ones() -> None:
    """log Z from either side: copies of a label that agree have one state for each class."""
    model = tiny(3)
    every, _ = joint(model)
    with torch.no_grad():
        by_visible = torch.logsumexp(-model.top.free_energy(every), 0)
        by_hidden = torch.logsumexp(model.top.hidden_log_density(binary_states(4)), 0)
    torch.testing.assert_close(by_visible, by_hidden, rtol=0, atol=1e-10)


def test_layers_learn_to_reconstruct(tmp_path: Path) -> None:
    torch.manual_seed(0)

    def descent(rate: float) -> Any:
        return lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=0.9)

    model = small(
        channels=[8, 8], fully_connected=32, conv_epochs=5, conv_optimizer=descent(0.1), dense_optimizer=descent(0.01)
    )
    run = trainer(tmp_path, max_epochs=12, check_val_every_n_epoch=12)
    source = data(num_train=300, num_test=100)
    run.fit(model, source)
    results = run.test(model, source, verbose=False)[0]
    assert 0 < results["test/mean_class_accuracy"] <= 1
    images, _ = next(iter(source.test_dataloader()))
    constant = (images.mean() - images).abs().mean()
    for layers, part in [(1, 0.5), (2, 0.7)]:
        reconstruction = model.down(model.up(images, layers)[-1], layers)[0]
        assert (reconstruction - images).abs().mean() < part * constant


# ---- completion


def test_completion_leaves_what_is_observed() -> None:
    torch.manual_seed(0)
    model = small()
    voxels = torch.rand(2, *SHAPE).round()
    observed = torch.rand(2, *SHAPE) < 0.5
    hidden_changed = torch.where(observed, voxels, 1 - voxels)
    torch.manual_seed(1)
    completed = model.complete(voxels, observed, num_particles=3, steps=2)
    assert torch.equal(completed[observed], voxels[observed])
    assert ((completed > 0) & (completed < 1))[~observed].all()
    torch.manual_seed(1)
    assert torch.equal(model.complete(hidden_changed, observed, num_particles=3, steps=2), completed), "no peeping"


def test_completion_is_the_mean_of_the_guesses() -> None:
    torch.manual_seed(0)
    model = small()
    voxels, observed = torch.rand(2, *SHAPE).round(), torch.rand(2, *SHAPE) < 0.5
    torch.manual_seed(1)
    guesses, classes = model.guess(voxels, observed, num_particles=4, steps=2)
    torch.manual_seed(1)
    torch.testing.assert_close(model.complete(voxels, observed, 4, 2), guesses.mean(0))
    assert guesses.shape == (4, 2, *SHAPE)
    assert classes.shape == (4, 2, 3)
    torch.testing.assert_close(classes.sum(2), torch.ones(4, 2))


def test_the_next_view_is_chosen_without_peeping() -> None:
    torch.manual_seed(0)
    model = small()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= 4
    voxels = (torch.rand(3, *SHAPE) < 0.3).float()
    observed = model.observe(voxels, "-y")
    found = []
    for shapes in (voxels, torch.where(observed, voxels, 1 - voxels)):
        torch.manual_seed(1)
        found.append(model.view_information(shapes, observed, ["-y", "+y"], num_particles=3, steps=2))
    assert found[0].shape == (3, 2)
    assert torch.equal(*found)
    assert (found[0] != 0).all()


def test_trajectory_ends_with_the_sample() -> None:
    model = small(sample_steps=130)
    condition = torch.tensor([0, 2])
    torch.manual_seed(0)
    frames = list(model.trajectory(2, condition))
    torch.manual_seed(0)
    assert torch.equal(frames[-1].images, model.sample(2, condition))
    assert 60 <= len(frames) <= 65


def test_mistakes_are_told() -> None:
    for arguments, message in [
        ({"channels": [4]}, r"one number for each convolutional layer, got \[4\], \[4, 2\] and \[2, 1\]"),
        ({"conv_epochs": [1]}, r"conv_epochs must be one number, or one for each of the 2 layers; got \[1\]"),
        ({"fine_tuning_epochs": 1}, "need top_epochs"),
        ({"sample_steps": 0}, "must be at least 1, got 0 and 1"),
        ({"label_copies": 0}, "copies of the label must be at least 1, got 0"),
        ({"kernel_sizes": [4, 9]}, "filters of size 9 do not fit into maps of 3x3x3"),
    ]:
        with pytest.raises(ValueError, match=message):
            small(**arguments)
    with pytest.raises(ValueError, match="voxels of shape"):
        ShapeNets3D((1, 8, 8), 3)
    with pytest.raises(ValueError, match="the data has 0"):
        ShapeNets3D(SHAPE, 0)
    with pytest.raises(ValueError, match=r"class must lie in 0\.\.2, got 3"):
        small().make_condition({"class": 3}, 1)
