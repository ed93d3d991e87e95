"""The restricted Boltzmann machine against enumeration, quadrature and its own textbook."""

import functools
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.cli import ReduceLROnPlateau
from scipy import integrate, stats
from torch import Tensor

from lit_gen.data import Digits, Synthetic
from lit_gen.inference import binary_states, enumerated_log_partition
from lit_gen.models import RBM, ContrastiveDivergence, PersistentContrastiveDivergence, load_model
from lit_gen.models.annealed_rbm import AnnealedRBM
from lit_gen.models.negative_phase import Machine
from lit_gen.networks import BernoulliVisible, GaussianVisible, State
from tests.resume import assert_exact_resume
from tests.toy_rbm import GAUSSIAN_LOG_Z, IMAGES, LOG_Z, gaussian_toy, images, log_probabilities, toy


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# ---- the energy


def test_log_partition_from_either_side() -> None:
    model = toy()
    assert model.exact_log_partition().item() == pytest.approx(LOG_Z, abs=1e-12)
    other_side = enumerated_log_partition(lambda states: -model.visible_free_energy(states), 6)
    assert other_side.item() == pytest.approx(LOG_Z, abs=1e-12)
    joint = enumerated_log_partition(lambda states: -model.energy((states[:, :6], states[:, 6:])), 10)
    assert joint.item() == pytest.approx(LOG_Z, abs=1e-12)
    wide = RBM((1, 1, 3), 40, initial_weight_std=1.0).double()
    expected = torch.logsumexp(-wide.visible_free_energy(binary_states(3)), 0)
    assert wide.exact_log_partition().item() == pytest.approx(expected.item(), abs=1e-12)


