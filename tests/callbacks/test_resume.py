"""Interruptions, and runs that go on after them."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor

from lit_gen.callbacks import ExactResume
from lit_gen.callbacks.evaluation import random_states, seed_generators, set_random_states
from lit_gen.models import VAE
from tests.callbacks.tiny import data, vae
from tests.resume import Recorder, assert_exact_resume, fit


class Noisy(VAE):
    """Draws from numpy's generator too, and has a schedule."""

    def __init__(self) -> None:
        super().__init__((1, 8, 8), latent_dim=2, lr_scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.5))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx) * (1 + np.random.rand())  # noqa: NPY002
        self.last_values["noisy"] = loss.detach()
        return loss


class CountsLate(VAE):
    """Changes its state in the very last hook of a batch."""

    def __init__(self) -> None:
        super().__init__((1, 8, 8), latent_dim=2)
        self.register_buffer("batches", torch.zeros(()))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.batches += 1


@pytest.mark.parametrize(
    ("interrupt_at", "arguments"),
    [
        (3, {}),
        (8, {}),
        (4, {"accumulate_grad_batches": 2}),
        (2, {"val_check_interval": 0.5}),
        (3, {"limit_val_batches": 0}),
    ],
    ids=["first epoch", "second epoch", "accumulated gradients", "validation within the epoch", "no validation"],
)
def test_resumed_run_equals_uninterrupted_run(interrupt_at: int, arguments: dict[str, Any], tmp_path: Path) -> None:
    assert_exact_resume(Noisy, data, tmp_path, interrupt_at, **arguments)


def test_averaged_weights_resume_exactly(tmp_path: Path) -> None:
    assert_exact_resume(Noisy, data, tmp_path, make_callbacks=lambda: (EMAWeightAveraging(decay=0.9),))


def test_everything_that_belongs_to_the_batch_is_done_before_a_signal_stops(tmp_path: Path) -> None:
    whole = CountsLate()
    fit(whole, data(), tmp_path / "whole", Recorder())
    with pytest.raises(SystemExit):
        fit(CountsLate(), data(), tmp_path, Recorder(2))
    resumed = CountsLate()
    fit(resumed, data(), tmp_path / "on", Recorder(), tmp_path / "checkpoints" / "last.ckpt")
    assert resumed.batches == whole.batches == 12


@pytest.mark.parametrize(
    ("interrupt_at", "arguments", "stops_after"),
    [
        (5, {}, 7),  # the last batch of the epoch: validation and the end of the epoch come first
        (1, {"val_check_interval": 2}, 3),  # a batch before a validation
        (0, {"accumulate_grad_batches": 2}, 2),  # a batch before the optimizer steps
        (11, {}, None),  # the last batch of all: the run ends as it should
    ],
)
def test_signals_wait_for_a_batch_that_resumes(
    interrupt_at: int, arguments: dict[str, Any], stops_after: int | None, tmp_path: Path
) -> None:
    recorder = Recorder(interrupt_at)
    if stops_after is None:
        fit(vae(), data(), tmp_path, recorder, **arguments)
    else:
        with pytest.raises(SystemExit) as caught:
            fit(vae(), data(), tmp_path, recorder, **arguments)
        assert caught.value.code == 143
    assert len(recorder.terms) == (stops_after or 12)


class Impatient(pl.Callback):
    """Sends SIGTERM again and again within a batch (a shell may start tests with Ctrl-C ignored)."""

    def on_train_batch_start(self, *args: Any) -> None:
        for _ in range(100):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.02)  # two signals that come at once count as one


def test_a_second_signal_acts_at_once(tmp_path: Path) -> None:
    recorder = Recorder()
    with pytest.raises(SystemExit) as caught:
        fit(vae(), data(), tmp_path, recorder, callbacks=(Impatient(),))
    assert caught.value.code == 143
    assert recorder.terms == []
    assert not (tmp_path / "checkpoints").exists()


def test_signal_handlers_are_put_back(tmp_path: Path) -> None:
    assert threading.current_thread() is threading.main_thread()
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    fit(vae(), data(), tmp_path / "whole", Recorder())
    with pytest.raises(SystemExit):
        fit(vae(), data(), tmp_path, Recorder(1))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_validation_uses_up_none_of_the_random_numbers_of_training(tmp_path: Path) -> None:
    models = []
    for validate in (0, 1.0):
        torch.manual_seed(0)
        models.append(vae())
        fit(models[-1], data(), tmp_path / str(validate), Recorder(), limit_val_batches=validate)
    for name, value in models[0].state_dict().items():
        assert torch.equal(value, models[1].state_dict()[name]), name


def test_states_of_generators_are_plain_and_come_back(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    seed_generators(5)
    torch.save(random_states(cpu), tmp_path / "states.pt")
    drawn = (torch.rand(3).tolist(), np.random.rand(3).tolist())  # noqa: NPY002
    seed_generators(6)
    # With weights_only, as checkpoints are read.
    set_random_states(torch.load(tmp_path / "states.pt", weights_only=True), cpu)
    assert (torch.rand(3).tolist(), np.random.rand(3).tolist()) == drawn  # noqa: NPY002


def test_the_generator_of_the_accelerator_is_kept_after_the_model_left_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit moves the model back to the CPU in the end; a checkpoint saved then is still of that device."""

    class Strategy:
        root_device = torch.device("cuda", 1)

    class Run:
        strategy = Strategy()
        world_size = 1

    monkeypatch.setattr("lit_gen.callbacks.resume.random_states", lambda device: {"of": device})
    checkpoint: dict[str, Any] = {}
    ExactResume().on_save_checkpoint(Run(), vae(), checkpoint)  # type: ignore[arg-type]
    assert checkpoint["random_states"] == [{"of": torch.device("cuda", 1)}]


def test_another_number_of_processes_is_told(tmp_path: Path) -> None:
    fit(vae(), data(), tmp_path, Recorder())
    path = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["random_states"] *= 2
    torch.save(checkpoint, path)
    with pytest.warns(UserWarning, match="random states of 2 processes, this run has 1"):
        fit(vae(), data(), tmp_path / "on", Recorder(), path, max_epochs=3)


SCRIPT = """
import sys, time
from pathlib import Path
import torch
from tests.callbacks.tiny import data, vae
from tests.resume import Recorder, fit

class Slow(Recorder):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        time.sleep(0.05)

torch.manual_seed(0)
fit(vae(), data(), Path(sys.argv[1]), Slow(), max_epochs=1000)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_real_signal_ends_a_real_process(number: signal.Signals, code: int, tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], env={**os.environ, "PYTHONPATH": root}, stderr=subprocess.DEVNULL
    )
    last = tmp_path / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 60
    while not last.is_file():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(30) == code
    done = torch.load(last, weights_only=True)["global_step"]
    epochs = done // 6 + 1
    torch.manual_seed(0)
    whole_model, whole = vae(), Recorder()
    fit(whole_model, data(), tmp_path / "whole", whole, max_epochs=epochs)
    resumed_model, resumed = vae(), Recorder()
    fit(resumed_model, data(), tmp_path / "on", resumed, last, max_epochs=epochs)
    assert [terms["loss"].tolist() for terms in whole.terms[done:]] == [t["loss"].tolist() for t in resumed.terms]
    for name, value in whole_model.state_dict().items():
        assert torch.equal(resumed_model.state_dict()[name], value), name
