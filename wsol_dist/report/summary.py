"""The numbers of a run in one small file, and as a table on the console."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wsol_dist.errors import UserError
from wsol_dist.files import write_atomically
from wsol_dist.log.console import duration_text
from wsol_dist.report.curves import number
from wsol_dist.report.run_data import RunData, read_run
from wsol_dist.report.view import LABELS, threshold_text, value_text

SCORES = ("gt_known", "top1_loc", "cls_top1", "centre_box")


def write_summary(run: Path) -> dict[str, Any]:
    """Writes `<run>/summary.json` from the latest evaluation of the test split, and prints it as a table.

    Returns:
        gt_known, top1_loc, cls_top1, centre_box: percent, None where not scored. protocol, threshold_source,
        threshold: those of gt_known. seconds: from the start of the run to its first summary after the
        evaluation, None where the start is unknown. Also split, step, method, num_images.

    Raises:
        UserError: no run folder, or its test split was not scored.
    """
    data = read_run(run)
    summary = summarise(data)
    earlier = _earlier_seconds(data)
    if earlier is not None:
        summary["seconds"] = earlier
    write_atomically(run / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    print_summary(data, summary)
    return summary


def _earlier_seconds(data: RunData) -> float | None:
    """The duration in a summary of this very evaluation: a report written again must not add to it."""
    path = data.folder / "summary.json"
    assert data.test is not None
    try:
        if path.stat().st_mtime < data.test.path.stat().st_mtime:
            return None
        seconds = json.loads(path.read_text(encoding="utf-8"))["seconds"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return float(seconds) if isinstance(seconds, int | float) else None


def summarise(data: RunData) -> dict[str, Any]:
    """The summary's content.

    Raises:
        UserError: the test split was not scored.
    """
    record = data.test
    if record is None:
        splits = ", ".join(sorted({one.split for one in data.records})) or "none"
        raise UserError(
            f"{data.folder}: no evaluation of the test split (scored splits: {splits}); "
            f"run: wsol evaluate {data.folder} --split test"
        )
    gt_known = record.metric("gt_known") or {}
    seconds = data.seconds
    return {
        **{name: record.value(name) for name in SCORES},
        "protocol": gt_known.get("protocol"),
        "threshold_source": gt_known.get("threshold_source"),
        "threshold": gt_known.get("threshold"),
        "seconds": None if seconds is None else round(seconds, 1),
        "split": record.split,
        "step": record.step,
        "method": data.method,
        "num_images": record.raw.get("num_images"),
    }


def print_summary(data: RunData, summary: dict[str, Any], *, console: Console | None = None) -> None:
    """A table of the headline numbers, each with protocol and threshold source, and where to look next."""
    console = console or Console()
    assert data.test is not None
    images = f", {summary['num_images']} images" if summary["num_images"] else ""
    title = f"{data.name}: {summary['method']} on {data.data} ({summary['split']}{images})"
    table = Table(title=escape(title), title_justify="left")
    for name, justify in (("", "left"), ("percent", "right"), ("protocol", "left"), ("threshold", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name in SCORES:
        metric = data.test.metric(name) or {}
        table.add_row(
            LABELS[name],
            value_text(summary[name]),
            escape(str(metric.get("protocol") or "")),
            escape(threshold_text(metric)),
        )
    console.print(table)
    gap = number(summary["gt_known"]) - number(summary["centre_box"])
    took = (
        f"; the whole run took {duration_text(summary['seconds'])}" if summary["seconds"] is not None else ""
    )
    if gap == gap:  # not nan
        console.print(f"GT-known is {gap:+.1f} points over the centre box{took}.", markup=False)
    for path, what in _next(data):
        console.print(f"  {path}  {what}", markup=False, highlight=False, soft_wrap=True)


def _next(data: RunData) -> Iterator[tuple[Path, str]]:
    """Where to look next: only what is there."""
    assert data.test is not None
    rows = data.test.path.with_suffix(".parquet")
    for path, what in (
        (data.folder / "report.html", "curves, threshold, cases; open it in a browser"),
        (rows, "one row an image"),
        (data.folder / "metrics.jsonl", "the training log"),
    ):
        if path.exists():
            yield path, what