def test_free_energies_and_log_probabilities() -> None:
    model = toy()
    visible = torch.cat([tensor(*[0] * 6)[None], tensor(*[1] * 6)[None], IMAGES])
    free_energy = model.free_energy(images(visible, model))
    expected = tensor(-2.680079370, -2.665404279, -2.244236099, -3.047390599, -2.472655205)
    torch.testing.assert_close(free_energy, expected, rtol=0, atol=1e-8)
    expected = tensor(-4.618309458548, -4.632984549670, -5.054152729196, -4.250998229836, -4.825733623500)
    torch.testing.assert_close(-free_energy - model.exact_log_partition(), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("make", [toy, gaussian_toy])
def test_free_energy_sums_out_the_hidden_units(make: Any) -> None:
    model = make()
    visible = torch.randn(5, model.visible.num_units, dtype=torch.float64)
    hidden = binary_states(model.num_hidden)
    energies = torch.stack([model.energy((visible, row.expand(5, -1))) for row in hidden])
    torch.testing.assert_close(model.visible_free_energy(visible), -torch.logsumexp(-energies, 0), rtol=0, atol=1e-12)


def test_gaussian_machine() -> None:
    model = gaussian_toy()
    assert model.exact_log_partition().item() == pytest.approx(GAUSSIAN_LOG_Z, abs=1e-11)
    visible = torch.stack([tensor(0, 0, 0), tensor(1, -1, 2), tensor(0.5, -0.3, 0.1)])
    log_p = -model.visible_free_energy(visible) - model.exact_log_partition()
    torch.testing.assert_close(log_p, tensor(-4.520700223, -3.077543246, -3.589196545), rtol=0, atol=1e-8)
    state = model.gibbs(model.noise(100_000), 30)
    mean, covariance = state[0].mean(0), torch.cov(state[0].T)
    torch.testing.assert_close(mean, tensor(1.22560429, -0.68082991, 1.66494143), rtol=0, atol=0.03)
    torch.testing.assert_close(covariance.diag(), tensor(1.07455592, 0.26876953, 4.30185972), rtol=0.03, atol=0)
    assert covariance[0, 2].item() == pytest.approx(0.14431091, abs=0.03)


def test_gaussian_density_integrates_to_one() -> None:
    model = RBM((1, 1, 1), 3, visible=GaussianVisible, initial_weight_std=1.5).double()
    model.visible.initialize(tensor(0.3), tensor(0.25), 100)
    total, _ = integrate.quad(lambda v: torch.exp(-model.visible_free_energy(tensor(v)[None])).item(), -20, 20)
    assert math.log(total) == pytest.approx(model.exact_log_partition().item(), abs=1e-8)


# ---- Gibbs sampling


def test_chains_reach_the_exact_distribution() -> None:
    model, count = toy(), 40_000
    visible = model.gibbs(model.noise(count), 25)[0]
    number = (visible @ (2.0 ** torch.arange(5, -1, -1, dtype=torch.float64))).long()
    observed = torch.bincount(number, minlength=64)
    expected = log_probabilities(model).detach().exp() * count
    assert stats.chisquare(observed.numpy(), expected.numpy() * count / expected.sum().item()).pvalue > 1e-3
    # The test can tell: chains that have hardly moved from independent fair pixels fail it.
    start = torch.bincount((model.noise(count)[0] @ (2.0 ** torch.arange(5, -1, -1).double())).long(), minlength=64)
    assert stats.chisquare(start.numpy(), expected.numpy()).pvalue < 1e-6


def test_dream_ends_with_the_sample() -> None:
    model = RBM((1, 3, 3), 5, sample_steps=7, initial_weight_std=1.0)
    torch.manual_seed(1)
    frames = [frame.images for frame in model.trajectory(4)]
    torch.manual_seed(1)
    assert torch.equal(model.sample(4), frames[-1])
    assert len(frames) == 7
    assert not torch.equal(frames[0], frames[-1])


# ---- the gradient


def test_gradient_of_the_log_likelihood() -> None:
    """Free energies of data and of all states, weighted exactly: numbers from an independent enumeration."""
    model = toy()
    log_p = log_probabilities(model).detach()
    free_energy = model.visible_free_energy(binary_states(6))
    loss = model.free_energy(images(IMAGES, model)).mean() - (log_p.exp() * free_energy).sum()
    loss.backward()
    gradient = {name: -parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert gradient["machine.weight"].norm().item() == pytest.approx(0.7019394734, abs=1e-9)
    row = tensor(-0.10605663, -0.1675216, -0.08475866, 0.0618247)
    torch.testing.assert_close(gradient["machine.weight"][0], row, rtol=0, atol=1e-7)
    visible = tensor(-0.02458735, -0.22618269, 0.35329278, -0.28900472, 0.29230805, 0.22550669)
    torch.testing.assert_close(gradient["machine.visible.bias"], visible, rtol=0, atol=1e-7)
    hidden = tensor(0.02154837, -0.12231145, -0.15803338, -0.04374796)
    torch.testing.assert_close(gradient["machine.hidden_bias"], hidden, rtol=0, atol=1e-7)


class Recording(ContrastiveDivergence):
    """Keeps what it drew."""

    def __call__(self, machine: Machine, data: State, keep: bool) -> State:
        self.drawn = super().__call__(machine, data, keep)
        return self.drawn


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_gradient_is_the_textbook_statistic(precision: torch.dtype | None) -> None:
    model = RBM((1, 3, 4), 6, negative_phase=lambda: Recording(3), initial_weight_std=0.7).double()
    batch = torch.rand(10, 1, 3, 4, dtype=torch.float64).round()
    with torch.autocast("cpu", precision, enabled=precision is not None):
        model.objective(batch).loss.backward()
    data, drawn = batch.flatten(1), model.negative_phase.drawn[0]  # type: ignore[attr-defined]
    hidden, hidden_drawn = (torch.sigmoid(v @ model.weight + model.hidden_bias) for v in (data, drawn))
    expected = (data.T @ hidden - drawn.T @ hidden_drawn) / 10
    torch.testing.assert_close(model.weight.grad, -expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(model.hidden_bias.grad, (hidden_drawn - hidden).mean(0), rtol=0, atol=1e-14)
    torch.testing.assert_close(model.visible.bias.grad, (drawn - data).mean(0), rtol=0, atol=1e-14)


@pytest.mark.parametrize("visible", [BernoulliVisible, GaussianVisible])
def test_mixed_precision_changes_no_energy(visible: Any) -> None:
    model = RBM((1, 9, 9), 20, visible, initial_weight_std=1.0)
    model.visible.initialize(torch.rand(81), torch.full((81,), 0.1), 100)
    pixels = torch.rand(4, 81).round()
    path = AnnealedRBM(model.machine)

    def energies() -> list[Tensor]:
        torch.manual_seed(1)
        state = model.sweep((pixels,))
        return [
            *state,
            model.energy(state),
            model.visible_free_energy(pixels),
            path.log_ratio(path.state(pixels), 0, 1),
        ]

    expected = energies()
    with torch.autocast("cpu", torch.bfloat16):
        for ours, theirs in zip(energies(), expected, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("steps", "error"), [(1, 0.121105), (2, 0.018607), (5, 0.000277)])
def test_bias_of_contrastive_divergence(steps: int, error: float) -> None:
    """The expected gradient of CD-k is off by what the transition matrix says."""
    model = toy()
    model.negative_phase = ContrastiveDivergence(steps)
    (-log_probabilities(model)[(IMAGES @ (2.0 ** torch.arange(5, -1, -1).double())).long()].mean()).backward()
    exact = model.weight.grad
    assert exact is not None
    model.weight.grad = None
    model.objective(images(IMAGES.repeat(40_000, 1), model)).loss.backward()
    assert ((model.weight.grad - exact).norm() / exact.norm()).item() == pytest.approx(error, abs=0.012)


def test_persistent_chains_follow_exact_ascent() -> None:
    def ascend(persistent: bool) -> float:
        model = toy()
        model.negative_phase = PersistentContrastiveDivergence(1, num_chains=500)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=400)
        batch, numbers = images(IMAGES, model), (IMAGES @ (2.0 ** torch.arange(5, -1, -1).double())).long()
        for _ in range(400):
            optimizer.zero_grad()
            exact = -log_probabilities(model)[numbers].mean()
            loss = model.objective(batch).loss if persistent else exact
            loss.backward()
            optimizer.step()
            schedule.step()
        return log_probabilities(model)[numbers].mean().item()

    exact = ascend(persistent=False)
    assert exact > -3.3
    assert ascend(persistent=True) == pytest.approx(exact, abs=0.05)


# ---- training


def data(**arguments: Any) -> Synthetic:
    options = {"num_train": 60, "num_val": 20, "num_test": 20, "batch_size": 10, "binarization": "threshold"}
    return Synthetic(image_shape=(1, 8, 8), **{**options, **arguments})


def trainer(folder: Path, **arguments: Any) -> pl.Trainer:
    options = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return pl.Trainer(default_root_dir=folder, enable_checkpointing=False, **{**options, **arguments})


def pcd(**arguments: Any) -> RBM:
    return RBM((1, 8, 8), 6, negative_phase=lambda: PersistentContrastiveDivergence(2, 12), sample_steps=3, **arguments)


def still(parameters: Any) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=0.0)


@pytest.mark.parametrize("visible", [BernoulliVisible, GaussianVisible])
def test_visible_units_start_at_the_data(visible: Any, tmp_path: Path) -> None:
    model, source = pcd(visible=visible, optimizer=still), data(binarization="none")
    trainer(tmp_path, max_epochs=1).fit(model, source)
    pixels = torch.cat([batch for batch, _ in source.train_dataloader()]).flatten(1)
    torch.testing.assert_close(model.machine.data_mean, pixels.mean(0))
    torch.testing.assert_close(model.machine.data_variance, pixels.var(0, correction=0), rtol=1e-4, atol=1e-6)
    if visible is BernoulliVisible:
        expected = (pixels.sum(0) + 1) / (len(pixels) + 2)
        torch.testing.assert_close(torch.sigmoid(model.visible.get_parameter("bias")), expected)
    else:
        assert isinstance(model.visible, GaussianVisible)
        torch.testing.assert_close(model.visible.loc, pixels.mean(0))
        torch.testing.assert_close(
            model.visible.std, pixels.std(0, correction=0).clamp(min=0.055), rtol=1e-4, atol=1e-6
        )
    # Once in its life: a machine that goes on with other images keeps its biases.
    before = model.visible.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    trainer(tmp_path, max_epochs=1).fit(model, data(seed=5, num_train=30))
    for name, value in model.visible.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    ("visible", "binarization", "rate"), [(BernoulliVisible, "stochastic", 0.1), (GaussianVisible, "none", 0.01)]
)
def test_training_raises_the_log_likelihood(visible: Any, binarization: Any, rate: float, tmp_path: Path) -> None:
    """On real images, some of whose pixels are nearly always black: steep directions for Gaussian units."""
    source = Digits(batch_size=50, binarization=binarization, subset=500)
    model = RBM(
        source.image_shape,
        10,
        visible,
        lambda: PersistentContrastiveDivergence(2, 50),
        sample_steps=3,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=0.5),
    )
    values = []

    class Measure(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            pixels = torch.cat([batch for batch, _ in source.val_dataloader()])
            values.append((-model.free_energy(pixels).mean() - model.exact_log_partition()).item())

    trainer(tmp_path, max_epochs=50, callbacks=[Measure()], check_val_every_n_epoch=50).fit(model, source)
    # Independent pixels come first: the biases are those of the data, the weights nearly zero.
    assert values[-1] > values[0] + 1.5


def test_logged_values(tmp_path: Path) -> None:
    model = pcd(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05))
    run = trainer(tmp_path, max_epochs=3, log_every_n_steps=6)
    run.fit(model, data())
    source = data()
    source.setup("fit")
    train = torch.cat([batch for batch, _ in source.train_dataloader()])
    validation = torch.cat([batch for batch, _ in source.val_dataloader()])
    gap = (model.free_energy(validation).mean() - model.free_energy(train).mean()).item()
    # All six batches of the epoch are the recent ones, with the last four of the epoch before.
    weighted = torch.cat([batch for batch, _ in model._recent])
    assert len(weighted) == 100
    measured = run.callback_metrics["val/free_energy_gap"].item()
    expected = (model.free_energy(validation).mean() - model.free_energy(weighted).mean()).item()
    assert measured == pytest.approx(expected, abs=1e-4)
    assert measured == pytest.approx(gap, abs=2.0)
    error = (model.reconstruct(validation) - validation).square().flatten(1).sum(1).mean().item()
    assert run.callback_metrics["val/reconstruction_error"].item() == pytest.approx(error, rel=1e-5)
    assert "train/reconstruction_error" in run.callback_metrics


