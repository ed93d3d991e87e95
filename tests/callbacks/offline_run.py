"""Reads the records of an offline Weights & Biases run back from its file."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

HEADER, BLOCK = 7, 32768


def records(folder: Path, patience: float = 30.0) -> list[Record]:
    """Every record of a finished run.

    Args:
        folder: ``offline-run-...``.
        patience: seconds to wait for the last one: ``wandb.finish`` returns before the file is complete.
    """
    (path,) = folder.glob("run-*.wandb")
    deadline = time.monotonic() + patience
    while True:
        found = list(parse(path.read_bytes()))
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        assert time.monotonic() < deadline, f"{path} stays incomplete"
        time.sleep(0.05)


def parse(content: bytes) -> Iterator[Record]:
    """Records of a log of LevelDB's kind.

    After a header there are blocks of 32 KiB, in which each piece of a record has a checksum (4 bytes), a length (2)
    and a type (1): 1 whole, 2 first, 3 middle, 4 last.
    """
    position, pending = HEADER, b""
    while position + 7 <= len(content):
        left = BLOCK - position % BLOCK
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        pending += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(pending)
            pending = b""
            yield record


def history(folder: Path) -> list[dict[str, Any]]:
    """What was logged, a dictionary for each call; nested keys are joined with a dot."""
    return [
        {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records(folder)
        if record.WhichOneof("record_type") == "history"
    ]


def config(folder: Path) -> dict[str, Any]:
    """The configuration of a run."""
    found: dict[str, Any] = {}
    for record in records(folder):
        updates = record.run.config if record.WhichOneof("record_type") == "run" else record.config
        for item in updates.update:
            found[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    return found
