"""Which checkpoints a run keeps, and that a failed save harms none of them."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_gen.callbacks import AtomicCheckpointIO, BestAndLast
from lit_gen.callbacks.checkpoints import misspelt
from lit_gen.models import VAE
from tests.callbacks.tiny import SHAPE, data, file_size_limit, small, trainer, vae

NO_VALIDATION = pytest.mark.filterwarnings("ignore:Total length of .list. across ranks is zero:UserWarning")


class Worsening(VAE):
    """Its validation loss is a given number for each epoch."""

    losses = (2.0, 1.0, 3.0, 4.0)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", self.losses[self.current_epoch])


def epochs(folder: Path) -> dict[str, int]:
    return {path.name: torch.load(path, weights_only=True)["epoch"] for path in folder.glob("*.ckpt")}


def test_best_and_last_are_kept(tmp_path: Path) -> None:
    keeper = BestAndLast()
    trainer(tmp_path, keeper, max_epochs=4).fit(Worsening(SHAPE, 2, small, small), data())
    assert epochs(tmp_path / "checkpoints") == {"epoch001-step0000012.ckpt": 1, "last.ckpt": 3}
    assert Path(keeper.best_model_path).name == "epoch001-step0000012.ckpt"
    assert keeper.best_model_score == 1.0


@pytest.mark.parametrize(("mode", "top", "expected"), [("max", 1, {3}), ("min", 2, {0, 1})])
def test_mode_and_number(mode: Any, top: int, expected: set[int], tmp_path: Path) -> None:
    trainer(tmp_path, BestAndLast(mode=mode, save_top_k=top), max_epochs=4).fit(
        Worsening(SHAPE, 2, small, small), data()
    )
    kept = epochs(tmp_path / "checkpoints")
    assert kept.pop("last.ckpt") == 3
    assert set(kept.values()) == expected


def test_the_model_names_what_is_best(tmp_path: Path) -> None:
    class Newest(Worsening):
        monitor = None

    class Largest(Worsening):
        monitor_mode = "max"

    for kind, expected in ((Newest, 3), (Largest, 3), (Worsening, 1)):
        keeper = BestAndLast()
        trainer(tmp_path / kind.__name__, keeper, max_epochs=4).fit(kind(SHAPE, 2, small, small), data())
        assert torch.load(keeper.best_model_path, weights_only=True)["epoch"] == expected
    with pytest.raises(ValueError, match="save_top_k=2 needs a value to choose by, and Newest names none"):
        trainer(tmp_path / "two", BestAndLast(save_top_k=2)).fit(Newest(SHAPE, 2, small, small), data())


@NO_VALIDATION
def test_best_without_validation_is_the_newest(tmp_path: Path) -> None:
    keeper = BestAndLast()
    model, run = vae(), trainer(tmp_path, keeper, max_epochs=3)
    run.fit(model, data(num_val=0))
    assert epochs(tmp_path / "checkpoints") == {"epoch002-step0000018.ckpt": 2, "last.ckpt": 2}
    run.test(model, data(), ckpt_path="best", verbose=False)


def test_last_is_rewritten_within_long_epochs(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    class Stops(VAE):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            if batch_idx == 5:
                raise Stop
            return super().training_step(batch, batch_idx)

    with pytest.raises(Stop):
        trainer(tmp_path, BestAndLast(every_n_train_steps=2)).fit(Stops(SHAPE, 2, small, small), data())
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4


def test_saving_within_the_epoch_does_not_hide_the_best(tmp_path: Path) -> None:
    # The last batch of the epoch is one of those after which `last.ckpt` is rewritten.
    trainer(tmp_path, BestAndLast(every_n_train_steps=3), max_epochs=2).fit(Worsening(SHAPE, 2, small, small), data())
    assert epochs(tmp_path / "checkpoints") == {"epoch001-step0000012.ckpt": 1, "last.ckpt": 1}


def test_a_resumed_run_remembers_the_best(tmp_path: Path) -> None:
    trainer(tmp_path / "a", BestAndLast(), max_epochs=2).fit(Worsening(SHAPE, 2, small, small), data())
    keeper = BestAndLast()
    run = trainer(tmp_path / "b", keeper, max_epochs=4)
    run.fit(Worsening(SHAPE, 2, small, small), data(), ckpt_path=tmp_path / "a" / "checkpoints" / "last.ckpt")
    assert keeper.best_model_score == 1.0
    assert Path(keeper.best_model_path) == tmp_path / "a" / "checkpoints" / "epoch001-step0000012.ckpt"
    assert Path(keeper.best_model_path).is_file()
    assert epochs(tmp_path / "b" / "checkpoints") == {"last.ckpt": 3}


def test_a_value_that_is_not_logged_is_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="val/fdi is not logged yet.*logged are:.*val/loss"):
        trainer(tmp_path, BestAndLast("val/fdi")).fit(vae(), data())
    assert epochs(tmp_path / "checkpoints") == {"last.ckpt": 0}


class Quick(Worsening):
    """Logs its value of validation too late to be known after the first validation."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/elbo", 1.0)
        if self.current_epoch > 0:
            self.log("val/level2/elbo", -float(self.current_epoch))
        self.log("val/level1/elbo", 1.0)


