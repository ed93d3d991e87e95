"""Negative phases: fast weights by hand, tempered chains by enumeration, steps by the epoch."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from scipy import stats
from torch import Tensor

from lit_gen.data import Synthetic
from lit_gen.inference import binary_states
from lit_gen.models import (
    RBM,
    ContrastiveDivergence,
    FastPersistentContrastiveDivergence,
    GrowingSteps,
    ParallelTempering,
    PersistentContrastiveDivergence,
    load_model,
)
from lit_gen.models.negative_phase import swap_probability
from lit_gen.networks import State
from tests.resume import assert_exact_resume
from tests.toy_rbm import IMAGES, SLOW_LOG_Z, images, log_probabilities, numbers, slow_toy, toy


def data() -> Synthetic:
    return Synthetic((1, 4, 4), num_train=50, num_val=10, num_test=10, batch_size=10, binarization="threshold")


def counts_agree(visible: Tensor, probabilities: Tensor) -> float:
    """p-value of the states having been drawn from these probabilities of all states."""
    observed = torch.bincount(numbers(visible), minlength=len(probabilities)).numpy()
    return float(stats.chisquare(observed, (probabilities / probabilities.sum() * len(visible)).numpy()).pvalue)


# ---- fast weights


def test_fast_weights_follow_the_gradient_and_drive_the_chains() -> None:
    model = toy()
    phase = FastPersistentContrastiveDivergence(1, 20, fast_lr=0.3, fast_decay=0.9)
    model.negative_phase = phase
    expected = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        before = [part.clone() for part in model.parameters()]
        optimizer.zero_grad()
        model.objective(images(IMAGES, model)).loss.backward()
        for part, was in zip(model.parameters(), before, strict=True):
            assert torch.equal(part, was), "the slow weights are as they were"
        model.on_before_optimizer_step(optimizer)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            expected[name] = 0.9 * expected[name] - 0.3 * parameter.grad
            assert torch.equal(phase.fast[name], expected[name])
        optimizer.step()
    # The next chains are those of plain PCD in a machine whose weights are the sum.
    assert phase.chains is not None
    plain, summed = PersistentContrastiveDivergence(1, 20), toy()
    plain.chains = phase.chains
    with torch.no_grad():
        for (name, part), slow in zip(summed.named_parameters(), model.parameters(), strict=True):
            part.copy_(slow + expected[name])
    torch.manual_seed(5)
    ours = phase(model, model.data_state(images(IMAGES, model)), keep=True)
    torch.manual_seed(5)
    for part, theirs in zip(ours, plain(summed, model.data_state(images(IMAGES, model)), keep=True), strict=True):
        assert torch.equal(part, theirs)


def test_an_overflow_of_fp16_spoils_no_fast_weight() -> None:
    model, phase = toy(), FastPersistentContrastiveDivergence(fast_lr=0.5, fast_decay=0.9)
    phase.fast = {"machine.weight": torch.ones(6, 4, dtype=torch.float64)}
    model.weight.grad = torch.tensor([torch.inf, -torch.inf, torch.nan, 2.0]).double().expand(6, 4)
    phase.on_gradient(model)
    assert phase.fast["machine.weight"][0].tolist() == pytest.approx([0.9, 0.9, 0.9, -0.1])


def test_fast_weights_come_back_even_after_an_error() -> None:
    model = toy()
    phase = FastPersistentContrastiveDivergence()
    phase.fast = {"machine.weight": torch.ones(6, 4)}
    before = model.weight.clone()
    with pytest.raises(IndexError):
        phase(model, (), keep=True)
    assert torch.equal(model.weight, before)


# ---- parallel tempering


def exact_at(model: RBM, beta: float) -> Tensor:
    """log f_beta of all states from the definition, normalised: hidden units summed out one by one."""
    states, machine = binary_states(6), model.machine
    base = machine.visible.base(machine.data_mean, machine.data_variance)[0]
    hidden = binary_states(4)
    joint = beta * torch.stack([-machine.energy(states, row.expand(64, -1)) for row in hidden], 1)
    return torch.log_softmax((1 - beta) * states @ base + joint.logsumexp(1), 0).detach()


def with_base(model: RBM) -> RBM:
    model.machine.data_mean.copy_(torch.linspace(0.2, 0.8, 6))
    return model


def test_swaps_are_in_detailed_balance() -> None:
    model = with_base(slow_toy())
    path = model.annealed_path()
    every = binary_states(6)
    hot, cold = path.state(every.repeat_interleave(64, 0)), path.state(every.repeat(64, 1))
    for beta, colder in ((0.0, 0.3), (0.4, 1.0)):
        accepted = swap_probability(path, hot, cold, beta, colder).unflatten(0, (64, 64)).detach()
        flow = (exact_at(model, beta)[:, None] + exact_at(model, colder)).exp() * accepted
        torch.testing.assert_close(flow, flow.T, rtol=0, atol=1e-15)
        assert accepted.max() == 1
        assert 0 < accepted.min() < 0.9


def test_the_exact_distribution_at_every_temperature_stays() -> None:
    model, count = with_base(toy()), 30_000
    phase = ParallelTempering(2, count, num_temperatures=4)
    assert phase.betas == [0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1]
    exact = [exact_at(model, beta).exp() for beta in phase.betas]
    states = binary_states(6)
    phase.chains = tuple(states[torch.multinomial(p, count, replacement=True)] for p in exact)
    torch.manual_seed(0)
    visible, hidden = phase(model, (states,), keep=True)
    for chains, probabilities in zip(phase.chains, exact, strict=True):
        assert counts_agree(chains, probabilities) > 1e-3
    assert counts_agree(chains, exact[0]) < 1e-9, "the test can tell temperatures apart"
    # Neighbours stay independent of each other.
    for first, second in pairwise(phase.chains):
        correlation = torch.corrcoef(torch.cat([first, second], 1).T)[:6, 6:]
        assert correlation.abs().max() < 4.5 / math.sqrt(count)
    assert torch.equal(visible, phase.chains[-1])
    assert (hidden.mean(0) - model.machine.hidden_mean(visible).mean(0)).abs().max() < 0.05
    # The expected share of accepted swaps is a sum over all pairs of states.
    path = model.annealed_path()
    pair = path.state(states.repeat_interleave(64, 0)), path.state(states.repeat(64, 1))
    accepted = swap_probability(path, *pair, phase.betas[2], 1.0).detach().unflatten(0, (64, 64))
    expected = (exact[2][:, None] * exact[3] * accepted).sum().item()
    assert phase.swap_rates is not None
    assert phase.swap_rates[2].item() == pytest.approx(expected, abs=0.015)
    assert phase.values()["swap_rate"] == phase.swap_rates.min()


def test_tempered_chains_cross_where_gibbs_chains_stay() -> None:
    model = slow_toy()
    assert model.exact_log_partition().item() == pytest.approx(SLOW_LOG_Z, abs=1e-8)
    exact = log_probabilities(model).detach().exp()
    start = binary_states(6)[exact.argmax()].expand(4000, -1)
    torch.manual_seed(0)
    assert counts_agree(model.gibbs((start,), 60)[0], exact) < 1e-9
    phase = ParallelTempering(60, 4000, num_temperatures=6)
    assert counts_agree(phase(model, (start,), keep=False)[0], exact) > 1e-3
    assert phase.chains is None, "evaluation keeps nothing"
    assert phase.values() == {}


# ---- what they share


@pytest.mark.parametrize(
    "make",
    [
        lambda: FastPersistentContrastiveDivergence(GrowingSteps(1, 3), 12, fast_lr=0.1),
        lambda: ParallelTempering(2, 12, 3),
    ],
)
def test_exact_resume(make: Any, tmp_path: Path) -> None:
    built: list[RBM] = []

    def build() -> RBM:
        built.append(RBM((1, 4, 4), 6, negative_phase=make, sample_steps=3))
        return built[-1]

    assert_exact_resume(build, data, tmp_path)
    whole, _, after_signal, _, after_crash = (model.negative_phase for model in built)
    for resumed in (after_signal, after_crash):
        torch.testing.assert_close(resumed.state(), whole.state(), rtol=0, atol=0)
        assert resumed.steps == whole.steps


class Counting(ContrastiveDivergence):
    """Writes down how many steps were made in training."""

    def __call__(self, machine: Any, state: State, keep: bool) -> State:
        if keep:
            self.made = [*getattr(self, "made", []), self.steps]
        return super().__call__(machine, state, keep)


def test_steps_grow_with_the_epochs(tmp_path: Path) -> None:
    model = RBM((1, 4, 4), 6, negative_phase=lambda: Counting(GrowingSteps(2, 3)), sample_steps=2)
    options: dict[str, Any] = {"accelerator": "cpu", "logger": False, "default_root_dir": tmp_path}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    run = pl.Trainer(max_epochs=8, limit_train_batches=1, limit_val_batches=0, **options, **quiet)
    run.fit(model, data())
    assert model.negative_phase.made == [1, 1, 2, 2, 3, 3, 3, 3]  # type: ignore[attr-defined]
    run.save_checkpoint(tmp_path / "model.ckpt")
    stored = torch.load(tmp_path / "model.ckpt", weights_only=True)["hyper_parameters"]["negative_phase"]
    growing = {"class_path": "lit_gen.models.schedules.GrowingSteps", "init_args": {"every_n_epochs": 2, "maximum": 3}}
    assert stored["init_args"]["steps"] == growing


def test_a_checkpoint_brings_the_steps_of_its_epoch(tmp_path: Path) -> None:
    model = RBM((1, 4, 4), 6, negative_phase=lambda: ContrastiveDivergence(GrowingSteps(1, 9)), sample_steps=2)
    options: dict[str, Any] = {"accelerator": "cpu", "logger": False, "default_root_dir": tmp_path}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    run = pl.Trainer(max_epochs=4, limit_val_batches=0, **options, **quiet)
    run.fit(model, data())
    assert model.negative_phase.steps == 4
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = load_model(tmp_path / "model.ckpt")
    assert isinstance(loaded, RBM)
    assert isinstance(loaded.negative_phase.schedule, GrowingSteps)
    assert loaded.negative_phase.steps >= 4


def test_mistakes_are_told() -> None:
    for make, message in [
        (lambda: FastPersistentContrastiveDivergence(fast_lr=-0.1), r"got -0\.1 and 0\.95"),
        (lambda: FastPersistentContrastiveDivergence(fast_decay=1.0), r"in \[0, 1\), got 0\.01 and 1\.0"),
        (lambda: ParallelTempering(num_temperatures=1), "num_temperatures at least 2, got 100 and 1"),
        (lambda: GrowingSteps(0), "must be at least 1, got 0 and 25"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match="needs a machine that can be heated, and BoltzmannLayer is none"):
        ParallelTempering()(toy().machine, (IMAGES,), keep=False)
