"""The charts of a report: training curves and the threshold curve of one run or of several."""

from __future__ import annotations

import math
from typing import Any

from wsol_dist.report.charts import Chart, Level, Mark, Series, chart, smoothed, thinned
from wsol_dist.report.run_data import EvalRecord, RunData, latest

NUM_LEVELS = 255
"""A map has 8 bits, and the threshold is strict: levels 0..254 are distinct."""

TRAINING = {
    "train/loss": ("Loss", "", False),
    "train/lr": ("Learning rate", "", True),
    "train/images_per_s": ("Throughput", "images/s", True),
    "train/data_wait_pct": ("Waiting for data", "% of the time", True),
    "train/memory_gib": ("Memory", "GiB", True),
}
"""Scalar -> title, unit, whether the axis starts at 0."""
_NOT_CHARTED = {"train/epoch", "train/step"}
_THRESHOLD_CURVES = {"gt_known": "GT-known", "top1_loc": "Top-1 loc", "max_box_acc": "MaxBoxAcc"}


def training_charts(runs: list[RunData]) -> list[Chart]:
    """Loss, learning rate, images/s, data wait and memory over the steps."""
    return _scalar_charts(runs, TRAINING)


def other_charts(runs: list[RunData]) -> list[Chart]:
    """Every other logged scalar, such as the terms of the loss."""
    names = {name for run in runs for row in run.rows for name in row if "/" in name}
    rest = sorted(names - TRAINING.keys() - _NOT_CHARTED)
    return _scalar_charts(runs, {name: (name.removeprefix("train/"), "", False) for name in rest})


def score_chart(runs: list[RunData]) -> Chart | None:
    """GT-known over training: each split of one run; of several runs the split that each scored most.

    None unless some split was scored at two steps.
    """
    lines: list[Series] = []
    for at, run in enumerate(runs):
        found = [(split, _scores(run, split)) for split in sorted({record.split for record in run.records})]
        if len(runs) > 1:
            found = sorted(found, key=lambda one: -len(one[1]))[:1]
        for split, points in found:
            name = f"{run.name}, {split}" if len(runs) > 1 else split
            lines.append(Series(name=name, points=points, color=at if len(runs) > 1 else len(lines)))
    if not any(len(line.points) > 1 for line in lines):
        return None
    last = max(line.points[-1][0] for line in lines)
    return chart("GT-known over training", lines, y_label="%", x_range=(0.0, last))


def _scores(run: RunData, split: str) -> list[tuple[float, float]]:
    of_split = [record for record in run.records if record.split == split]
    steps = sorted({record.step for record in of_split})
    chosen = [latest([record for record in of_split if record.step == step]) for step in steps]
    return [(float(record.step), number(record.value("gt_known"))) for record in chosen if record]


def threshold_chart(runs: list[RunData]) -> Chart | None:
    """Percentages by threshold, the chosen threshold marked, the centre box as a dashed line."""
    scored = [(at, run, run.headline) for at, run in enumerate(runs) if run.headline is not None]
    lines: list[Series] = []
    marks: list[Mark] = []
    levels: list[Level] = []
    for at, run, record in scored:
        names = _THRESHOLD_CURVES if len(scored) == 1 else {"gt_known": run.name}
        for curve, label in names.items():
            points = [(level / NUM_LEVELS, number(y)) for level, y in enumerate(record.curve(curve))]
            lines.append(Series(name=label, points=points, color=len(lines) if len(scored) == 1 else at))
        marks += _chosen(record, color=at, run_name=run.name if len(scored) > 1 else "")
        levels += _centre_box(record, color=at, run_name=run.name if len(scored) > 1 else "")
    if len({level.y for level in levels}) == 1:  # runs on one split share it
        levels = [Level(y=levels[0].y, label=f"centre box {levels[0].y:.1f}", color=-1)]
    title = "GT-known by threshold" if len(scored) > 1 else "Score by threshold"
    return chart(
        title,
        lines,
        x_label="threshold, as a part of the map's maximum",
        y_label="%",
        marks=marks,
        levels=levels,
        x_range=(0.0, 1.0),
        zero=True,
    )


def number(value: Any) -> float:
    """A logged value as a float; what is no number becomes nan."""
    return float(value) if isinstance(value, int | float) else math.nan


def _chosen(record: EvalRecord, *, color: int, run_name: str) -> list[Mark]:
    threshold = record.raw.get("threshold") or {}
    level, curve = threshold.get("level"), record.curve("gt_known")
    if not isinstance(level, int) or not 0 <= level < NUM_LEVELS or not curve:
        return []
    source = {"val": "from val", "oracle": "oracle", "fixed": "fixed"}.get(str(threshold.get("source")), "")
    label = f"{run_name or 'threshold'} {number(threshold.get('value')):.3f} ({source})"
    return [Mark(x=level / NUM_LEVELS, y=number(curve[level]), label=label, color=color)]


def _centre_box(record: EvalRecord, *, color: int, run_name: str) -> list[Level]:
    value = record.value("centre_box")
    if value is None:
        return []
    return [Level(y=value, label=f"centre box {value:.1f} {run_name}".strip(), color=color)]


def _scalar_charts(runs: list[RunData], names: dict[str, tuple[str, str, bool]]) -> list[Chart]:
    charts = []
    for name, (title, unit, zero) in names.items():
        lines = []
        for at, run in enumerate(runs):
            raw = thinned([(row["step"], number(row[name])) for row in run.rows if name in row])
            if name == "train/loss" and len(raw) > 40:
                lines.append(Series(name="", points=raw, color=at, faint=True))
                raw = smoothed(raw)
            lines.append(Series(name=run.name, points=raw, color=at))
        last = max((line.points[-1][0] for line in lines if line.points), default=0.0)
        lines = [line for line in lines if line.points]
        drawn = chart(title, lines, y_label=unit, zero=zero, x_range=(0.0, last))
        charts += [drawn] if drawn else []
    return charts