def test_weight_decay_spares_biases() -> None:
    decayed, spared = RBM((1, 8, 8), 6, visible=GaussianVisible).configure_optimizers().param_groups
    assert [parameter.shape for parameter in decayed["params"]] == [(64, 6)]
    assert decayed["weight_decay"] == 2e-4
    assert sorted(parameter.shape[0] for parameter in spared["params"]) == [6, 64, 64]
    assert spared["weight_decay"] == 0


def test_plateau_schedules_name_what_they_watch() -> None:
    watched = functools.partial(ReduceLROnPlateau, monitor="val/free_energy_gap")
    for schedule in (torch.optim.lr_scheduler.ReduceLROnPlateau, watched):
        model = RBM((1, 8, 8), 6, lr_scheduler=schedule)
        model.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        if schedule is watched:
            assert model.configure_optimizers()["lr_scheduler"]["monitor"] == "val/free_energy_gap"
        else:
            with pytest.raises(ValueError, match="RBM has no value of its own that a ReduceLROnPlateau could watch"):
                model.configure_optimizers()


def test_half_precision_throughout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"energies are wrong in precision bf16-true.*use bf16-mixed"):
        trainer(tmp_path, max_epochs=1, precision="bf16-true").fit(pcd(), data())


def test_fixed_standard_deviations_stay(tmp_path: Path) -> None:
    model = RBM((1, 8, 8), 6, visible=lambda shape: GaussianVisible(shape, learn_std=False), sample_steps=2)
    trainer(tmp_path, max_epochs=2).fit(model, data(binarization="none"))
    expected = model.machine.data_variance.sqrt().clamp(min=0.055)
    torch.testing.assert_close(model.visible.std, expected, rtol=1e-4, atol=1e-6)  # type: ignore[arg-type]


