"""What a run folder holds, read for the report: config, log rows, evaluation records, pictures."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from wsol_dist.errors import UserError
from wsol_dist.log.jsonl import METRICS_FILE, first_time, read_metrics
from wsol_dist.runs.rows import read_numbers
from wsol_dist.runs.run_state import CONFIG_FILE

_MIME_OF_MAGIC = {b"\xff\xd8\xff": "image/jpeg", b"\x89PN": "image/png"}


@dataclass(frozen=True, kw_only=True)
class EvalRecord:
    """One evaluation as the evaluator wrote it."""

    path: Path
    raw: dict[str, Any]

    @property
    def split(self) -> str:
        return str(self.raw["split"])

    @property
    def step(self) -> int:
        return int(self.raw.get("step") or 0)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return self.raw["metrics"]

    def metric(self, name: str) -> dict[str, Any] | None:
        """The metric of that name, None where this evaluation does not have it."""
        return next((metric for metric in self.metrics if metric.get("name") == name), None)

    def value(self, name: str) -> float | None:
        found = self.metric(name)
        return None if found is None else found.get("value")

    def curve(self, name: str) -> list[float]:
        """Percentages by threshold level 0..254; empty where there is none."""
        curve = (self.raw.get("curves") or {}).get(name) or []
        return curve if len(curve) == 255 else []


@dataclass(frozen=True, kw_only=True)
class RunData:
    """A run folder."""

    folder: Path
    config: dict[str, Any]
    """Resolved config; empty where config.yaml is missing."""
    config_text: str
    rows: list[dict[str, Any]]
    """Training log by step."""
    records: list[EvalRecord]
    """Evaluations by step."""
    shown_as: str = ""
    """What it is called beside runs whose folders have the same name; empty where there are none."""

    @property
    def name(self) -> str:
        return self.shown_as or self.folder.resolve().name

    @property
    def method(self) -> str:
        method = self.config.get("method")
        named = method.get("name") if isinstance(method, dict) else None
        return str(named or (self.headline.raw.get("method") if self.headline else None) or "unknown")

    @property
    def data(self) -> str:
        """Name of the data set that was scored, else of the config's: the last part of the shards' folder."""
        scored = self.headline.raw.get("index") if self.headline else None
        if isinstance(scored, dict) and scored.get("name"):
            return str(scored["name"])
        data = self.config.get("data")
        index = data.get("index") if isinstance(data, dict) else None
        return Path(str(index)).name if index else "unknown"

    @property
    def test(self) -> EvalRecord | None:
        """The latest evaluation of the test split."""
        return latest([record for record in self.records if record.split == "test"])

    @property
    def headline(self) -> EvalRecord | None:
        """The evaluation to show first: of the test split, or of any where that was not scored."""
        return self.test or latest(self.records)

    @property
    def seconds(self) -> float | None:
        """From the submission, or else the first log row, until now; None where neither is known."""
        started = _started(self.folder)
        return None if started is None else max(0.0, time.time() - started)


def read_image_numbers(record: EvalRecord, *names: str) -> dict[str, np.ndarray]:
    """Columns of the record's row an image, as `read_numbers` gives them; empty where that file is missing.

    Raises:
        UserError: it cannot be read.
    """
    path = record.path.with_suffix(".parquet")
    if not path.is_file():
        return {}
    try:
        return read_numbers(path, names)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run wsol evaluate again") from error


def latest(records: list[EvalRecord]) -> EvalRecord | None:
    """The record of the highest step; the one written last where a step was scored several times."""
    return max(records, key=lambda record: (record.step, record.path.stat().st_mtime_ns), default=None)


def read_runs(folders: Sequence[Path]) -> list[RunData]:
    """As `read_run`, each with a name of its own: of equally called folders, with as much of the path as parts them."""
    return [
        replace(read_run(folder), shown_as=name)
        for folder, name in zip(folders, distinct_names(folders), strict=True)
    ]


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as few of them as tell one folder from another."""
    every = [folder.resolve().parts for folder in folders]

    def name(own: tuple[str, ...]) -> str:
        others = [parts for parts in every if parts != own]
        alone = (n for n in range(1, len(own)) if all(own[-n:] != parts[-n:] for parts in others))
        return "/".join(own[-next(alone, len(own)) :])

    return [name(own) for own in every]


def read_run(folder: Path) -> RunData:
    """Reads a run folder; parts that are not there yet are empty.

    Raises:
        UserError: no such folder, no run in it, or a file in it that cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"run {str(folder)!r}: no such folder; give a run folder such as runs/quickstart")
    config_path = folder / CONFIG_FILE
    records = sorted((folder / "eval").glob("*.json"))
    if not (config_path.is_file() or records or (folder / METRICS_FILE["train"]).is_file()):
        raise UserError(
            f"run {str(folder)!r}: not a run folder; it holds no config.yaml, metrics.jsonl or eval/*.json"
        )
    text = config_path.read_text(encoding="utf-8") if config_path.is_file() else ""
    return RunData(
        folder=folder,
        config=_config(text, path=config_path),
        config_text=text,
        rows=read_metrics(folder / METRICS_FILE["train"]),
        records=sorted((_record(path) for path in records), key=lambda record: record.step),
    )


def read_picture(run: RunData, name: str) -> str | None:
    """A case's picture below `<run>/eval/` as a data URI; None where it is missing or is no JPEG or PNG."""
    root = (run.folder / "eval").resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root) or not path.is_file():  # a record must not embed files from elsewhere
        return None
    return data_uri(path.read_bytes())


def data_uri(content: bytes) -> str | None:
    """A JPEG or PNG as text for a page; None of anything else."""
    mime = _MIME_OF_MAGIC.get(content[:3])
    return f"data:{mime};base64,{base64.b64encode(content).decode()}" if mime else None


def _config(text: str, *, path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: a config is a mapping of keys to values, this is {type(config).__name__}")
    return config


def _record(path: Path) -> EvalRecord:
    try:
        raw = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); remove it and run wsol evaluate again") from error
    metrics = raw.get("metrics") if isinstance(raw, dict) else None
    if not isinstance(metrics, list) or "split" not in raw or not all(isinstance(m, dict) for m in metrics):
        raise UserError(
            f"{path}: not an evaluation record (no split or metrics); remove it and run wsol evaluate again"
        )
    return EvalRecord(path=path, raw=raw)


def _started(folder: Path) -> float | None:
    try:
        return float((folder / "started").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return first_time(folder / METRICS_FILE["train"])
