"""Scores as a table on the console: no number without its protocol and the source of its threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

Record = Mapping[str, Any]
"""A number as an evaluation's JSON has it."""


def print_scores(records: Sequence[Record], *, title: str, console: Console | None = None) -> None:
    """Print the numbers, and how far GT-known lies above the best constant box."""
    table = Table(title=title, title_justify="left", caption=_caption(records), caption_justify="left")
    for name in ("metric", "value", "protocol", "threshold", "source"):
        table.add_column(name, justify="right" if name in ("value", "threshold") else "left")
    for record in records:
        threshold = "" if record["threshold"] is None else f"{record['threshold']:.3f}"
        table.add_row(
            record["name"],
            f"{record['value']:.2f} {record['unit']}",
            record["protocol"],
            threshold,
            record["threshold_source"],
        )
    (console or Console()).print(table)


def _caption(records: Sequence[Record]) -> str:
    values = {record["name"]: record["value"] for record in records}
    if not values.keys() >= {"gt_known", "centre_box"}:
        return ""
    note = next(record["note"] for record in records if record["name"] == "centre_box")
    above = values["gt_known"] - values["centre_box"]
    return f"GT-known is {above:+.1f} points from the centre box ({note})"
