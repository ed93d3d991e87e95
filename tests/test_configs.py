"""Every ready config parses, and runs end to end on synthetic data of the same kind."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lit_gen.cli.command import config_folder, main
from lit_gen.data import CaptionedDigits
from lit_gen.models import AlignDRAW
from lit_gen.models.checkpoint import stored_hyperparameters

CONFIGS = sorted(
    path.relative_to(config_folder()).with_suffix("").as_posix() for path in config_folder().glob("*/*.yaml")
)
OVERLAYS = [name for name in CONFIGS if name.split("/")[0] in ("trainer", "logger")]
SWEEPS = [name for name in CONFIGS if name.startswith("sweep/")]
EXPERIMENTS = [name for name in CONFIGS if name not in OVERLAYS + SWEEPS]


def class_of(name: str) -> str:
    config = yaml.safe_load((config_folder() / f"{name}.yaml").read_text())
    return str(config["model"]["class_path"] if isinstance(config["model"], dict) else config["model"])


def of_each_class_one(names: list[str]) -> list[Any]:
    """The first config of each model in the default suite, the others among the slow tests."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(class_of(name), name)
    return [pytest.param(name, marks=() if name in first.values() else pytest.mark.slow) for name in names]


SMALL = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
SMALL += ["--trainer.enable_model_summary=false", "--trainer.check_val_every_n_epoch=1"]
DIFFUSIONS = ("DPM2015", "DDPM", "ClassDDPM")
ENERGIES = ("RBM", "ClassRBM", "DBM", "DBN")
CAPTIONED = ("CaptionedDigits", "CocoCaptions", "CaptionedFolder")
COLOUR = ("cifar10", "folder")
COLOURED = ("CIFAR10", "SVHN", "SVHNNumbers", "CelebA", "ImageFolder")


MOMENTS = ("exp_avg", "exp_avg_sq")
"""What Adam remembers of each weight."""
COMPARED_BY = {"FeatureDistance": "comparator", "DeePSiMInversion": "inverted"}
"""What has a comparator, and the name of that argument."""


def with_small_comparators(part: Any) -> Any:
    """A config whose comparators learn for two steps: a minute of them says no more of it."""
    if part == "FeatureDistance":
        part = {"class_path": part}
    if not isinstance(part, dict):
        return part
    part = {key: value if key == "class_path" else with_small_comparators(value) for key, value in part.items()}
    name = COMPARED_BY.get(part.get("class_path", ""))
    if name is not None:
        arguments = part.setdefault("init_args", {})
        comparator = arguments.get(name, "ExemplarComparator")
        comparator = {"class_path": comparator} if isinstance(comparator, str) else comparator
        if comparator["class_path"] == "ExemplarComparator":
            few = {"exemplars": 6, "steps": 2, "batch_size": 4}
            arguments[name] = {**comparator, "init_args": {**comparator.get("init_args", {}), **few}}
    return part