# ---- persistent chains


def test_evaluation_leaves_the_chains_alone(tmp_path: Path) -> None:
    model = pcd()
    run = trainer(tmp_path, max_epochs=1)
    run.fit(model, data())
    assert model.negative_phase.chains is not None
    before = [part.clone() for part in model.negative_phase.chains]
    run.validate(model, data(), verbose=False)
    for part, was in zip(model.negative_phase.chains, before, strict=True):
        assert torch.equal(part, was)
    model.train()
    model.objective(torch.zeros(2, 1, 8, 8))
    assert not torch.equal(model.negative_phase.chains[0], before[0])


def test_chains_resume_exactly(tmp_path: Path) -> None:
    built: list[RBM] = []

    def make() -> RBM:
        built.append(pcd())
        return built[-1]

    assert_exact_resume(make, data, tmp_path)
    whole, _, after_signal, _, after_crash = built
    assert whole.negative_phase.chains is not None
    for resumed in (after_signal, after_crash):
        assert resumed.negative_phase.chains is not None
        for ours, theirs in zip(resumed.negative_phase.chains, whole.negative_phase.chains, strict=True):
            assert torch.equal(ours, theirs)


def test_chains_of_each_process_come_back() -> None:
    checkpoint: dict[str, Any] = {"negative_phase": [{"chains": [torch.zeros(2, 64)]}, {"chains": [torch.ones(2, 64)]}]}
    model = pcd()
    model.on_load_checkpoint(checkpoint)
    assert model.negative_phase.chains is not None
    assert torch.equal(model.negative_phase.chains[0], torch.zeros(2, 64))


