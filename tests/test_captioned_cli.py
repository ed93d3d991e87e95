"""From captions to a checkpoint, and from a checkpoint and a prompt to pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lit_gen.captions import Caption
from lit_gen.cli.command import config_folder, main
from lit_gen.data import CaptionedDigits
from lit_gen.models import load_model
from tests.captioned import CaptionVAE
from tests.data.common import picture

SMALL = [
    "--data.num_train=40",
    "--data.num_val=10",
    "--data.num_test=10",
    "--data.image_size=12",
    "--data.batch_size=10",
]
QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
PROMPT = "the digit 3 is at the top of the digit 7 ."


def fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(words) == 1
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("captioned")
    words = ["--model", "tests.captioned.CaptionVAE", "--data", "CaptionedDigits", "--trainer.max_epochs=1"]
    assert main(["fit", *words, *SMALL, *QUIET, f"--trainer.default_root_dir={root}"]) == 0
    return root / "version_0"


def test_a_run_keeps_its_words_and_captions(run: Path) -> None:
    checkpoint = torch.load(next(run.rglob("last.ckpt")), weights_only=True)
    data = CaptionedDigits()
    assert checkpoint["hyper_parameters"]["vocabulary"] == data.vocabulary
    assert checkpoint["hyper_parameters"]["captions"] == data.captions
    assert "captions: 3" in (run / "hparams.yaml").read_text()  # how many, not all of them
    model = load_model(run)
    assert isinstance(model, CaptionVAE)
    drawn = model.sample_condition(50)
    assert set(model.describe(drawn)) <= set(data.captions)
    assert len(set(model.describe(drawn))) > 10
    assert model.describe(model.make_condition({"caption": "The digit 3 ."}, 2)) == 2 * ["the digit 3 ."]
    assert {path.parent.name for path in run.rglob("images/val/*/*.png")} >= {"samples", "alignment", "storyboard"}
    for command in ("test", "predict"):
        assert main([command, "--ckpt_path", str(run), *QUIET]) == 0


def test_prompts_become_pictures(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "own.txt"
    file.write_text(f"# a remark\n\n{PROMPT}\nThe digit 5 is at the bottom left of the image\n")
    words = ["sample", str(run), "-n", "3", "--npz", "--batch_size", "4"]
    assert main([*words, "-o", str(tmp_path / "a"), "--prompts", str(file)]) == 0
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names[2:4] == [
        "000002_the-digit-3-is-at-the-top-of-the-digit-7.png",
        "000003_the-digit-5-is-at-the-bottom-left-of-the-image.png",
    ]
    assert names[6:] == ["grid.png", "samples.npz", "storyboard.png"]
    prompts = ["--prompt", PROMPT, "--prompt", "the digit 5 is at the bottom left of the image ."]
    assert main([*words, "-o", str(tmp_path / "b"), *prompts]) == 0
    both = [np.load(tmp_path / folder / "samples.npz")["samples"] for folder in "ab"]
    assert both[0].shape == (2, 3, 1, 12, 12)
    assert np.array_equal(*both)

    # The model by itself, under the same seed, draws the same for these captions.
    model = load_model(run)
    assert isinstance(model, CaptionVAE)
    texts = 3 * [PROMPT] + ["the digit 5 is at the bottom left of the image ."]
    torch.manual_seed(0)
    assert np.array_equal(model.sample(4, model.make_captions(texts)).numpy(), both[0].reshape(6, 1, 12, 12)[:4])


def test_mistakes_with_prompts(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", str(run), "-o", str(tmp_path / "out")]
    assert "unknown word 'digt' (did you mean 'digit'" in fails([*words, "--prompt", "the digt 3 ."], capsys)
    assert "'elephants'" in fails([*words, "--prompts", "coco"], capsys)
    assert "no file of prompts 'cocoa'; name a text file with one in each line, or coco" in fails(
        [*words, "--prompts", "cocoa"], capsys
    )
    (tmp_path / "empty.txt").write_text("# nothing\n")
    assert "holds no prompts" in fails([*words, "--prompts", str(tmp_path / "empty.txt")], capsys)
    assert "give one of them" in fails([*words, "--prompt", PROMPT, "--condition", "caption=x"], capsys)
    assert not (tmp_path / "out").exists()
    plain = ["fit", "--model", "VAE", "--data", "Synthetic", "--data.num_train=10", "--trainer.max_epochs=1", *QUIET]
    root = tmp_path / "plain"
    assert main([*plain, f"--trainer.default_root_dir={root}", "--default_callbacks=false"]) == 0
    checkpoint = str(next(root.rglob("*.ckpt")))
    assert "VAE takes no captions; leave --prompt out" in fails(["sample", checkpoint, "--prompt", PROMPT], capsys)
    captionless = ["fit", "--model", "tests.captioned.CaptionVAE", "--data", "Synthetic", *QUIET]
    assert "the data has none; use CaptionedDigits" in fails(captionless, capsys)
    for number in range(10):
        picture(tmp_path / f"{number}.png", "L", seed=number)
    (tmp_path / "captions.txt").write_text("".join(f"{number}.png\ta bird\n" for number in range(10)))
    folder = ["--data", "CaptionedFolder", f"--data.root={tmp_path}", "--data.image_size=12"]
    message = fails(["test", "--ckpt_path", str(run), *folder, *QUIET], capsys)
    assert "a vocabulary of 23 words, the data has another one of 5; use the captions it was trained on" in message


def test_a_model_of_captions_tells_what_it_needs() -> None:
    model = CaptionVAE((1, 4, 4), ["<pad>", "a", "."])
    with pytest.raises(ValueError, match="built without captions to draw from"):
        model.sample(2)
    assert model.sample(2, model.make_condition({"caption": "a"}, 2)).shape == (2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"must be captions, got a tensor \(2,\)"):
        model.unpack((torch.zeros(2, 1, 4, 4), torch.zeros(2)))
    captions = Caption(torch.ones(2, 3).long(), torch.tensor([3, 3]))
    assert model.unpack((torch.zeros(2, 1, 4, 4), captions))[1] is captions


def test_ready_prompts_are_captions() -> None:
    lines = (config_folder() / "prompts" / "coco.txt").read_text().splitlines()
    prompts = [line for line in lines if not line.startswith("#")]
    assert len(prompts) == len(set(prompts)) == 16
    assert all(line == line.lower() and line.endswith(" .") for line in prompts)