def synthetic(config: dict, folder: Path) -> list[str]:
    """The config with its data replaced by synthetic images, all else as it is."""
    data = config["data"] if isinstance(config["data"], dict) else {"class_path": config["data"]}
    kept = {"binarization": data.get("init_args", {}).get("binarization", "none"), "batch_size": 8}
    colour = data["class_path"] in COLOURED
    shape = [3, 32, 32] if colour else [3, 28, 28] if data["class_path"] == "StackedMNIST" else [1, 28, 28]
    if config["model"]["class_path"] == "ShapeNets3D":
        shape = [1, 24, 24, 24]
    sizes = {"image_shape": shape, "num_train": 16, "num_val": 8, "num_test": 8, "num_classes": 3}
    config["data"] = {"class_path": "Synthetic", "init_args": {**kept, **sizes}}
    if data["class_path"] in CAPTIONED:
        colour = {} if data["class_path"] == "CaptionedDigits" else {"channels": 3}
        scenes = {"image_size": data["init_args"].get("image_size", 60), "num_train": 16, "num_val": 8, "num_test": 8}
        config["data"] = {"class_path": "CaptionedDigits", "init_args": {**kept, **colour, **scenes}}
    config["trainer"]["default_root_dir"] = str(folder / "runs")
    words = list(SMALL)
    arguments = config["model"].get("init_args", {})
    if "pretraining_epochs" in arguments:
        # Every stage of a staged model.
        arguments["pretraining_epochs"] = 1
        words.append(f"--trainer.max_epochs={len(arguments['hidden_dims']) + 1}")
    if "conv_epochs" in arguments:
        small = {"conv_epochs": 1, "dense_epochs": 1, "kernel_sizes": [6, 4, 3], "sample_steps": 3}
        config["model"]["init_args"] = {**arguments, **small}
        config["trainer"]["callbacks"] = [{"class_path": "Completion", "init_args": {"steps": 2}}]
        words.append(f"--trainer.max_epochs={len(arguments['channels']) + 2}")
    if config["model"]["class_path"] in ("DRAW", "ConvDRAW", "AlignDRAW"):
        # Two steps say of the config what 64 do.
        config["model"]["init_args"] = {**arguments, "steps": 2, "hidden_dim": 16}
    if config["model"]["class_path"] == "SharpenedAlignDRAW":
        # An alignDRAW of a few units stands in for the trained one.
        scenes = CaptionedDigits(**config["data"]["init_args"])
        drawer = AlignDRAW(scenes.image_shape, scenes.vocabulary, scenes.captions, 2, 4, 8)
        arguments["align_draw"] = json.dumps(stored_hyperparameters(drawer))
        for part in ("generator", "discriminator"):
            arguments[part]["init_args"]["channels"] = [4, 4] if part == "generator" else 4
    if config["model"]["class_path"] == "ChairGenerator":
        # Few units and views say as much of the config as the published ones.
        network = arguments["network"]["init_args"]
        small = {name: [6] * len(network[name]) for name in ("image_channels", "mask_channels")}
        arguments["network"]["init_args"] = {**network, **small, "branch_dim": 6, "joint_dim": 8}
        few = {"num_objects": 4, "azimuths": 4, "grid": 12, "image_size": 32, "batch_size": 8}
        config["data"] = {"class_path": "SyntheticChairs", "init_args": few}
    if config["model"]["class_path"] in ENERGIES:
        # The published number of temperatures takes minutes, and says nothing of the config.
        short = {"num_chains": 4, "num_temperatures": 5, "burn_in": 2}
        config["trainer"]["callbacks"] = [{"class_path": "LogPartition", "init_args": short}]
        config["model"]["init_args"]["sample_steps"] = 5
    if config["model"]["class_path"] in DIFFUSIONS:
        # A thousand steps of a large network take hours, and say nothing of the config.
        arguments["network"]["init_args"] |= {"channels": 4} if arguments["network"]["class_path"] == "UNet" else {}
        for part in {"schedule", "kernel"} & arguments.keys():
            arguments[part].setdefault("init_args", {})["steps"] = 4
        if "sampler" in arguments:
            arguments["sampler"]["init_args"]["steps"] = 2
        if "bound_steps" in arguments:
            arguments["bound_steps"] = 2
    for part in ("generator", "discriminator") if config["model"]["class_path"] in ("BGAN", "DCGAN") else ():
        # The published widths take a minute of these few images.
        network = {name: value for name, value in arguments[part]["init_args"].items() if name != "channels"}
        narrow = {"channels": [4, 6, 8]} if arguments[part]["class_path"].startswith("SNGAN") else {"width": 8}
        arguments[part]["init_args"] = {**network, **narrow}
    for part in ("base_generator", "base_discriminator") if config["model"]["class_path"] == "LAPGAN" else ():
        # So do 66 million weights of 8x8 pixels.
        widths = {"channels": [8, 8], "width": 8, "hidden_dims": [8, 8]}
        arguments[part]["init_args"] |= {name: widths[name] for name in widths.keys() & arguments[part]["init_args"]}
    arguments = config["model"].setdefault("init_args", {})
    if "TorchvisionEncoder" in str(arguments.get("encoder")):
        # Weights that are downloaded would say no more of the config.
        arguments["encoder"]["init_args"] |= {"weights": None, "shorter_side": 32}
    if config["model"]["class_path"].startswith("DeePSiM"):
        arguments.setdefault("feature_distance", "FeatureDistance")
    config["model"] = with_small_comparators(config["model"])
    arguments = config["model"]["init_args"]
    if "discriminator_steps" in arguments:
        # The generator's turn comes within the two batches of an epoch.
        arguments["discriminator_steps"] = 2
    if arguments.get("generator", {}).get("class_path") == "DeconvGenerator":
        arguments["generator"]["init_args"] = {"hidden_dim": 8, "maps": 4}
        arguments["discriminator"]["init_args"] = {"channels": [4, 4, 6], "hidden_dim": 8}
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    return ["-c", str(file), *words]


