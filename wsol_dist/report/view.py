"""What the report page says of a run: every number as text, with protocol and source of its threshold."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wsol_dist.log.console import duration_text
from wsol_dist.report.curves import number
from wsol_dist.report.gallery import KINDS
from wsol_dist.report.run_data import EvalRecord, RunData
from wsol_dist.runs.run_state import CONFIG_FILE

LABELS = {
    "gt_known": "GT-known",
    "top1_loc": "Top-1 localization",
    "top5_loc": "Top-5 localization",
    "cls_top1": "Classification Top-1",
    "cls_top5": "Classification Top-5",
    "centre_box": "Centre box",
    "max_box_acc": "MaxBoxAcc",
    "max_box_acc_v2": "MaxBoxAccV2",
    "box_acc": "BoxAcc",
    "box_acc_v2": "BoxAccV2",
    "pxap": "PxAP",
    "max_piou": "Best pIoU",
    "piou": "pIoU",
    "max_miou": "Best mIoU",
    "miou": "mIoU",
    "centre_miou": "mIoU of a centre box",
    "seg_miou": "mIoU of the segmentation",
    "box_mass": "Map inside its box (S)",
    "mean_map": "Mean of the map",
    "box_area": "Area of the box",
}
HEADLINES = ("gt_known", "centre_box", "top1_loc", "cls_top1")
SOURCES = {
    "val": "threshold from val",
    "oracle": "oracle, chosen on this split",
    "fixed": "fixed threshold",
    "none": "no threshold",
}


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One headline number."""

    label: str
    value: str
    unit: str
    detail: str
    """Protocol and threshold source."""
    delta: str = ""
    good: bool = True


@dataclass(frozen=True, kw_only=True)
class RunView:
    """What the template shows of a run."""

    data: RunData
    record: EvalRecord | None
    facts: list[tuple[str, str]]
    tiles: list[Tile]
    metrics: list[dict[str, str]]
    kinds: list[dict[str, Any]]
    broken: list[str]
    commands: list[str]
    missing: list[str]
    """Sentences on what is not there yet."""


def view(run: RunData) -> RunView:
    """Everything of a run as text, ready to place."""
    record = run.headline
    return RunView(
        data=run,
        record=record,
        facts=list(_facts(run)),
        tiles=list(_tiles(record)) if record else [],
        metrics=[_metric_row(metric) for metric in record.metrics] if record else [],
        kinds=_kinds(record) if record else [],
        broken=[str(one) for one in record.raw.get("broken") or []] if record else [],
        commands=list(_commands(run)),
        missing=list(_missing(run)),
    )


def compared(views: list[RunView]) -> list[dict[str, Any]]:
    """Every number of all runs: one row a number, one cell a run, the highest score marked."""
    rows = []
    for label, texts in (
        ("Method", [one.data.method for one in views]),
        ("Scored", [_scored(one) for one in views]),
    ):
        cells: list[dict[str, Any]] = [{"text": text, "best": False, "source": ""} for text in texts]
        rows.append({"label": label, "name": "", "cells": cells})
    for name in _metric_names(views):
        found = [(one.record.metric(name) if one.record else None) or {} for one in views]
        known = [number(metric["value"]) for metric in found if metric.get("value") is not None]
        is_score = not name.startswith("error/") and name != "centre_box"
        best = max(known, default=0.0) if len(set(known)) > 1 and is_score else None
        cells = [
            {"text": value_text(m.get("value")), "best": m.get("value") == best, "source": threshold_text(m)}
            for m in found
        ]
        protocols = {str(metric["protocol"]) for metric in found if metric.get("protocol")}
        rows.append(
            {"label": metric_label(name) or name, "name": ", ".join(sorted(protocols)), "cells": cells}
        )
    return rows


def _metric_names(views: list[RunView]) -> list[str]:
    """Of all runs, the headlines in front."""
    names = dict.fromkeys(str(m.get("name")) for one in views if one.record for m in one.record.metrics)
    return [name for name in HEADLINES if name in names] + [name for name in names if name not in HEADLINES]


def unlike(views: list[RunView]) -> list[str]:
    """In what the runs' numbers were taken differently, so that they do not compare; empty where they do."""
    records = [one.record for one in views if one.record]

    def part(record: EvalRecord, name: str, key: str) -> Any:
        inner = record.raw.get(name)
        return inner.get(key) if isinstance(inner, dict) else None

    parts = {
        "split": [record.split for record in records],
        "shards": [part(record, "index", "sha256") for record in records],
        "size or strictness": [part(record, "scored_as", "evaluate") for record in records],
        "source of the threshold": [part(record, "threshold", "source") for record in records],
    }
    return [name for name, values in parts.items() if len({str(value) for value in values}) > 1]


