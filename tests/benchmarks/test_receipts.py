"""What a receipt says of the code and the machine, and what it must not say."""

import json
import re
from pathlib import Path

import torch

from benchmarks.receipts import provenance, read_receipts, source_digest, without_paths, write_receipt


def test_provenance_names_code_versions_and_hardware() -> None:
    facts = provenance(["scipy"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", facts["date"])
    assert facts["commit"] is None or re.fullmatch("[0-9a-f]{40}", facts["commit"])
    assert isinstance(facts["dirty"], bool)
    assert facts["versions"]["torch"] == torch.__version__.partition("+")[0] or facts["versions"]["torch"]
    assert {"python", "lightning", "numpy", "scipy"} <= set(facts["versions"])
    assert facts["hardware"]["threads"] == torch.get_num_threads()
    assert facts["hardware"]["cpu"]
    assert facts["hardware"]["cores"] >= 1


def test_source_digest_follows_the_code(tmp_path: Path) -> None:
    package, configs = tmp_path / "lit_gen", tmp_path / "configs"
    package.mkdir()
    configs.mkdir()
    (package / "a.py").write_text("x = 1")
    (configs / "a.yaml").write_text("x: 1")
    before = source_digest(tmp_path)
    (package / "notes.txt").write_text("not code")
    assert source_digest(tmp_path) == before
    (configs / "a.yaml").write_text("x: 2")
    changed = source_digest(tmp_path)
    (package / "a.py").rename(package / "b.py")
    assert len({before, changed, source_digest(tmp_path)}) == 3


def test_folders_are_named_where_paths_stand() -> None:
    value = {
        "root": "/somewhere/data",
        "options": ["--data.root=/somewhere/data", "--dir=/runs/a/checkpoints", "/somewhere/database"],
        "text": "data of /somewhere/data",
        "number": 3,
    }
    assert without_paths(value, {"/somewhere/data": "<data root>", "/runs/a": "<run>"}) == {
        "root": "<data root>",
        "options": ["--data.root=<data root>", "--dir=<run>/checkpoints", "/somewhere/database"],
        "text": "data of /somewhere/data",
        "number": 3,
    }
    # A setting may have the name of a folder and not be one.
    settings = {"class_prior": "data", "root": "data", "word": ["--data.root=data"]}
    assert without_paths(settings, {"data": "<data root>"}) == {
        "class_prior": "data",
        "root": "<data root>",
        "word": ["--data.root=<data root>"],
    }
    assert without_paths(["data/MNIST", "database"], {"data/": "<data root>"}) == ["<data root>/MNIST", "database"]


def test_receipts_are_read_back(tmp_path: Path) -> None:
    write_receipt(tmp_path / "results" / "row.json", {"value": 1.5, "what": "−log p(x)"})
    assert read_receipts(tmp_path / "results") == {"row": {"value": 1.5, "what": "−log p(x)"}}
    assert "−log p" in (tmp_path / "results" / "row.json").read_text(encoding="utf-8")
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["row.json"]
    assert json.loads((tmp_path / "results" / "row.json").read_text())["value"] == 1.5
