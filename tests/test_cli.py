"""The command line as a user types it: every command, and every mistake with its remedy."""

import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lit_gen.cli import main
from lit_gen.cli.sample import parse_condition
from lit_gen.data import Synthetic
from lit_gen.models import VAE, ChairGenerator
from lit_gen.networks import MLP, GaussianLikelihood

TINY = ["--data.num_train=40", "--data.num_val=10", "--data.num_test=10", "--data.batch_size=10"]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]
FIT = ["fit", "--model", "VAE", "--model.latent_dim=2", "--data", "Synthetic", "--data.image_shape=[1,8,8]", *TINY]
FIT += ["--data.binarization=threshold", "--trainer.max_epochs=2", "--trainer.log_every_n_steps=2", *QUIET]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run that many tests read."""
    folder = tmp_path_factory.mktemp("run")
    assert main([*FIT, f"--trainer.default_root_dir={folder}"]) == 0
    return folder


def fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a command that must fail without a traceback."""
    capsys.readouterr()
    assert main(words) not in (0, None)
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def test_fit_writes_a_run_folder(run_folder: Path) -> None:
    run = run_folder / "version_0"
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["class_path"] == "lit_gen.models.VAE"
    stored = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["hyper_parameters"]
    assert stored["optimizer"]["init_args"]["lr"] == 1e-3, "a resumed run needs its optimizer"
    header = (run / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"step", "train/loss", "train/elbo", "val/elbo", "val/kl", "val/bits_per_dim"} <= set(header)
    pictures = list((run / "images").rglob("*.png"))
    assert {path.parent.name for path in pictures} >= {"samples", "reconstructions"}
    for path in pictures:
        assert np.asarray(Image.open(path)).std() > 0, f"{path.name} is blank"