@pytest.mark.parametrize("name", of_each_class_one(EXPERIMENTS))
def test_config_runs_end_to_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (config_folder() / f"{name}.yaml").read_text()
    assert text.startswith("# "), "the first line says what it is, for `lit-gen list`"
    words = synthetic(yaml.safe_load(text), tmp_path)
    assert main(["fit", *words]) == 0
    for command in ("test", "predict"):
        assert main([command, *words, "--ckpt_path", "last"]) == 0


def test_a_checkpoint_of_draw_as_published_is_below_16_mebibytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load((config_folder() / "draw/mnist.yaml").read_text())
    assert config["model"]["init_args"]["steps"] == 64
    one = {"image_shape": [1, 28, 28], "num_train": 1, "num_val": 1, "num_test": 1, "batch_size": 1}
    config["data"] = {"class_path": "Synthetic", "init_args": {**one, "binarization": "stochastic"}}
    (tmp_path / "mnist.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "-c", str(tmp_path / "mnist.yaml"), *SMALL]) == 0
    (last,) = tmp_path.rglob("last.ckpt")
    assert last.stat().st_size < 16 * 2**20
    stored = torch.load(last, weights_only=True)
    assert sum(weights.numel() for weights in stored["state_dict"].values()) == 960_763
    moments = [state[name] for state in stored["optimizer_states"][0]["state"].values() for name in MOMENTS]
    assert sum(moment.numel() for moment in moments) == 2 * 960_763


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_config_is_complete(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = yaml.safe_load((config_folder() / f"{name}.yaml").read_text())
    assert config["trainer"]["default_root_dir"] == f"runs/{name}"
    assert "max_epochs" in config["trainer"]
    if config["data"] != "Digits" and not any(kind in str(config["data"]) for kind in ("ImageFolder", "Arrays")):
        assert main(["fit", "-c", name, "--print_config"]) == 0
        assert "Unable to serialize" not in capsys.readouterr().out


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlay_merges(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "-c", "vae/digits", "-c", name, "--print_config"]) == 0
    merged = yaml.safe_load(capsys.readouterr().out)
    for key, value in yaml.safe_load((config_folder() / f"{name}.yaml").read_text())["trainer"].items():
        wanted = value.get("class_path", value) if isinstance(value, dict) else value
        got = merged["trainer"][key.removesuffix("+")]
        assert (wanted[0]["class_path"] if isinstance(wanted, list) else str(wanted)) in str(got)
    assert merged["model"]["init_args"]["latent_dim"] == 16


@pytest.mark.parametrize("name", SWEEPS)
def test_sweep_parameters_are_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = yaml.safe_load((config_folder() / f"{name}.yaml").read_text())
    assert sweep["command"][:2] == ["lit-gen", "fit"]
    fixed = [str(word) for word in sweep["command"][1:-1]]
    chosen = [f"--{key}={value['values'][-1]}" for key, value in sweep["parameters"].items()]
    assert main([*fixed, *chosen, "--print_config"]) == 0
    printed = capsys.readouterr().out
    for value in sweep["parameters"].values():
        assert str(value["values"][-1]) in printed