def _scored(one: RunView) -> str:
    return f"{one.data.data}, {one.record.split}, step {one.record.step}" if one.record else "not yet"


def threshold_text(metric: dict[str, Any]) -> str:
    """Source and value of the threshold a number was taken under: `val 0.302`; empty where it has none."""
    source, threshold = str(metric.get("threshold_source") or "none"), number(metric.get("threshold"))
    value = f" {threshold:.3f}" if math.isfinite(threshold) else ""
    return "" if source == "none" else f"{source}{value}"


def value_text(value: Any) -> str:
    """A score with one decimal; a dash where there is none."""
    return f"{value:.1f}" if math.isfinite(number(value)) else "–"


def _facts(run: RunData) -> Iterator[tuple[str, str]]:
    yield "Method", run.method
    yield "Data", run.data
    if run.rows:
        yield "Trained", f"{run.rows[-1]['step']:,} steps"
    record = run.headline
    if record:
        checkpoint = record.raw.get("checkpoint")
        images = record.raw.get("num_images")
        yield "Scored", f"{record.split}, {images:,} images" if isinstance(images, int) else record.split
        yield "Checkpoint", str(checkpoint or f"step {record.step}")
        seconds = number(record.raw.get("seconds"))
        if math.isfinite(seconds):
            yield "Evaluation took", duration_text(seconds)


def _tiles(record: EvalRecord) -> Iterator[Tile]:
    for name in HEADLINES:
        metric = record.metric(name)
        if metric is None:
            continue
        delta, good = _over_centre_box(record) if name == "gt_known" else ("", True)
        source = str(metric.get("threshold_source") or "none")
        protocol = str(metric.get("protocol") or "")
        said = (
            "oracle: best constant box of this split" if name == "centre_box" else SOURCES.get(source, source)
        )
        yield Tile(
            label=LABELS[name],
            value=value_text(metric.get("value")),
            unit=str(metric.get("unit") or "%"),
            detail=f"{protocol} · {said}" if name != "centre_box" else said,
            delta=delta,
            good=good,
        )


def _over_centre_box(record: EvalRecord) -> tuple[str, bool]:
    gap = number(record.value("gt_known")) - number(record.value("centre_box"))
    if not math.isfinite(gap):
        return "", True
    return f"{gap:+.1f} over the centre box", gap > 0


def metric_label(name: str) -> str:
    """What a number is called for people; empty where it has its name only."""
    kind = KINDS.get(name.removeprefix("error/")) if name.startswith("error/") else None
    if kind:
        return f"Top-1 box: {kind.lower()}"
    base, _, iou = name.partition("@")
    return f"{LABELS[base]} at IoU {iou}" if iou and base in LABELS else LABELS.get(name, "")


def _metric_row(metric: dict[str, Any]) -> dict[str, str]:
    name, threshold = str(metric.get("name")), number(metric.get("threshold"))
    return {
        "name": name,
        "label": metric_label(name),
        "value": value_text(metric.get("value")),
        "unit": str(metric.get("unit") or "%"),
        "protocol": str(metric.get("protocol") or ""),
        "threshold": f"{threshold:.3f}" if math.isfinite(threshold) else "–",
        "source": str(metric.get("threshold_source") or "none").replace("none", "–"),
        "note": str(metric.get("note") or ""),
    }


def _kinds(record: EvalRecord) -> list[dict[str, Any]]:
    """Shares of what became of the Top-1 box; empty where the evaluation has none."""
    found = [(kind, label, number(record.value(f"error/{kind}"))) for kind, label in KINDS.items()]
    if not any(share > 0 for _, _, share in found):
        return []
    return [
        {"kind": kind, "label": label, "share": share, "text": value_text(share)}
        for kind, label, share in found
        if math.isfinite(share)
    ]


def _commands(run: RunData) -> Iterator[str]:
    folder = shlex.quote(str(run.folder))
    data = run.config.get("data")
    index = data.get("index") if isinstance(data, dict) else None
    if run.config and run.rows:
        config = shlex.quote(str(run.folder / CONFIG_FILE))
        yield f"wsol train {config} --out runs/{shlex.quote(run.folder.resolve().name + '-again')}"
    if run.headline:
        shards = f" --index {shlex.quote(str(index))}" if index else ""
        yield f"wsol evaluate {folder}{shards} --split {shlex.quote(run.headline.split)}"
    yield f"wsol report {folder}"


def _missing(run: RunData) -> Iterator[str]:
    if not run.records:
        yield "No evaluation yet: there are no scores, threshold curve or cases. wsol evaluate makes them."
    elif run.test is None and run.headline:
        yield f"The test split was not scored; the numbers are those of the split {run.headline.split!r}."
    if not run.rows:
        yield "No training log: this run was not trained here, or has not reached its first log row."
    if not run.config:
        yield "No config.yaml in the run folder."
