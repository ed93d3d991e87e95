"""Earn a number: train, test, write the receipt, render the tables.

    python benchmarks/reproduce.py --list
    python benchmarks/reproduce.py vae-mnist-static --root data
    python benchmarks/reproduce.py --render

A row is what ``lit-gen fit`` and ``lit-gen test`` do with its config; ``rows.yaml`` declares them. An interrupted row
goes on from its last checkpoint when it is started again. ``--quick`` only shows that a row runs: a few batches, and a
receipt that stays in the run folder.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import yaml

from benchmarks.clock import TrainingTime
from benchmarks.receipts import (
    DATA_ROOT,
    REPOSITORY,
    RESULTS,
    provenance,
    read_receipts,
    without_paths,
    write_receipt,
)
from benchmarks.tables import (
    adversarial_speed_table,
    diffusion_speed_table,
    draw_speed_table,
    models_table,
    rbm_speed_table,
    replace_tables,
    rows_table,
    throughput_table,
    variational_speed_table,
)

ROWS = REPOSITORY / "benchmarks" / "rows.yaml"
PAGES = (REPOSITORY / "benchmarks" / "README.md", REPOSITORY / "README.md")
CLASSIFIERS = {
    "features": ("GenerationMetrics", "features"),
    "scenes": ("CaptionAccuracy", "classifier"),
    "modes": ("ModeCoverage", "classifier"),
}
"""Callbacks that measure by a classifier, and their argument for it, by the key of a row that names its config."""
QUICK = [
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=5",
    "--trainer.limit_val_batches=2",
    "--trainer.limit_test_batches=2",
]


def declared() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows and models of ``rows.yaml``."""
    content = yaml.safe_load(ROWS.read_text(encoding="utf-8"))
    return content["rows"], content["models"]


def find_row(name: str) -> dict[str, Any]:
    """The row of this name.

    Raises:
        ValueError: there is none; names those there are.
    """
    rows = {row["name"]: row for row in declared()[0]}
    if name not in rows:
        raise ValueError(f"there is no row {name!r}; there are {', '.join(rows)}")
    return rows[name]


def settings(config: Path) -> dict[str, Any]:
    """What a run was told: the configuration it keeps, without what was left at none."""
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    trainer = {name: value for name, value in content["trainer"].items() if value is not None}
    return {"model": content["model"], "data": content["data"], "trainer": trainer}


def trained_extractor(
    config: str, runs: Path, quick: bool = False, root: str | None = None
) -> tuple[Path, dict[str, Any]]:
    """A classifier that measures samples, trained once for all rows: its run folder, and what it is.

    Args:
        config: of the classifier.
        runs: folder of the runs of all rows.
        quick: only a few batches.
        root: folder of its data; None for embedded data.
    """
    from lit_gen.cli import LitGenCLI

    folder = runs / (config.replace("/", "-") + ("-quick" if quick else ""))
    finished = folder / "extractor.json"
    if not finished.is_file():
        # What an interruption left behind is not the classifier that other rows were measured with.
        shutil.rmtree(folder, ignore_errors=True)
        options = ["-c", config, f"--trainer.default_root_dir={folder}", *(QUICK if quick else [])]
        options += [] if root is None else [f"--data.root={root}"]
        LitGenCLI(["fit", *options])
        test: Any = LitGenCLI(["test", *options, "--ckpt_path", "best"])
        accuracy = float(test.trainer.callback_metrics["test/accuracy"])
        write_receipt(finished, {"config": config, "test_accuracy": accuracy, "provenance": provenance()})
    return folder, json.loads(finished.read_text(encoding="utf-8"))


