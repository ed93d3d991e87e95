"""Tables of README files, rendered from receipts: pure functions, no number is typed by hand."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

Receipt = Mapping[str, Any]
NOT_RUN = "not yet run"


def replace_tables(text: str, tables: Mapping[str, str]) -> str:
    """Put each table between its markers ``<!-- table:NAME -->`` and ``<!-- /table -->``.

    Args:
        text: a page in Markdown.
        tables: tables by name; those that the page has no markers for are left out.

    Raises:
        ValueError: the page has markers for a table that is not given, or an opening marker without its end.
    """

    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in tables:
            raise ValueError(f"there is no table {name!r} to put between the markers; there are {', '.join(tables)}")
        return f"<!-- table:{name} -->\n{tables[name].strip()}\n<!-- /table -->"

    filled, count = re.subn(r"<!-- table:([\w-]+) -->.*?<!-- /table -->", fill, text, flags=re.DOTALL)
    if count != text.count("<!-- table:"):
        raise ValueError("a marker <!-- table:NAME --> is not followed by <!-- /table --> before the next one")
    return filled


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def cite(number: Mapping[str, Any] | None) -> str:
    """A published number with its source: ``{"value", "source"}`` and optionally ``url``."""
    if number is None:
        return "none published"
    source = f"[{number['source']}]({number['url']})" if "url" in number else number["source"]
    return f"{number['value']:.2f} ({source})"


def result(row: Mapping[str, Any], receipt: Receipt | None) -> str:
    """Our number of a row, linked to its receipt."""
    if receipt is None:
        return NOT_RUN
    return f"[{receipt['value']:.2f}](results/{row['name']}.json)"


def also(row: Mapping[str, Any], receipt: Receipt) -> str:
    """What a row shows beside its number, in the same units but for the sign: each metric with its name.

    A receipt that is older than the row's wish to show one lacks it.
    """
    if "also" not in row:
        return ""
    units, values = abs(row["factor"]), receipt["test_metrics"]
    measured = {name: units * values[metric] for name, metric in row["also"].items() if metric in values}
    shown = [f"{name} {value:{',.0f' if abs(value) >= 1000 else '.3g'}}" for name, value in measured.items()]
    return f" ({', '.join(shown)})" if shown else ""


def rows_table(rows: Sequence[Mapping[str, Any]], receipts: Mapping[str, Receipt]) -> str:
    """Every row with what was measured, our number and the published ones."""
    lines = []
    for row in rows:
        receipt = receipts.get(row["name"])
        others = "; ".join(map(cite, row.get("others") or [])) or "–"
        ours = f"**{result(row, receipt)}**{also(row, receipt)}" if receipt else NOT_RUN
        spent = "–"
        if receipt:
            time, on = duration(receipt["train_seconds"]), machine(receipt["provenance"])
            spent = f"{receipt['epochs']} epochs, {time}, {on}"
        parts = [row["what"], receipt["data"] if receipt else row["protocol"], row.get("training_differs")]
        measured = ". ".join(filter(None, parts))
        lines.append([f"`{row['name']}`", f"`{row['config']}`", measured, ours, cite(row.get("paper")), others, spent])
    header = ["row", "config", "what is measured", "ours", "paper", "others", "cost"]
    return markdown(header, lines)


def models_table(
    models: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], receipts: Mapping[str, Receipt]
) -> str:
    """The models of the package for the front page: class, year, paper, config, our number and the paper's."""
    by_name = {row["name"]: row for row in rows}
    lines = []
    for model in models:
        row = by_name[model["row"]]
        receipt = receipts.get(row["name"])
        ours = result(row, receipt).replace("(results/", "(benchmarks/results/")
        numbers = f"{ours} / {cite(row.get('paper'))}: {row['what']}"
        paper = f"[{model['paper']}]({model['url']})"
        lines.append([f"`{model['class']}`", str(model["year"]), paper, f"`{row['config']}`", numbers])
    return markdown(["model", "year", "paper", "config", "ours / published"], lines)


