"""Earning a row: fit, test, receipt, and going on after an interruption."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.receipts import RESULTS, read_receipts
from benchmarks.reproduce import find_row, main, reproduce

pytestmark = [
    # The test stage needs neither the clock nor the checkpoints of the fit.
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),
    # A resumed row keeps its checkpoints in the same folder.
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
]

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]
TINY = ["--model.init_args.latent_dim=2", "--trainer.limit_train_batches=2", "--trainer.limit_test_batches=1", *QUIET]


def tiny_row(epochs: int) -> dict[str, Any]:
    row = find_row("vae-digits")
    return {**row, "overrides": [*TINY, f"--trainer.max_epochs={epochs}", "--trainer.check_val_every_n_epoch=1"]}


def test_an_interrupted_row_goes_on_and_keeps_its_time_and_its_best(tmp_path: Path) -> None:
    first = reproduce(tiny_row(2), "unused", tmp_path)
    assert first["epochs"] == 2
    assert first["steps"] == 4
    assert first["value"] == -first["test_metrics"]["test/log_likelihood_iw200"]
    assert first["data"].startswith("Digits:")
    assert first["settings"]["model"]["init_args"]["latent_dim"] == 2
    assert str(tmp_path) not in str(first)

    assert first["earlier_parts"] == []

    second = reproduce(tiny_row(3), "unused", tmp_path)
    assert second["earlier_parts"] == [first["provenance"]]
    assert second["epochs"] == 3
    assert second["steps"] == 6
    assert second["train_seconds"] > first["train_seconds"]
    assert len(list((tmp_path / "vae-digits" / "checkpoints").glob("epoch*.ckpt"))) == 1

    finished = reproduce(tiny_row(3), "unused", tmp_path)
    assert finished["value"] == second["value"]
    assert finished["best_checkpoint"] == second["best_checkpoint"]


def test_quick_leaves_published_receipts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_receipts(RESULTS)
    monkeypatch.setattr("sys.argv", ["reproduce.py", "vae-digits", "--quick", "--runs", str(tmp_path)])
    main()
    receipt = read_receipts(tmp_path / "vae-digits-quick")["vae-digits"]
    assert receipt["quick"]
    assert receipt["steps"] == 5
    assert read_receipts(RESULTS) == before


def test_samples_are_measured_by_a_classifier_that_is_trained_once(tmp_path: Path) -> None:
    row = {**find_row("gan-digits"), "overrides": QUIET}
    first = reproduce(row, "unused", tmp_path, quick=True)
    assert first["value"] == first["test_metrics"]["test/fid"]
    assert first["extractor"]["config"] == "classifier/digits"
    assert 0 <= first["extractor"]["test_accuracy"] <= 1
    digests = {score["extractor"] for score in first["extractor"]["scores"]}
    assert len(digests) == 1
    assert str(tmp_path) not in str(first)
    again = reproduce(row, "unused", tmp_path, quick=True)
    assert again["extractor"]["provenance"] == first["extractor"]["provenance"], "the classifier was there"


def test_digits_of_captions_are_seen_by_a_classifier_that_is_trained_first(tmp_path: Path) -> None:
    small = ["--model.steps=2", "--model.hidden_dim=16", "--data.num_test=60"]
    row = {**find_row("align-draw-captioned-digits"), "overrides": [*small, *QUIET]}
    receipt = reproduce(row, "unused", tmp_path, quick=True)
    found = receipt["test_metrics"]
    assert receipt["value"] == 100 * found["test/digit_accuracy_held_out"]
    assert receipt["extractor"]["config"] == "classifier/digits"
    told = [
        "digit_accuracy_seen_real",
        "scene_accuracy_held_out",
        "caption_rank",
        "bound_shuffled",
        "ssi",
        "ssi_shuffled",
    ]
    assert {f"test/{name}" for name in told} <= set(found)
    assert str(tmp_path) not in str(receipt)


def test_list_shows_every_row(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["reproduce.py", "--list"])
    main()
    assert "vae-mnist-static" in capsys.readouterr().out


def test_an_unknown_row_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["reproduce.py", "vae-minst"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "no row 'vae-minst'" in capsys.readouterr().err