def test_test_needs_the_checkpoint_alone(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = run_folder / "version_0" / "checkpoints" / "last.ckpt"
    assert main(["test", "--ckpt_path", str(checkpoint), *QUIET]) == 0
    output = capsys.readouterr().out
    assert "test/elbo" in output
    assert "test/log_likelihood_iw" in output
    assert (run_folder / "version_0" / "test" / "version_0" / "images").is_dir()


def test_values_on_the_command_line_win_over_the_checkpoint(run_folder: Path) -> None:
    checkpoint = run_folder / "version_0" / "checkpoints" / "last.ckpt"
    words = ["validate", f"--ckpt_path={checkpoint}", "--data.batch_size=5", "--data.seed=3", *QUIET]
    assert main(words) == 0
    config = yaml.safe_load((run_folder / "version_0" / "validate" / "version_0" / "config_validate.yaml").read_text())
    assert config["data"]["init_args"]["batch_size"] == 5
    assert config["data"]["init_args"]["num_train"] == 40


@pytest.mark.parametrize("word", ["best", "last"])
def test_best_and_last_are_found_in_the_folder_of_runs(word: str, run_folder: Path) -> None:
    assert main(["test", "--ckpt_path", word, f"--trainer.default_root_dir={run_folder}", *QUIET]) == 0


def test_sample_from_the_checkpoint_file_alone(run_folder: Path, tmp_path: Path) -> None:
    checkpoint = str(run_folder / "version_0" / "checkpoints" / "last.ckpt")
    first, second, other = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    assert main(["sample", checkpoint, "-n", "5", "-o", str(first), "--seed", "3", "--npz"]) == 0
    assert main(["sample", str(run_folder), "-n", "5", "-o", str(second), "--seed", "3", "--npz"]) == 0
    assert main(["sample", checkpoint, "-n", "5", "-o", str(other), "--seed", "4", "--npz"]) == 0
    arrays = [np.load(next(folder.glob("*.npz")))["samples"] for folder in (first, second, other)]
    assert arrays[0].shape == (5, 1, 8, 8)
    assert not np.array_equal(arrays[0], arrays[2])
    assert len([path for path in first.glob("*.png") if "grid" not in path.name]) == 5
    picture = np.asarray(Image.open(sorted(first.glob("0*.png"))[2])) / 255
    assert np.abs(picture.reshape(8, 8) - arrays[0][2, 0]).max() <= 0.5 / 255 + 1e-6


def test_predict_writes_one_picture_for_each_sample(run_folder: Path) -> None:
    assert main(["predict", "--ckpt_path", "last", f"--trainer.default_root_dir={run_folder}", *QUIET]) == 0
    written = list((run_folder / "version_0" / "predict").rglob("0*.png"))
    assert len(written) == 10


def test_print_config_can_be_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIT, "--print_config"]) == 0
    text = capsys.readouterr().out
    assert "Unable to serialize" not in text
    Path("again.yaml").write_text(text)
    assert main(["fit", "-c", "again.yaml", "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(text)


def test_a_changed_class_starts_from_its_own_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    change = ["--model.encoder=ConvEncoder", "--model.optimizer=torch.optim.AdamW", "--print_config"]
    assert main([*FIT, "--model.optimizer.lr=0.5", *change]) == 0
    arguments = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert arguments["encoder"]["init_args"]["activation"] == "relu", "the MLP's default is tanh"
    assert arguments["optimizer"]["init_args"]["weight_decay"] == 0.01, "the default of FusedAdam is 0"
    assert arguments["optimizer"]["init_args"]["lr"] == 0.5, "what the user set stays"
    assert main(["fit", "-c", "vae/digits", "--model.encoder=ConvEncoder", "--print_config"]) == 0
    arguments = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert "hidden_dims" not in arguments["encoder"]["init_args"]


def test_a_users_own_class_by_dotted_path(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my_own_variants.py").write_text(
        "from lit_gen.models import VAE\n\n\nclass BetaVAE(VAE):\n"
        '    """beta-VAE."""\n\n'
        "    def __init__(self, image_shape: tuple[int, ...], beta: float = 4.0) -> None:\n"
        "        super().__init__(image_shape, latent_dim=2, kl_weight=beta)\n"
    )
    words = ["fit", "--model", "my_own_variants.BetaVAE", "--model.beta=3", *FIT[4:]]
    assert main([word for word in words if "latent_dim" not in word]) == 0
    checkpoint = "runs/version_0/checkpoints/last.ckpt"
    assert torch.load(checkpoint, weights_only=True)["hyper_parameters"]["beta"] == 3.0
    del sys.modules["my_own_variants"]
    assert "--import my_own_variants" in fails(["sample", checkpoint, "-n", "1"], capsys)
    assert main(["sample", checkpoint, "-n", "1", "-o", "own", "--import", "my_own_variants"]) == 0
    del sys.modules["my_own_variants"]
    assert "--import my_own_variants" in fails(["test", "--ckpt_path", checkpoint, *QUIET], capsys)
    assert main(["test", "--ckpt_path", checkpoint, "--import", "my_own_variants", *QUIET]) == 0


def test_a_run_built_in_python_is_tested_by_its_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    data = Synthetic(image_shape=(1, 8, 8), num_train=40, num_val=10, num_test=10, batch_size=10)
    model = VAE(data.image_shape, 3, encoder=lambda i, o: MLP(i, o, hidden_dims=[7]), likelihood=GaussianLikelihood)
    off = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False, "logger": False}
    run = pl.Trainer(max_epochs=1, accelerator="cpu", **off)
    run.fit(model, data)
    run.save_checkpoint("python.ckpt")
    assert main(["test", "--ckpt_path", "python.ckpt", *QUIET]) == 0
    assert "test/elbo" in capsys.readouterr().out
    assert main(["sample", "python.ckpt", "-n", "2"]) == 0


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_random_weights_are_not_measured(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails([command, *FIT[1:]], capsys)
    assert f"{command} without a checkpoint would measure random weights" in message


def test_a_config_does_not_change_the_trained_model(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("wide.yaml").write_text("model: {class_path: VAE, init_args: {latent_dim: 9}}\n")
    root = f"--trainer.default_root_dir={run_folder}"
    assert main(["test", "--ckpt_path", "best", "-c", "wide.yaml", root, *QUIET]) == 0
    message = fails(["test", "--ckpt_path", "best", "--model.latent_dim=9", root, *QUIET], capsys)
    assert "leave its --model options out" in message


def test_options_win_over_configs_wherever_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--data.batch_size=7", "-c", "vae/digits", "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["batch_size"] == 7


def test_a_resumed_run_says_that_it_keeps_its_optimizer(run_folder: Path) -> None:
    words = ["fit", "--ckpt_path", "last", "--model.optimizer.lr=0.5", "--trainer.max_epochs=3", *QUIET]
    with pytest.warns(UserWarning, match="keeps the state of its optimizer"):
        assert main([*words, f"--trainer.default_root_dir={run_folder}"]) == 0


def test_checkpoints_can_be_switched_off() -> None:
    assert main([*FIT, "--trainer.enable_checkpointing=false"]) == 0
    assert not list(Path("runs").rglob("*.ckpt"))


def test_a_conditional_model_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in FIT if "latent_dim" not in word]
    words[words.index("VAE")] = "tests.conditional.ClassVAE"
    assert main([*words, "--data.num_classes=3"]) == 0
    # The class that the command line names needs no --import.
    named = ["--model", "tests.conditional.ClassVAE"]
    assert main(["test", "--ckpt_path", "best", *named, *QUIET]) == 0
    assert "test/log_likelihood_iw200" in capsys.readouterr().out
    assert main(["sample", "runs", "-n", "3", "--condition", "class=2", "--import", "tests.conditional"]) == 0
    assert "class must lie in 0..2" in fails(["sample", "runs", "--condition", "class=7"], capsys)
    assert "takes class=<int>" in fails(["sample", "runs", "--condition", "colour=7"], capsys)
    assert "wants a value of type int" in fails(["sample", "runs", "--condition", "class=two"], capsys)
    unlabelled = [*words, "--data.num_classes=3"]
    unlabelled[unlabelled.index("Synthetic")] = "Arrays"
    np.save("images.npy", np.zeros((40, 1, 8, 8), dtype=np.uint8))
    unlabelled = [word for word in unlabelled if not word.startswith("--data.")]
    unlabelled += ["--data.images=images.npy", "--model.num_classes=3", "--data.val_size=10"]
    assert "conditioned on class, the data has none" in fails(unlabelled, capsys)


def test_a_device_that_is_not_there(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "use cpu" in fails(["sample", str(run_folder), "--device", "bogus"], capsys)


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    output = capsys.readouterr().out
    for name in ("VAE", "Classifier", "ImageFolder", "MLP", "SampleGrid", "Doctor", "vae/digits", "trainer/ddp"):
        assert f"  {name} " in output, name
    assert all(len(line.split()) > 1 for line in output.splitlines() if line.startswith("  ")), "a line is missing"
    for name in ("GrowingSteps", "MomentumSchedule", "FusedSGD", "DReG"):
        assert f"  {name} " in output, name
    models, rest = output.split("negative phases (--model.negative_phase):")
    assert "  PersistentContrastiveDivergence " in rest
    assert "  RBM " in models
    for name in ("ContrastiveDivergence", "NegativePhase", "EnergyModel", "PIWAE"):
        assert f"  {name} " not in models, f"{name} is no model to choose"


@pytest.mark.parametrize("words", [["--help"], ["list"], ["fitt"], ["fit", "-c", "vae/digit"], ["sample", "--help"]])
def test_what_needs_no_lightning_answers_at_once(words: list[str]) -> None:
    start = os.times()
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "lit_gen", *words], capture_output=True, text=True)
    end = os.times()
    assert "lightning" not in done.stderr
    assert "import time:" in done.stderr
    # Seconds of the processor: others may keep it busy.
    assert end.children_user + end.children_system - start.children_user - start.children_system < 3
    assert done.returncode == (0 if words[-1] in ("--help", "list") else 2 if words == ["fitt"] else 1)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["--model", "VAEX"], "did you mean 'VAE'"),
        (["--data", "MINST"], "did you mean 'MNIST'"),
        (["--trainer.max_epoch=3"], "max_epoch"),
        (["--model.latent_dims=3"], "latent_dims"),
        (["--data.batchsize=3"], "did you mean 'batch_size'"),
        (["--model.latent_dim=two"], "two"),
        (["--data.binarization=some"], "some"),
        (["--model.latent_dim=0"], "latent_dim must be at least 1, got 0"),
        (["--trainer.callbacks+=SampleGird"], "SampleGrid"),
        (["--import", "no_such_module"], "no_such_module"),
        (["--ckpt_path", "nothing.ckpt"], "there is no checkpoint 'nothing.ckpt'"),
        (["--ckpt_path", "last"], "train first"),
    ],
)
def test_mistakes_are_told_in_one_message(change: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails([*FIT, *change], capsys)
    assert expected in message
    assert not Path("runs").exists(), "something half-written was left behind"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data.root=here", "--data=MNIST", "--model=VAE"], "give --data=CLASS first"),
        (["--model.latent_dim=3", "--model=VAE", "--data=Digits"], "--model.latent_dim stands before"),
    ],
)
def test_options_before_their_class_are_told_so(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in fails(["fit", *words], capsys)


def test_an_incompatible_checkpoint_is_refused(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = str(run_folder / "version_0" / "checkpoints" / "last.ckpt")
    message = fails(["test", "--ckpt_path", checkpoint, "--data.image_shape=[3,8,8]", *QUIET], capsys)
    assert "image_shape [1, 8, 8], the data has [3, 8, 8]" in message
    message = fails(["test", "--ckpt_path", checkpoint, "--model", "Classifier", *QUIET], capsys)
    assert "holds a VAE, the command line asks for Classifier" in message
    broken = Path("broken.ckpt")
    broken.write_bytes(Path(checkpoint).read_bytes()[:1000])
    assert "truncated" in fails(["test", "--ckpt_path", str(broken), *QUIET], capsys)
    assert "truncated" in fails(["sample", str(broken)], capsys)
    assert not Path("out").exists()


def test_conditions_may_be_separated_by_commas() -> None:
    torch.manual_seed(0)
    model = ChairGenerator((3, 16, 16), 4, [(0, 20), (90, 20)])
    wanted = {"class": 3, "azimuth": 40.0, "elevation": 20.0}
    for words in (["class=3", "azimuth=40", "elevation=20"], ["class=3,azimuth=40", "elevation=20"]):
        assert parse_condition(words, model) == wanted
    with pytest.raises(ValueError, match="--condition got class twice: 3 and 2; samples have one condition"):
        parse_condition(["class=3,class=2"], model)
    with pytest.raises(ValueError, match="azimuth wants a value of type float, got 'left'"):
        parse_condition(["azimuth=left"], model)


def test_a_condition_for_an_unconditional_model(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "VAE takes no condition" in fails(["sample", str(run_folder), "--condition", "class=3"], capsys)
    assert not Path("out").exists()


@pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has an accelerator")
def test_an_accelerator_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    message = fails([word.replace("accelerator=cpu", "accelerator=gpu") for word in FIT], capsys)
    assert "No supported gpu backend found" in message
