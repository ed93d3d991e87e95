"""Tables from receipts, and the receipts that are published."""

import json
import re

import pytest

from benchmarks.receipts import RESULTS, read_receipts
from benchmarks.reproduce import PAGES, declared, find_row, tables
from benchmarks.tables import (
    NOT_RUN,
    adversarial_speed_table,
    diffusion_speed_table,
    draw_speed_table,
    duration,
    models_table,
    rbm_speed_table,
    replace_tables,
    rows_table,
    throughput_table,
    variational_speed_table,
)

ROW = {
    "name": "r",
    "config": "vae/x",
    "what": "bound, nats",
    "protocol": "a protocol",
    "paper": {"value": 88.7, "source": "Somebody 2015", "url": "https://example.org"},
    "others": [{"value": 89.78, "source": "a peer"}],
}
PROVENANCE = {"hardware": {"cpu": "A CPU", "cores": 2, "threads": 1}, "versions": {"torch": "2.15.0"}}
RECEIPT = {
    "value": 88.123,
    "data": "the data",
    "epochs": 7,
    "train_seconds": 600.0,
    "provenance": PROVENANCE,
}
MODEL = {"class": "VAE", "year": 2013, "paper": "A Paper", "url": "https://example.org/p", "row": "r"}


def cells(table: str) -> list[str]:
    return [cell.strip() for cell in table.splitlines()[2].strip("|").split("|")]


def test_only_what_lies_between_markers_is_replaced() -> None:
    page = "before <!-- table:a -->\nold\nold\n<!-- /table --> between <!-- table:b --><!-- /table --> after"
    filled = replace_tables(page, {"a": "A\n", "b": "B", "unused": "C"})
    assert filled == "before <!-- table:a -->\nA\n<!-- /table --> between <!-- table:b -->\nB\n<!-- /table --> after"
    assert replace_tables(filled, {"a": "A", "b": "B"}) == filled


