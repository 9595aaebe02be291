"""What the report page says of a run: every number as text, with protocol and source of its threshold."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wsol_dist.report.console import duration_text
from wsol_dist.report.curves import number
from wsol_dist.report.run_data import EvalRecord, RunData, read_picture

LABELS = {
    "gt_known": "GT-known",
    "top1_loc": "Top-1 localization",
    "top5_loc": "Top-5 localization",
    "cls_top1": "Classification Top-1",
    "cls_top5": "Classification Top-5",
    "centre_box": "Centre box",
    "max_box_acc": "MaxBoxAcc",
    "max_box_acc_v2": "MaxBoxAccV2",
    "pxap": "PxAP",
}
HEADLINES = ("gt_known", "centre_box", "top1_loc", "cls_top1")
SOURCES = {
    "val": "threshold from val",
    "oracle": "oracle, chosen on this split",
    "fixed": "fixed threshold",
    "none": "no threshold",
}
KINDS = {
    "right": "Right",
    "classification": "Class wrong",
    "multi_instance": "Several objects in one box",
    "part": "Part of the object",
    "more": "Object and more",
    "wrong_place": "Wrong place",
}
"""What became of the Top-1 box, in the order of the bars."""


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
class Case:
    """A picture of the gallery."""

    picture: str | None
    id: str
    kind: str
    right: bool
    iou: str
    label: str
    predicted: str


@dataclass(frozen=True, kw_only=True)
class RunView:
    """What the template shows of a run."""

    data: RunData
    record: EvalRecord | None
    facts: list[tuple[str, str]]
    tiles: list[Tile]
    metrics: list[dict[str, str]]
    kinds: list[dict[str, Any]]
    cases: list[Case]
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
        cases=_cases(run, record) if record else [],
        broken=[str(one) for one in record.raw.get("broken") or []] if record else [],
        commands=list(_commands(run)),
        missing=list(_missing(run)),
    )


def compared(views: list[RunView]) -> list[dict[str, Any]]:
    """The headline numbers of all runs: one row a number, one cell a run, the highest marked."""
    rows = []
    for label, texts in (
        ("Method", [one.data.method for one in views]),
        ("Scored", [_scored(one) for one in views]),
    ):
        cells: list[dict[str, Any]] = [{"text": text, "best": False, "source": ""} for text in texts]
        rows.append({"label": label, "name": "", "cells": cells})
    for name in (*HEADLINES, "max_box_acc", "max_box_acc_v2", "pxap"):
        found = [(one.record.metric(name) if one.record else None) or {} for one in views]
        known = [number(metric["value"]) for metric in found if metric.get("value") is not None]
        if known:
            best = max(known) if len(set(known)) > 1 else None
            cells = [
                {
                    "text": value_text(m.get("value")),
                    "best": m.get("value") == best,
                    "source": threshold_text(m),
                }
                for m in found
            ]
            protocols = {str(metric["protocol"]) for metric in found if metric.get("protocol")}
            rows.append({"label": LABELS[name], "name": ", ".join(sorted(protocols)), "cells": cells})
    return rows


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


def _metric_row(metric: dict[str, Any]) -> dict[str, str]:
    name, threshold = str(metric.get("name")), number(metric.get("threshold"))
    kind = KINDS.get(name.removeprefix("error/")) if name.startswith("error/") else None
    return {
        "name": name,
        "label": f"Top-1 box: {kind.lower()}" if kind else LABELS.get(name, ""),
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


def _cases(run: RunData, record: EvalRecord) -> list[Case]:
    return [_case(run, record, raw) for raw in record.raw.get("cases") or [] if isinstance(raw, dict)]


def _case(run: RunData, record: EvalRecord, raw: dict[str, Any]) -> Case:
    names = record.raw.get("classes") or []

    def class_name(index: Any) -> str:
        return str(names[index]) if isinstance(index, int) and 0 <= index < len(names) else "–"

    kind = str(raw.get("error_kind") or "")
    iou = number(raw.get("iou"))
    return Case(
        picture=read_picture(run, str(raw.get("picture") or "")),
        id=str(raw.get("id")),
        kind=KINDS.get(kind, kind),
        right=kind == "right",
        iou=f"{iou:.2f}" if math.isfinite(iou) else "–",
        label=class_name(raw.get("label")),
        predicted=class_name(raw.get("predicted")),
    )


def _commands(run: RunData) -> Iterator[str]:
    folder = shlex.quote(str(run.folder))
    data = run.config.get("data")
    index = data.get("index") if isinstance(data, dict) else None
    if run.config and run.rows:
        config = shlex.quote(str(run.folder / "config.yaml"))
        yield f"wsol train {config} --out runs/{shlex.quote(run.name + '-again')}"
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