@pytest.mark.parametrize("sanity", [0, 2])
def test_a_misspelt_value_ends_the_run_after_the_first_validation(sanity: int, tmp_path: Path) -> None:
    run = trainer(tmp_path, BestAndLast("val/elboo"), max_epochs=3, num_sanity_val_steps=sanity)
    with pytest.raises(ValueError, match=r"monitor 'val/elboo' is not logged.* did you mean 'val/elbo'\?.*val/loss"):
        run.fit(vae(), data())
    assert run.global_step == 6


@pytest.mark.filterwarnings("ignore:val/level2/elbo is not logged yet:UserWarning")
def test_a_value_that_comes_later_is_waited_for(tmp_path: Path) -> None:
    keeper = BestAndLast("val/level2/elbo")
    trainer(tmp_path, keeper, max_epochs=3).fit(Quick(SHAPE, 2, small, small), data())
    assert keeper.best_model_score == -2


@NO_VALIDATION
def test_without_validation_no_name_is_wrong(tmp_path: Path) -> None:
    keeper = BestAndLast("val/elboo")
    trainer(tmp_path, keeper).fit(vae(), data(num_val=0))
    assert Path(keeper.best_model_path).is_file()


@pytest.mark.parametrize(
    ("monitor", "meant"),
    [
        ("val/elboo", "val/elbo"),
        ("val/los", "val/loss"),
        ("val_loss", "val/loss"),
        ("loss", "val/loss"),
        ("val/fid", None),
        ("val/log_likelihood_iw5", None),
        ("train/loss", None),
        ("val/klt", None),
    ],
)
def test_misspelt_names(monitor: str, meant: str | None) -> None:
    logged = ["train/loss", "train/elboo", "val/loss", "val/elbo", "val/kl", "val/kid", "val/log_likelihood_iw50"]
    assert misspelt(monitor, logged) == meant


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")
def test_checkpoints_of_an_earlier_run_are_not_overwritten(tmp_path: Path) -> None:
    folder, first = tmp_path / "checkpoints", BestAndLast()
    run = trainer(tmp_path, first)
    run.fit(vae(), data())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FileExistsError, match=r"last\.ckpt' is of an earlier run.*--ckpt_path.*default_root_dir"):
        trainer(tmp_path, BestAndLast()).fit(vae(), data())
    trainer(tmp_path, BestAndLast(), fast_dev_run=True).fit(vae(), data())  # a trial run saves nothing
    trainer(tmp_path, BestAndLast()).test(vae(), data(), verbose=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    run.fit_loop.max_epochs = 2
    run.fit(vae(), data())  # the same trainer goes on
    assert epochs(folder)["last.ckpt"] == 1
    trainer(tmp_path, BestAndLast(), max_epochs=3).fit(vae(), data(), ckpt_path=folder / "last.ckpt")
    assert epochs(folder)["last.ckpt"] == 2
    trainer(tmp_path / "other", BestAndLast(), max_epochs=4).fit(vae(), data(), ckpt_path=folder / "last.ckpt")
    with pytest.raises(FileExistsError, match="of an earlier run"):
        trainer(tmp_path / "other", BestAndLast(), max_epochs=4).fit(vae(), data(), ckpt_path=folder / "last.ckpt")


def save(path: Path, value: float) -> None:
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.full((1000,), value)}}, path)


def load(path: Path) -> float:
    return float(AtomicCheckpointIO().load_checkpoint(path)["state_dict"]["w"][0])


def test_saves_and_loads(tmp_path: Path) -> None:
    save(tmp_path / "new" / "last.ckpt", 1.0)
    save(tmp_path / "new" / "last.ckpt", 2.0)
    assert load(tmp_path / "new" / "last.ckpt") == 2.0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["last.ckpt"]


def test_a_save_that_fails_half_way_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    save(path, 1.0)
    with file_size_limit(2000), pytest.raises(OSError, match=r"cannot write '.*last\.ckpt': .*free some space"):
        save(path, 2.0)
    assert load(path) == 1.0
    assert [found.name for found in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_full_disk_at_any_moment(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    save(path, 1.0)

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, moment, full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        save(path, 2.0)
    assert caught.value.errno == errno.ENOSPC
    assert load(path) == 1.0
    assert [found.name for found in tmp_path.iterdir()] == ["last.ckpt"]


def test_an_interrupted_save_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    save(path, 1.0)

    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(path, 2.0)
    assert load(path) == 1.0
    assert [found.name for found in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_failed_save_ends_the_run_and_spares_its_checkpoint(tmp_path: Path) -> None:
    class Fills(BestAndLast):
        """The disk is full in the second epoch."""

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            with file_size_limit(10**9 if trainer.current_epoch == 0 else 2000):
                super().on_train_epoch_end(trainer, pl_module)

    with pytest.raises(OSError, match="cannot write"):
        trainer(tmp_path, Fills(), max_epochs=3).fit(vae(), data())
    assert epochs(tmp_path / "checkpoints") == {"epoch000-step0000006.ckpt": 0, "last.ckpt": 0}
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("length", [0, 1000])
def test_a_broken_checkpoint_is_named(length: int, tmp_path: Path) -> None:
    path = tmp_path / "broken.ckpt"
    save(path, 1.0)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"cannot read '.*broken\.ckpt': it is truncated"):
        trainer(tmp_path).fit(vae(), data(), ckpt_path=path)