def throughput_table(receipt: Receipt | None) -> str:
    """Images per second and the ratios to the targets."""
    if receipt is None:
        return NOT_RUN
    speed, ratios, targets = receipt["images_per_second"], receipt["ratios"], receipt["targets"]
    lines = [
        [name, f"{speed[name]:,.0f}"]
        + [
            f"{ratios[key]:.2f} (target {targets[key]})" if key in targets else f"{ratios[key]:.2f}"
            for ours in ("with the bar", "without the bar")
            for key in [f"{ours} / {name}"]
        ]
        for name in ("bare", "torchvision", "pythae")
    ]
    own = [[f"lit_gen {way}", f"{speed[f'lit_gen {way}']:,.0f}", "", ""] for way in ("with the bar", "without the bar")]
    table = markdown(["one epoch", "images/s", "lit_gen with the bar / this", "without the bar / this"], own + lines)
    bound = receipt["bound"]
    times = bound["milliseconds_per_image"]
    return (
        f"{table}\n\nThe bound with {bound['samples']} samples takes {times['lit_gen']:.2f} ms an image here and"
        f" {times['pythae']:.2f} ms in pythae: {ratios['bound / pythae']:.1f} times faster"
        f" (target {targets['bound / pythae']:g}).\n\n"
        f"{receipt['network']}, batches of {receipt['batch_size']}, {receipt['images']:,} images of"
        f" {receipt['data']}, the best of {receipt['repeats']} interleaved epochs; {machine(receipt['provenance'])};"
        f" [receipt](results/throughput.json)."
    )


def rbm_speed_table(receipt: Receipt | None) -> str:
    """Images per second of an RBM in each library, and how many times as fast lit_gen is."""
    if receipt is None:
        return NOT_RUN
    speed, ratios, targets = receipt["images_per_second"], receipt["ratios"], receipt["targets"]
    lines = [["lit_gen", f"{speed['lit_gen']:,.0f}", ""]]
    for name in speed:
        if name != "lit_gen":
            key = f"lit_gen / {name}"
            target = f" (target {targets[key]})" if key in targets else ""
            lines.append([name, f"{speed[name]:,.0f}", f"{ratios[key]:.2f}{target}"])
    versions = receipt["provenance"]["versions"]
    others = ", ".join(f"{name} {versions[name]}" for name in ("scikit-learn", "learnergy", "rbms"))
    return (
        f"{markdown(['one epoch', 'images/s', 'lit_gen / this'], lines)}\n\n"
        f"{receipt['network']}, batches of {receipt['batch_size']}, {receipt['images']:,} images of"
        f" {receipt['data']}, the best of {receipt['repeats']} interleaved epochs; {others};"
        f" {machine(receipt['provenance'])}; [receipt](results/throughput-rbm.json)."
    )


def variational_speed_table(receipt: Receipt | None) -> str:
    """Images per second of variational models here and in pythae."""
    if receipt is None:
        return NOT_RUN
    speed, ratios, targets = receipt["images_per_second"], receipt["ratios"], receipt["targets"]
    names = {"conv": "convolutional VAE, an epoch", "conv in bf16": "the same, lit_gen with `-c trainer/bf16`"}
    names |= {"iwae": "IWAE, k = 50, an epoch", "iwae in bf16": "the same, lit_gen with `-c trainer/bf16`"}
    names["bound"] = f"the bound with {receipt['bound']['samples']:,} samples"
    lines = []
    for part, name in names.items():
        values = (speed[f"{part}, lit_gen"], speed[f"{part.removesuffix(' in bf16')}, pythae"])
        ours, theirs = (f"{value:,.0f}" if value >= 100 else f"{value:.1f}" for value in values)
        key = f"{part} / pythae"
        lines.append([name, ours, theirs, f"{ratios[key]:.2f} (target {targets[key]:g})"])
    header = ["", "lit_gen, images/s", "pythae, images/s", "lit_gen / pythae"]
    return (
        f"{markdown(header, lines)}\n\n"
        f"Batches of {receipt['batch_size']}, {receipt['images']:,} images of {receipt['data']}"
        f" ({receipt['bound']['images']} for the bound), the best of {receipt['repeats']} interleaved epochs, in"
        f" seconds of the processor; pythae {receipt['provenance']['versions']['pythae']};"
        f" {machine(receipt['provenance'])}; [receipt](results/throughput-variational.json)."
    )


