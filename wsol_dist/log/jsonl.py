"""The log file of a run: one JSON object a line, safe to read while it is written and after a kill."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, TextIO

METRICS_FILE = {"train": "metrics.jsonl", "evaluate": "metrics-evaluate.jsonl"}
"""Job -> file in the run folder. Two files, because two jobs may write at the same time."""


class JsonLines:
    """Appends rows, each flushed as one line: a reader never waits, and a kill costs one row at most."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = _ends_torn(path)
        self._file: TextIO = path.open("a", buffering=1, encoding="utf-8")
        if torn:  # a kill left half a line: the next row must not be glued to it
            self._file.write("\n")

    def write(self, scalars: dict[str, float], *, step: int) -> None:
        """Adds a row `{"step", "time", **scalars}`; numbers that JSON cannot hold (nan, inf) become null."""
        row: dict[str, Any] = {"step": int(step), "time": round(time.time(), 3)}
        row |= {name: _json_number(value) for name, value in scalars.items()}
        self._file.write(json.dumps(row, allow_nan=False) + "\n")

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows by ascending step; a missing file gives none.

    Where a step was logged again (after a resume), the later values win. Lines that do not parse, such as
    one torn by a kill, are left out.
    """
    rows: dict[int, dict[str, Any]] = {}
    if not path.is_file():
        return []
    for line in path.read_bytes().splitlines():
        row = _parsed(line)
        if row is not None:
            rows[row["step"]] = rows.get(row["step"], {}) | row
    return [rows[step] for step in sorted(rows)]


def first_time(path: Path) -> float | None:
    """Unix time of the first row ever written, in seconds; None without a row."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        for line in file:
            row = _parsed(line)
            if row is not None and isinstance(row.get("time"), int | float):
                return float(row["time"])
    return None


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def _json_number(value: float) -> float | int | None:
    number = value if isinstance(value, int) else float(value)
    return number if math.isfinite(number) else None


def _ends_torn(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) != b"\n"