def test_checkpoint_remembers_layer_and_negative_phase(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_epochs=1)
    run.fit(pcd(visible=lambda shape: GaussianVisible(shape, min_std=0.2)), data())
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = load_model(tmp_path / "model.ckpt")
    assert isinstance(loaded, RBM)
    assert isinstance(loaded.visible, GaussianVisible)
    assert loaded.visible.min_std == 0.2
    assert isinstance(loaded.negative_phase, PersistentContrastiveDivergence)
    assert (loaded.negative_phase.steps, loaded.negative_phase.num_chains) == (2, 12)
    assert loaded.negative_phase.chains is not None


def test_mistakes_are_told() -> None:
    for arguments, message in [
        ({"num_hidden": 0}, "num_hidden must be at least 1, got 0"),
        ({"sample_steps": 0}, "sample_steps must be at least 1, got 0"),
        ({"initial_weight_std": -1.0}, r"must not be negative, got -1\.0"),
        ({"centering": 2.0}, r"centering must be a rate from 0 to 1, got 2\.0"),
        ({"sparsity_target": 0.0}, r"sparsity_target must lie between 0 and 1, got 0\.0"),
        ({"sparsity_decay": 1.0}, r"sparsity_decay in \[0, 1\), got 0\.01 and 1\.0"),
        ({"visible": lambda shape: GaussianVisible(shape, min_std=0.0)}, r"min_std must be positive, got 0\.0"),
        ({"negative_phase": lambda: ContrastiveDivergence(0)}, "steps must be at least 1, got 0"),
        ({"negative_phase": lambda: PersistentContrastiveDivergence(1, 0)}, "num_chains must be at least 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            RBM((1, 4, 4), **arguments)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"gave a function; make it a subclass of lit_gen\.networks\.Recorded"):
        RBM((1, 4, 4), negative_phase=lambda: lambda machine, data, keep: machine.gibbs(data, 1))  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match=r"2\^30 states are too many"):
        RBM((1, 8, 8), 30).exact_log_partition()


# ---- centring and sparsity


def test_offsets_follow_the_means_of_the_units(tmp_path: Path) -> None:
    model = pcd(centering=1.0, optimizer=still)
    trainer(tmp_path, max_epochs=1, limit_val_batches=0).fit(model, data())
    last = model.visible_units(model._recent[-1][0])
    torch.testing.assert_close(model.machine.visible_offset, last.mean(0), atol=1e-6, rtol=0)
    torch.testing.assert_close(model.machine.hidden_offset, model.machine.hidden_mean(last).mean(0), atol=1e-6, rtol=0)


def test_centred_machines_resume_exactly(tmp_path: Path) -> None:
    assert_exact_resume(lambda: pcd(centering=0.1, sparsity_target=0.1), data, tmp_path)


def test_sparsity_pulls_the_units_to_their_target(tmp_path: Path) -> None:
    """The gradient of the penalty by hand, and what a training with it leads to."""
    model = pcd(sparsity_target=0.1, sparsity_cost=0.5)
    model.hidden_activity.copy_(torch.linspace(0, 1, 6))
    batch = torch.rand(10, 1, 8, 8).round()
    gradients = []
    for sparse in (False, True):
        model.sparsity_target = 0.1 if sparse else None
        model.negative_phase.load_state({"chains": [torch.zeros(12, 64)]})
        model.zero_grad()
        torch.manual_seed(0)
        model.objective(batch).loss.backward()
        gradients.append([model.machine.weight.grad, model.machine.hidden_bias.grad])
    pull = 0.5 * (torch.linspace(0, 1, 6) - 0.1)
    torch.testing.assert_close(gradients[1][1] - gradients[0][1], pull)  # type: ignore[operator]
    expected = torch.outer(batch.flatten(1).mean(0), pull)
    torch.testing.assert_close(gradients[1][0] - gradients[0][0], expected, rtol=1e-4, atol=1e-6)  # type: ignore[operator]
    shares = []
    for target in (None, 0.1):
        model = pcd(sparsity_target=target, sparsity_cost=1.0)
        trainer(tmp_path, max_epochs=40, limit_val_batches=0).fit(model, data())
        images = torch.cat([batch for batch, _ in data_loader()])
        shares.append(model.features(images).mean().item())
    assert shares[0] > 0.25
    assert shares[1] == pytest.approx(0.1, abs=0.05)


def data_loader() -> Any:
    source = data()
    source.setup("fit")
    return source.train_dataloader()


# ---- where samples start


def test_samples_that_start_at_the_chains() -> None:
    model = RBM((1, 2, 2), 5, negative_phase=PersistentContrastiveDivergence, sample_start="chains", sample_steps=1)
    with pytest.raises(ValueError, match="needs the chains of a trained negative phase, and there are none"):
        model.sample(2)
    with torch.no_grad():
        model.machine.weight.copy_(torch.eye(5)[:4] * 40)
        model.machine.hidden_bias.fill_(-20)
        model.visible.get_parameter("bias").fill_(-20)
    chains = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0]])
    model.negative_phase.load_state({"chains": [chains]})
    # Every hidden unit copies a pixel, and every pixel a hidden unit: the chains stand still.
    assert torch.equal(model.sample(3).flatten(1).round(), chains[[0, 1, 0]])


def test_dreams_from_images() -> None:
    model, batch = RBM((1, 3, 3), 5, initial_weight_std=1.0), torch.rand(4, 1, 3, 3).round()
    torch.manual_seed(0)
    frames = [frame.images for frame in model.dream_from(batch, 3)]
    torch.manual_seed(0)
    expected = model.visible_mean(model.gibbs(model.data_state(batch), 3)[1])
    assert len(frames) == 3
    torch.testing.assert_close(frames[-1], expected)