def reproduce(row: Mapping[str, Any], root: str, runs: Path, quick: bool = False) -> dict[str, Any]:
    """Train and test a row.

    Args:
        row: as declared.
        root: folder of the data.
        runs: folder of the runs of all rows.
        quick: only a few batches.

    Returns:
        The receipt.
    """
    from lit_gen.callbacks import run_folder
    from lit_gen.cli import LitGenCLI  # takes seconds, which --list and --render need not wait for
    from lit_gen.models.checkpoint import read_checkpoint

    folder = runs / (f"{row['name']}-quick" if quick else row["name"])
    if quick:
        shutil.rmtree(folder, ignore_errors=True)
    options = ["-c", row["config"], f"--trainer.default_root_dir={folder}", *row.get("overrides", [])]
    options += [f"--data.root={root}"] if row["needs_root"] else []
    options += QUICK if quick else []
    extractor = None
    for kind, (callback, argument) in CLASSIFIERS.items():
        if kind in row:
            classifier, extractor = trained_extractor(row[kind], runs, quick, root if row["needs_root"] else None)
            options += [f"--trainer.callbacks+={callback}", f"--trainer.callbacks.{argument}={classifier}"]
            if kind == "features":
                options += ["--trainer.callbacks.of=reconstructions"] if row.get("reconstructions") else []
                options += [f"--trainer.callbacks.{name}={value}" for name, value in row.get("samples", {}).items()]
    options += ["--trainer.callbacks+=CaptionRetrieval"] if "scenes" in row else []
    # A row may have been trained in several parts, by several versions of the code: the receipt names them all.
    parts = json.loads((folder / "parts.json").read_text()) if (folder / "parts.json").is_file() else []
    conditions = provenance()
    write_receipt(folder / "parts.json", [*parts, conditions])

    # One folder of checkpoints for all parts of an interrupted row, or the best of the parts before would be forgotten.
    checkpoints = folder / "checkpoints"
    keep = ["--trainer.callbacks+=BestAndLast", f"--trainer.callbacks.dirpath={checkpoints}"]
    keep += ["--trainer.callbacks+=benchmarks.clock.TrainingTime"]
    last = checkpoints / "last.ckpt"
    resume = ["--ckpt_path", str(last)] if last.is_file() else []
    keep += row.get("training", [])
    fit: Any = LitGenCLI(["fit", *options, *keep, *resume])
    clock = next(callback for callback in fit.trainer.callbacks if isinstance(callback, TrainingTime))

    start = time.perf_counter()
    test: Any = LitGenCLI(["test", *options, "--ckpt_path", "best"])
    test_seconds = time.perf_counter() - start
    best = read_checkpoint(test.checkpoint_path)
    if extractor is not None and "features" in row:
        scores = json.loads((run_folder(test.trainer) / "receipts" / "test.json").read_text(encoding="utf-8"))
        extractor |= {"scores": scores["scores"]}
    metrics = {name: float(value) for name, value in sorted(test.trainer.callback_metrics.items())}
    receipt = {
        "row": row["name"],
        "value": row["factor"] * metrics[row["metric"]],
        "what": row["what"],
        "metric": row["metric"],
        "test_metrics": metrics,
        "data": test.datamodule.protocol,
        "test_images": len(test.datamodule.test_dataloader().images),
        "protocol": row["protocol"],
        "training_differs": row.get("training_differs"),
        "extractor": extractor,
        "paper": row.get("paper"),
        "others": row.get("others", []),
        "config": row["config"],
        "command": ["lit-gen", "fit", *options, *keep],
        "seed": fit.config.fit.seed_everything,
        "epochs": fit.trainer.current_epoch,
        "steps": fit.trainer.global_step,
        "best_checkpoint": {"epoch": best["epoch"] + 1, "step": best["global_step"]},
        "settings": settings(run_folder(fit.trainer) / "config.yaml"),
        "precision": {"fit": str(fit.trainer.precision), "test": str(test.trainer.precision)},
        "train_seconds": clock.seconds,
        "test_seconds": test_seconds,
        "quick": quick,
        "provenance": conditions,
        "earlier_parts": parts,
    }
    return without_paths(receipt, {root: DATA_ROOT, str(folder): f"runs/{folder.name}", str(runs): "runs"})


def tables() -> dict[str, str]:
    """What the pages show of the receipts there are, by the names of its markers."""
    rows, models = declared()
    receipts = read_receipts(RESULTS)
    speeds = {
        "throughput": throughput_table,
        "throughput-rbm": rbm_speed_table,
        "throughput-variational": variational_speed_table,
        "throughput-diffusion": diffusion_speed_table,
        "throughput-draw": draw_speed_table,
        "throughput-adversarial": adversarial_speed_table,
    }
    shown = {name: table(receipts.get(name)) for name, table in speeds.items()}
    return {"rows": rows_table(rows, receipts), "models": models_table(models, rows, receipts), **shown}


def render() -> list[Path]:
    """Write the tables into the pages that have markers for them; the pages that changed."""
    shown, changed = tables(), []
    for page in filter(Path.is_file, PAGES):
        text = page.read_text(encoding="utf-8")
        filled = replace_tables(text, shown)
        if filled != text:
            page.write_text(filled, encoding="utf-8")
            changed.append(page)
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", nargs="?", help="name of a row")
    parser.add_argument("--list", action="store_true", help="show all rows, and whether they have a receipt")
    parser.add_argument("--render", action="store_true", help="only write the tables from the receipts")
    parser.add_argument("--quick", action="store_true", help="only see whether the row runs")
    parser.add_argument("--root", default="data", help="folder that holds the data sets")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks"), help="folder for checkpoints and logs")
    parser.add_argument("--threads", type=int, default=None, help="threads of torch; default: its own choice")
    options = parser.parse_args()
    if options.list:
        receipts = read_receipts()
        for row in declared()[0]:
            value = f"{receipts[row['name']]['value']:.2f}" if row["name"] in receipts else "not yet run"
            print(f"{row['name']:<20} {value:>12}   {row['what']}")
        return
    if options.row:
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        try:
            row = find_row(options.row)
        except ValueError as error:
            parser.error(str(error))
        receipt = reproduce(row, options.root, options.runs, options.quick)
        folder = options.runs / f"{row['name']}-quick" if options.quick else RESULTS
        write_receipt(folder / f"{row['name']}.json", receipt)
        print(f"{row['name']}: {receipt['value']:.2f} ({row['what']})\nreceipt: {folder / row['name']}.json")
    elif not options.render:
        parser.error("name a row, or give --list or --render")
    if not options.quick:
        for page in render():
            print(f"rendered: {page.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