def draw_speed_table(receipt: Receipt | None) -> str:
    """Milliseconds of a training step of DRAW, here and written plainly, over T and the size of the images."""
    if receipt is None:
        return NOT_RUN
    times, ratios, targets = receipt["milliseconds_per_step"], receipt["ratios"], receipt["targets"]
    ways = [who for who in next(iter(times.values())) if who != "plain"]
    lines = []
    for name, network in receipt["networks"].items():
        keys = [f"{name}: {who} / plain" for who in ways]
        shown = (f"{ratios[key]:.2f} (target {targets[key]:g})" for key in keys)
        lines.append([name, network, f"{times[name]['plain']:,.0f}", *shown])
    header = ["images, glimpses", "network", "plain, ms a step", *(f"{who}, times as fast" for who in ways)]
    return (
        f"{markdown(header, lines)}\n\n"
        f"{receipt['network']}, batches of {receipt['batch_size']}, {receipt['data']}, the best of"
        f" {receipt['repeats']} interleaved steps, in milliseconds of the processor; {machine(receipt['provenance'])};"
        f" [receipt](results/throughput-draw.json)."
    )


def diffusion_speed_table(receipt: Receipt | None) -> str:
    """Images per second of DDPM here and in diffusers."""
    if receipt is None:
        return NOT_RUN
    speed, ratios, targets, networks = (receipt[key] for key in ("images_per_second", "ratios", "targets", "networks"))
    names = {"training": "training, an epoch", "sampling": f"DDIM in {networks['steps']} steps"}
    lines = []
    for part, name in names.items():
        ours, theirs = (f"{speed[f'{part}, {who}']:.1f}" for who in ("lit_gen", "diffusers"))
        key = f"{part} / diffusers"
        lines.append([name, ours, theirs, f"{ratios[key]:.2f} (target {targets[key]:g})"])
    header = ["", "lit_gen, images/s", "diffusers, images/s", "lit_gen / diffusers"]
    return (
        f"{markdown(header, lines)}\n\n"
        f"{receipt['network']}, batches of {receipt['batch_size']}, {receipt['images']:,} images of {receipt['data']},"
        f" {networks['samples']} samples, the best of {receipt['repeats']} interleaved turns, in seconds of the"
        f" processor; diffusers {receipt['provenance']['versions']['diffusers']}; {machine(receipt['provenance'])};"
        f" [receipt](results/throughput-diffusion.json)."
    )


def adversarial_speed_table(receipt: Receipt | None) -> str:
    """Images per second of a DCGAN here, in a plain loop and in torch-mimicry."""
    if receipt is None:
        return NOT_RUN
    speed, ratios, targets = (receipt[part] for part in ("images_per_second", "ratios", "targets"))
    lines = []
    for name in (name for name in speed if name != "lit_gen"):
        asked = targets.get(f"lit_gen / {name}")
        ratio = f"{ratios[f'lit_gen / {name}']:.2f}" + ("" if asked is None else f" (target {asked:g})")
        version = receipt["provenance"]["versions"].get(name, "")
        lines.append([f"{name} {version}".strip(), f"{speed['lit_gen']:,.0f}", f"{speed[name]:,.0f}", ratio])
    return (
        f"{markdown(['beside', 'lit_gen, images/s', 'it, images/s', 'ratio'], lines)}\n\n"
        f"{receipt['network']}, batches of {receipt['batch_size']}, {receipt['images']:,} images of {receipt['data']},"
        f" the best of {receipt['repeats']} interleaved epochs, in seconds of the processor;"
        f" {machine(receipt['provenance'])}; [receipt](results/throughput-adversarial.json)."
    )


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def machine(provenance: Mapping[str, Any]) -> str:
    """Hardware and torch in a few words."""
    hardware, torch = provenance["hardware"], provenance["versions"]["torch"]
    if "gpu" in hardware:
        return f"{hardware['gpu']}, torch {torch}"
    threads = "1 thread" if hardware["threads"] == 1 else f"{hardware['threads']} threads"
    return f"{threads} of {hardware['cores']} cores of {hardware['cpu']}, torch {torch}"
