"""Receipts: JSON files that say exactly how a number was obtained, and on what."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"
DATA_ROOT = "<data root>"
"""What stands in a receipt for the folder of the data, which is another one on every machine."""


def source_digest(repository: Path = REPOSITORY) -> str:
    """SHA-256 of every Python file and config of the package: names the code even where it was not yet committed."""
    digest = hashlib.sha256()
    for path in sorted([*(repository / "lit_gen").rglob("*.py"), *(repository / "configs").rglob("*.yaml")]):
        digest.update(path.relative_to(repository).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def cpu_model() -> str:
    """Name of the processor, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def hardware() -> dict[str, Any]:
    """Processor, cores that this process may use, threads of torch, and the accelerator if there is one."""
    cores = len(os.sched_getaffinity(0)) if platform.system() == "Linux" else os.cpu_count()
    facts: dict[str, Any] = {"cpu": cpu_model(), "cores": cores, "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def versions(packages: Sequence[str] = ()) -> dict[str, str]:
    """Python, the packages that decide a number, and any others named."""
    names = ["torch", "torchvision", "lightning", "numpy", *packages]
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def provenance(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Date, code, versions and hardware of a measurement; take it when the measurement begins.

    Args:
        packages: further distributions whose version matters.

    Returns:
        ``commit`` is None outside a repository with a commit; ``dirty`` says that files differed from that commit.
    """
    commit = _git("rev-parse", "--verify", "--quiet", "HEAD")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit,
        "dirty": commit is None or bool(_git("status", "--porcelain", "--", "lit_gen", "configs", "benchmarks/*.py")),
        "source_sha256": source_digest(),
        "versions": versions(packages),
        "hardware": hardware(),
    }


def without_paths(value: Any, names: Mapping[str, str]) -> Any:
    """The value with folders replaced by names, in strings that are paths or options with a path, at any depth.

    Args:
        value: what JSON can hold.
        names: what to write in place of each folder, given as it appears in the value.
    """
    if isinstance(value, str):
        option, equals, path = value.rpartition("=")
        for folder, name in names.items():
            # A bare word may be a folder and something else besides: only options and roots are taken for folders.
            if (path == folder and (equals or "/" in folder)) or path.startswith(folder.rstrip("/") + "/"):
                return option + equals + name + path[len(folder.rstrip("/")) :]
        return value
    if isinstance(value, Mapping):
        roots = {
            key: names[item] for key, item in value.items() if key == "root" and isinstance(item, str) and item in names
        }
        return {key: without_paths(item, names) for key, item in value.items()} | roots
    if isinstance(value, list | tuple):
        return [without_paths(item, names) for item in value]
    return value


def write_receipt(path: Path, receipt: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a receipt, or a list of them, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(receipt, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_receipts(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """All receipts of a folder, by the name of their file."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
