"""A score found again on another day: by another process, with nothing but what the run left in its folder."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lit_gen.metrics import Receipt

ROOT = Path(__file__).parents[1]
SIZES = ["--data.subset=200", "--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false"]


def lit_gen(folder: Path, *words: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lit_gen", *words, "--trainer.default_root_dir=run"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_the_fid_of_a_run_is_found_again_from_its_files(tmp_path: Path) -> None:
    """Averaged weights, a trained extractor and the noise all come back, whatever seed the second program has."""
    lit_gen(tmp_path, "fit", "-c", "classifier/digits", "--trainer.max_epochs=1", *SIZES)
    (tmp_path / "run").rename(tmp_path / "classifier")
    lit_gen(tmp_path, "fit", "-c", "dcgan/digits", "--trainer.max_epochs=2", *SIZES)
    measure = ["--trainer.callbacks+=GenerationMetrics", "--trainer.callbacks.features=classifier"]
    found: list[dict[str, Any]] = []
    for seed in (0, 7):
        lit_gen(tmp_path, "test", "--ckpt_path=run", f"--seed_everything={seed}", *measure)
        (receipt,) = (tmp_path / "run").rglob("receipts/test.json")
        found.append(json.loads(receipt.read_text()))
        receipt.unlink()
    first, second = ([Receipt.from_dict(score) for score in content["scores"]] for content in found)
    assert {name: found[0][name] for name in ("checkpoint", "step", "seed")} == {
        name: found[1][name] for name in ("checkpoint", "step", "seed")
    }
    assert "fid" in {receipt.metric for receipt in first}
    for earlier, later in zip(first, second, strict=True):
        assert later.difference(earlier) == 0