def test_a_page_without_markers_stays() -> None:
    assert replace_tables("no tables here", {"a": "A"}) == "no tables here"


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("<!-- table:c --><!-- /table -->", "no table 'c'.* a"),
        ("<!-- table:a --> no end", "not followed"),
        ("<!-- table:a --> <!-- table:a --><!-- /table -->", "not followed"),
    ],
)
def test_wrong_markers_are_refused(page: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace_tables(page, {"a": "A"})


def test_a_row_without_receipt_is_not_yet_run() -> None:
    assert cells(rows_table([ROW], {}))[3] == NOT_RUN
    assert NOT_RUN in cells(models_table([MODEL], [ROW], {}))[4]
    assert throughput_table(None) == NOT_RUN


def test_a_row_shows_the_number_of_its_receipt_and_the_published_ones() -> None:
    shown = cells(rows_table([ROW], {"r": RECEIPT}))
    assert shown[0] == "`r`"
    assert shown[3] == "**[88.12](results/r.json)**"
    assert shown[4] == "88.70 ([Somebody 2015](https://example.org))"
    assert shown[5] == "89.78 (a peer)"
    assert shown[6] == "7 epochs, 10 min, 1 thread of 2 cores of A CPU, torch 2.15.0"


def test_a_row_shows_other_metrics_beside_its_number() -> None:
    row = {**ROW, "factor": -100, "also": {"accuracy": "test/accuracy", "IoU": "test/iou"}}
    receipt = {**RECEIPT, "test_metrics": {"test/accuracy": 0.98765, "test/iou": 0.5}}
    assert cells(rows_table([row], {"r": receipt}))[3].endswith("(results/r.json)** (accuracy 98.8, IoU 50)")
    large = {**RECEIPT, "test_metrics": {"test/accuracy": 28.956, "test/iou": -0.0123}}
    assert cells(rows_table([row], {"r": large}))[3].endswith("(results/r.json)** (accuracy 2,896, IoU -1.23)")
    older = {**RECEIPT, "test_metrics": {"test/accuracy": 0.98765}}
    assert cells(rows_table([row], {"r": older}))[3].endswith("(results/r.json)** (accuracy 98.8)")
    assert cells(rows_table([row], {"r": {**RECEIPT, "test_metrics": {}}}))[3].endswith("(results/r.json)**")


def test_a_row_shows_the_data_it_was_run_on_not_what_was_declared() -> None:
    assert cells(rows_table([ROW], {}))[2] == "bound, nats. a protocol"
    assert cells(rows_table([ROW], {"r": RECEIPT}))[2] == "bound, nats. the data"
    other = {**ROW, "training_differs": "Fewer epochs"}
    assert cells(rows_table([other], {"r": RECEIPT}))[2] == "bound, nats. the data. Fewer epochs"


def test_no_model_is_listed_twice_with_one_row() -> None:
    listed = [(model["class"], model["row"]) for model in declared()[1]]
    assert len(listed) == len(set(listed))


def test_a_model_links_to_the_receipt_from_the_front_page() -> None:
    shown = cells(models_table([MODEL], [ROW], {"r": RECEIPT}))
    assert shown[:4] == ["`VAE`", "2013", "[A Paper](https://example.org/p)", "`vae/x`"]
    assert shown[4].startswith("[88.12](benchmarks/results/r.json) / 88.70 (")


def test_throughput_shows_every_ratio_with_its_target() -> None:
    others = {"bare": 1000.0, "torchvision": 300.0, "pythae": 500.0}
    ratios = {f"{ours} / {other}": 2.25 for ours in ("with the bar", "without the bar") for other in others}
    receipt = {
        "images_per_second": {**others, "lit_gen with the bar": 900.0, "lit_gen without the bar": 950.0},
        "ratios": {**ratios, "bound / pythae": 4.0},
        "targets": {"with the bar / bare": 0.85, "bound / pythae": 3.0},
        "bound": {"samples": 200, "milliseconds_per_image": {"lit_gen": 2.0, "pythae": 8.0}},
        "network": "a network",
        "batch_size": 100,
        "images": 60000,
        "repeats": 4,
        "data": "MNIST",
        "provenance": PROVENANCE,
    }
    shown = throughput_table(receipt)
    assert "| lit_gen with the bar | 900 |" in shown
    assert "| bare | 1,000 | 2.25 (target 0.85) | 2.25 |" in shown
    assert "4.0 times faster (target 3)" in shown


def test_rbm_speed_names_every_library_and_its_version() -> None:
    versions = {**PROVENANCE["versions"], "scikit-learn": "1.9", "learnergy": "2.0", "rbms": "0.5"}
    receipt = {
        "images_per_second": {"lit_gen": 900.0, "products": 1000.0, "rbms": 300.0},
        "ratios": {"lit_gen / products": 0.9, "lit_gen / rbms": 3.0},
        "targets": {"lit_gen / products": 0.8},
        "network": "a machine",
        "batch_size": 100,
        "images": 60000,
        "repeats": 4,
        "data": "MNIST",
        "provenance": {**PROVENANCE, "versions": versions},
    }
    shown = rbm_speed_table(receipt)
    assert "| products | 1,000 | 0.90 (target 0.8) |" in shown
    assert "| rbms | 300 | 3.00 |" in shown
    assert "rbms 0.5" in shown
    assert rbm_speed_table(None) == NOT_RUN


def test_variational_speed_stands_beside_pythae() -> None:
    speed = {"conv, lit_gen": 2000.0, "conv, pythae": 1000.0, "iwae, lit_gen": 300.0, "iwae, pythae": 200.0}
    speed |= {"conv in bf16, lit_gen": 4000.0, "iwae in bf16, lit_gen": 700.0}
    low = {"conv in bf16 / pythae": 4.0, "iwae in bf16 / pythae": 3.5}
    receipt = {
        "images_per_second": {**speed, "bound, lit_gen": 24.0, "bound, pythae": 8.0},
        "ratios": {"conv / pythae": 2.0, "iwae / pythae": 1.5, "bound / pythae": 3.0, **low},
        "targets": {"conv / pythae": 1.5, "iwae / pythae": 1.5, "bound / pythae": 3.0, **dict.fromkeys(low, 1.5)},
        "bound": {"samples": 5000, "images": 10},
        "batch_size": 100,
        "images": 2000,
        "repeats": 3,
        "data": "MNIST",
        "provenance": {**PROVENANCE, "versions": {**PROVENANCE["versions"], "pythae": "0.1.2"}},
    }
    shown = variational_speed_table(receipt)
    assert "| convolutional VAE, an epoch | 2,000 | 1,000 | 2.00 (target 1.5) |" in shown
    assert "| the same, lit_gen with `-c trainer/bf16` | 4,000 | 1,000 | 4.00 (target 1.5) |" in shown
    assert "| IWAE, k = 50, an epoch | 300 | 200 | 1.50 (target 1.5) |" in shown
    assert "| the same, lit_gen with `-c trainer/bf16` | 700 | 200 | 3.50 (target 1.5) |" in shown
    assert "| the bound with 5,000 samples | 24.0 | 8.0 | 3.00 (target 3) |" in shown
    assert "pythae 0.1.2" in shown
    assert variational_speed_table(None) == NOT_RUN


def test_draw_speed_over_glimpses_and_sizes() -> None:
    name = "28x28 grey, T = 8"
    receipt = {
        "networks": {name: "256 units"},
        "milliseconds_per_step": {name: {"plain": 160.0, "lit_gen": 100.4, "lit_gen compiled": 80.0}},
        "ratios": {f"{name}: lit_gen / plain": 1.594, f"{name}: lit_gen compiled / plain": 2.0},
        "targets": {f"{name}: lit_gen / plain": 1.5, f"{name}: lit_gen compiled / plain": 1.5},
        "network": "DRAW",
        "batch_size": 100,
        "repeats": 3,
        "data": "random pixels",
        "provenance": PROVENANCE,
    }
    shown = draw_speed_table(receipt)
    assert "plain, ms a step | lit_gen, times as fast | lit_gen compiled, times as fast |" in shown
    assert "| 28x28 grey, T = 8 | 256 units | 160 | 1.59 (target 1.5) | 2.00 (target 1.5) |" in shown
    assert "the best of 3 interleaved steps" in shown
    assert draw_speed_table(None) == NOT_RUN


def test_diffusion_speed_of_both_parts() -> None:
    speed = {"training, lit_gen": 30.0, "training, diffusers": 20.0}
    speed |= {"sampling, lit_gen": 4.0, "sampling, diffusers": 5.0}
    receipt = {
        "images_per_second": speed,
        "ratios": {"training / diffusers": 1.5, "sampling / diffusers": 0.8},
        "targets": {"training / diffusers": 1.0, "sampling / diffusers": 1.0},
        "networks": {"steps": 20, "samples": 32},
        "network": "U-Net",
        "batch_size": 100,
        "images": 500,
        "repeats": 2,
        "data": "MNIST",
        "provenance": {**PROVENANCE, "versions": {**PROVENANCE["versions"], "diffusers": "0.42.1"}},
    }
    shown = diffusion_speed_table(receipt)
    assert "| training, an epoch | 30.0 | 20.0 | 1.50 (target 1) |" in shown
    assert "| DDIM in 20 steps | 4.0 | 5.0 | 0.80 (target 1) |" in shown
    assert "diffusers 0.42.1" in shown
    assert diffusion_speed_table(None) == NOT_RUN


def test_adversarial_speed_stands_beside_others() -> None:
    receipt = {
        "images_per_second": {"lit_gen": 297.0, "bare": 300.0, "torch-mimicry": 250.0},
        "ratios": {"lit_gen / bare": 0.99, "lit_gen / torch-mimicry": 1.188},
        "targets": {"lit_gen / bare": 0.95},
        "network": "DCGAN",
        "batch_size": 100,
        "images": 1000,
        "repeats": 4,
        "data": "MNIST",
        "provenance": {**PROVENANCE, "versions": {**PROVENANCE["versions"], "torch-mimicry": "0.1.16"}},
    }
    shown = adversarial_speed_table(receipt)
    assert "| bare | 297 | 300 | 0.99 (target 0.95) |" in shown
    assert "| torch-mimicry 0.1.16 | 297 | 250 | 1.19 |" in shown
    assert "DCGAN, batches of 100, 1,000 images of MNIST" in shown
    assert adversarial_speed_table(None) == NOT_RUN


@pytest.mark.parametrize(("seconds", "text"), [(59.6, "60 s"), (119, "119 s"), (121, "2 min"), (7300, "2.0 h")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_unknown_row_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="vae-digits"):
        find_row("vae")


def test_rows_and_models_are_declared_consistently() -> None:
    rows, models = declared()
    names = [row["name"] for row in rows]
    assert len(set(names)) == len(names)
    assert {model["row"] for model in models} <= set(names)
    for row in rows:
        assert (PAGES[1].parent / "configs" / f"{row['config']}.yaml").is_file()
        for number in [row.get("paper"), *row.get("others", [])]:
            assert number is None or {"value", "source"} <= set(number)


def test_published_receipts_are_whole_and_name_no_folder_of_a_machine() -> None:
    rows = {row["name"] for row in declared()[0]}
    for name, receipt in read_receipts(RESULTS).items():
        assert name.startswith("throughput") or (name in rows and receipt["row"] == name and not receipt["quick"])
        assert receipt["provenance"]["versions"]["torch"]
        # An absolute path, on its own or after the equals sign of an option.
        assert not re.findall(r'"(?:--[^"=]*=)?(?:/|[A-Z]:\\|~)[^"]*"', json.dumps(receipt))


def test_tables_on_the_pages_are_those_of_the_receipts() -> None:
    shown = tables()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert replace_tables(text, shown) == text, f"run python benchmarks/reproduce.py --render ({page.name})"
