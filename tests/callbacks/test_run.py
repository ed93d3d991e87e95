"""The remaining callbacks of a run: configuration, compilation, and which callbacks a model gets."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from lit_gen.callbacks import BestAndLast, Compile, RunConfig, default_callbacks, run_folder
from lit_gen.models import VAE, Classifier
from lit_gen.models.base import GenerativeModel, HasTrajectory
from tests.callbacks import offline_run
from tests.callbacks.tiny import SHAPE, data, small, trainer, vae


def configuration() -> tuple[ArgumentParser, Namespace]:
    parser = ArgumentParser()
    parser.add_argument("--model.latent_dim", type=int, default=2)
    parser.add_argument("--seed", type=int | None, default=None)
    return parser, parser.parse_args([])


def test_config_lies_in_the_run_folder_and_that_of_the_fit_stays(tmp_path: Path) -> None:
    run = trainer(tmp_path, RunConfig(*configuration()), logger=CSVLogger(tmp_path, name="", version="run"))
    model = vae()
    run.fit(model, data())
    again = trainer(tmp_path, RunConfig(*configuration()), logger=CSVLogger(tmp_path, name="", version="run"))
    with pytest.warns(UserWarning, match="Experiment logs directory .* exists and is not empty"):
        again.test(model, data(), verbose=False)
    expected = {"model": {"latent_dim": 2}, "seed": None}
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text()) == expected
    assert yaml.safe_load((tmp_path / "run" / "config_test.yaml").read_text()) == expected


def test_a_fit_with_nothing_left_to_train_has_its_config(tmp_path: Path) -> None:
    first = trainer(tmp_path)
    first.fit(vae(), data())
    first.save_checkpoint(tmp_path / "done.ckpt")
    trainer(tmp_path, RunConfig(*configuration())).fit(vae(), data(), ckpt_path=tmp_path / "done.ckpt")
    assert (tmp_path / "config.yaml").is_file()


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")
def test_a_refused_run_leaves_the_config_of_the_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    (tmp_path / "config.yaml").write_text("earlier: 1\n")
    with pytest.raises(FileExistsError, match="of an earlier run"):
        trainer(tmp_path, RunConfig(*configuration()), BestAndLast()).fit(vae(), data())
    assert (tmp_path / "config.yaml").read_text() == "earlier: 1\n"


def test_a_trial_run_writes_no_config(tmp_path: Path) -> None:
    trainer(tmp_path, RunConfig(*configuration()), fast_dev_run=True).fit(vae(), data())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:The `anonymous` setting has no effect:UserWarning")
def test_two_runs_of_a_weights_and_biases_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folders = []
    for _ in range(2):
        run = trainer(tmp_path, RunConfig(*configuration()), logger=WandbLogger(project="project", save_dir=tmp_path))
        try:
            run.fit(vae(), data())
        finally:
            wandb.finish()
        folders.append(run_folder(run))
    assert folders[0] != folders[1]
    assert all((folder / "config.yaml").is_file() for folder in folders)
    for folder in (tmp_path / "wandb").glob("offline-run-*"):
        assert offline_run.config(folder)["cli"] == {"model": {"latent_dim": 2}, "seed": None}


# torch hides this warning of its own by a filter that comes after the one of the tests.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_networks_are_compiled_and_keep_their_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = vae()
    trainer(tmp_path, limit_train_batches=2, limit_val_batches=0).fit(plain, data())
    torch.manual_seed(0)
    model = vae()
    calls: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        calls.append(len(inputs))
        return graph.forward

    torch._dynamo.reset()  # it remembers code that an earlier test had it leave alone
    torch._dynamo.register_backend(backend, "counting")
    trainer(tmp_path, Compile(backend="counting"), limit_train_batches=2, limit_val_batches=0).fit(model, data())
    assert len(calls) >= 2, "encoder and decoder are compiled each on its own"
    assert model.state_dict().keys() == plain.state_dict().keys()
    for name, value in plain.state_dict().items():
        assert torch.allclose(value, model.state_dict()[name], atol=1e-6), name


class Moving(VAE, HasTrajectory):
    def trajectory(self, num_samples: int, condition: Any = None) -> Any:
        raise NotImplementedError


class Drawing(GenerativeModel):
    """Can do nothing but draw."""


COMMON = {"BestAndLast", "ExactResume", "ValidateAtEnd", "Doctor"}
SAMPLES = {"SampleGrid", "ImageWriter"}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lambda: Classifier(SHAPE, 3), COMMON),
        (lambda: Drawing(SHAPE), COMMON | SAMPLES),
        (vae, COMMON | SAMPLES | {"ReconstructionGrid", "LatentGrid", "ImportanceBound"}),
        (
            lambda: Moving(SHAPE, 2, small, small),
            COMMON | SAMPLES | {"ReconstructionGrid", "LatentGrid", "ImportanceBound", "Trajectory"},
        ),
    ],
    ids=["Classifier", "only draws", "VAE", "with trajectory"],
)
def test_default_callbacks_follow_the_capabilities(model: Any, expected: set[str]) -> None:
    assert {type(callback).__name__ for callback in default_callbacks(model())} == expected


def test_default_callbacks_work_together(tmp_path: Path) -> None:
    model = vae()
    run = trainer(tmp_path, *default_callbacks(model), logger=CSVLogger(tmp_path, name="", version="run"))
    run.fit(model, data())
    (result,) = run.test(model, data(), ckpt_path="best", verbose=False)
    assert "test/log_likelihood_iw200" in result
    run.predict(model, data(), return_predictions=False)
    shown = {str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")}
    names = ("samples", "reconstructions", "interpolations", "image_interpolations", "manifold")
    expected = {os.path.join("run", "images", stage, name) for stage in ("val", "test") for name in names}
    assert shown == expected | {os.path.join("run", "samples")}
