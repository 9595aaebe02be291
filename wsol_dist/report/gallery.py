"""Pictures of cases: which there are, what is said of each, and what the page can filter them by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wsol_dist.report.curves import number
from wsol_dist.report.run_data import EvalRecord, RunData, read_picture

KINDS = {
    "right": "Right",
    "classification": "Class wrong",
    "multi_instance": "Several objects in one box",
    "part": "Part of the object",
    "more": "Object and more",
    "wrong_place": "Wrong place",
}
"""What became of the Top-1 box, in the order of the bars."""
GROUPS = {
    "fixed": "The same for every checkpoint",
    "best": "Best boxes",
    "worst": "Worst boxes",
    "gained": "Boxes that became better",
    "lost": "Boxes that became worse",
}
"""Why an image is shown."""
MOST_PICTURES = 160
"""Pictures on one page: some four megabytes."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one run made of an image."""

    run: str
    """Empty on the page of a single run."""
    color: int
    picture: str | None
    """A data URI."""
    kind: str
    kind_label: str
    right: bool | None
    """Of the Top-1 box; None where the image has no boxes."""
    iou: float | None
    predicted: str

    @property
    def iou_text(self) -> str:
        return "–" if self.iou is None else f"{self.iou:.2f}"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An image of the gallery."""

    id: str
    label: str
    groups: tuple[str, ...]
    results: list[Result]

    @property
    def filters(self) -> list[list[Any]]:
        """Of each result what the page's script filters and sorts by: kind, IoU, right."""
        return [[result.kind, result.iou, result.right] for result in self.results]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """All pictures of a page, and the values that its filters offer."""

    items: list[Shown]
    left_out: int = 0
    """Pictures that would have made the page too large."""

    @property
    def class_options(self) -> list[tuple[str, str]]:
        return [(name, name) for name in sorted({item.label for item in self.items})]

    @property
    def kinds(self) -> dict[str, str]:
        there = {result.kind for item in self.items for result in item.results}
        return {kind: label for kind, label in KINDS.items() if kind in there}

    @property
    def groups(self) -> dict[str, str]:
        there = {group for item in self.items for group in item.groups}
        return {group: label for group, label in GROUPS.items() if group in there}

    @property
    def most_results(self) -> int:
        return max((len(item.results) for item in self.items), default=0)

    @property
    def several(self) -> bool:
        """Whether images stand side by side as several runs see them."""
        return any(result.run for item in self.items for result in item.results)


def gallery(runs: Sequence[RunData]) -> Gallery:
    """The pictures of all runs, those of one image together, those that all runs have first."""
    name_of = {at: run.name if len(runs) > 1 else "" for at, run in enumerate(runs)}
    raw_of: dict[str, dict[int, dict[str, Any]]] = {}
    for at, run in enumerate(runs):
        for raw in (run.headline.raw.get("cases") or []) if run.headline else []:
            if isinstance(raw, dict):
                raw_of.setdefault(str(raw.get("id")), {})[at] = raw
    order = sorted(raw_of, key=lambda one: -len(raw_of[one]))
    items: list[Shown] = []
    drawn = left_out = 0
    for one in order:
        if drawn + len(raw_of[one]) > MOST_PICTURES:
            left_out += len(raw_of[one])
            continue
        drawn += len(raw_of[one])
        items.append(_shown(one, raw_of[one], runs, name_of))
    return Gallery(items=items, left_out=left_out)


def _shown(
    one: str, raws: dict[int, dict[str, Any]], runs: Sequence[RunData], name_of: dict[int, str]
) -> Shown:
    groups: list[str] = []
    results = []
    label = "–"
    for at, raw in raws.items():
        record = runs[at].headline
        assert record is not None
        groups += [str(group) for group in raw.get("groups") or ["fixed"] if group not in groups]
        label = class_name(record, raw.get("label"))
        results.append(_result(runs[at], record, raw, name=name_of[at], color=at))
    return Shown(id=one, label=label, groups=tuple(groups), results=results)


def _result(run: RunData, record: EvalRecord, raw: dict[str, Any], *, name: str, color: int) -> Result:
    return result_of(
        run=name,
        color=color,
        picture=read_picture(run, str(raw.get("picture") or "")),
        kind=str(raw.get("error_kind") or ""),
        iou=number(raw.get("iou")),
        predicted=class_name(record, raw.get("predicted")),
    )


def result_of(*, run: str, color: int, picture: str | None, kind: str, iou: float, predicted: str) -> Result:
    """A result of an image's row; an IoU that is nan is none."""
    return Result(
        run=run,
        color=color,
        picture=picture,
        kind=kind,
        kind_label=KINDS.get(kind, kind),
        right=kind == "right" if kind else None,
        iou=iou if math.isfinite(iou) else None,
        predicted=predicted,
    )


def class_name(record: EvalRecord, index: Any) -> str:
    """The name of a class number; a dash where there is none."""
    names = record.raw.get("classes") or []
    return str(names[index]) if isinstance(index, int) and 0 <= index < len(names) else "–"
