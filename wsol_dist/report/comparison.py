"""Scored runs against each other, image by image: gains with intervals, spread over seeds, what changed most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsol_dist.errors import UserError
from wsol_dist.metrics.bootstrap import Interval, paired_gain
from wsol_dist.report.curves import number
from wsol_dist.report.run_data import EvalRecord, RunData, latest, read_image_numbers, read_runs
from wsol_dist.report.view import threshold_text
from wsol_dist.runs.rows import read_column

PER_IMAGE = ("gt_known", "top1_loc", "top5_loc", "cls_top1", "cls_top5")
"""Numbers that are means of a value an image: their differences have intervals. The mean IoU is another."""
OTHERS = (
    *("max_box_acc", "max_box_acc_v2", "box_acc", "box_acc_v2"),
    *("pxap", "max_piou", "piou", "max_miou", "miou", "seg_miou"),
)
"""Numbers of a whole split: compared without an interval."""
MEAN_IOU = "iou"
NOT_THE_RECIPE = ("name", "seed", "track", "evaluate")
"""Parts of a configuration in which the seeds of one recipe may differ."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """One run's scoring of the split."""

    run: RunData
    record: EvalRecord
    ids: list[str]
    numbers: dict[str, np.ndarray]
    """Of `PER_IMAGE` and the IoU: (N,) float64, nan where an image has none."""

    @property
    def name(self) -> str:
        return self.run.name


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Runs of one recipe that differ in the seed; often one run."""

    runs: list[Scored]

    @property
    def name(self) -> str:
        return self.runs[0].name if len(self.runs) == 1 else f"{self.runs[0].name} ({len(self.runs)} seeds)"

    def values(self, name: str) -> list[float]:
        """A number of each run in percent; those that have it."""
        if name == MEAN_IOU:
            columns = [one.numbers[MEAN_IOU] for one in self.runs if MEAN_IOU in one.numbers]
            return [100 * float(np.nanmean(column)) for column in columns if np.isfinite(column).any()]
        found = [number(one.record.value(name)) for one in self.runs]
        return [value for value in found if math.isfinite(value)]

    def per_image(self, name: str) -> np.ndarray | None:
        """The mean over the seeds for each image, (N,) float64; None where a run has no such column."""
        if any(name not in one.numbers for one in self.runs):
            return None
        return np.mean([one.numbers[name] for one in self.runs], axis=0)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A number of a group."""

    mean: float
    spread: float | None
    """Sample standard deviation over the seeds; None of one run."""
    sources: list[str]
    """Source and value of each run's threshold."""
    gain: float | None
    """Over the first group, in points; None of the first group itself."""
    interval: Interval | None
    """Of the gain, in points; None where the number is no mean over images."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A number of all groups."""

    name: str
    protocol: str
    cells: list[Cell | None]


@dataclass(frozen=True, kw_only=True)
class Change:
    """An image whose IoU changed from the first group to another."""

    position: int
    """Its row in the split."""
    id: str
    label: int
    before: float
    after: float


def read_groups(folders: Sequence[Sequence[Path]], *, split: str) -> list[Group]:
    """The newest scoring of the split by each run, in groups.

    Raises:
        UserError: what does not exist, or what keeps the runs from being compared.
    """
    every = [folder.resolve() for group in folders for folder in group]
    for folder in every:
        if every.count(folder) > 1:
            raise UserError(f"{folder}: given twice; give each run once")
    runs_left = iter(read_runs([folder for group in folders for folder in group]))
    groups = [Group(runs=[_scored(next(runs_left), split) for _ in group]) for group in folders]
    runs = [run for group in groups for run in group.runs]
    for other in runs[1:]:
        check_comparable(runs[0], other)
    for group in groups:
        for other in group.runs[1:]:
            check_one_recipe(group.runs[0], other)
    return groups


def check_comparable(one: Scored, other: Scored) -> None:
    """Both were scored on the same images of the same shards, by the same protocols, with the same kind of threshold.

    Raises:
        UserError: the first of these that does not hold.
    """
    both = f"{one.run.folder} and {other.run.folder}"
    shas = [str(_part(run.record, "index", "sha256"))[:12] for run in (one, other)]
    if shas[0] != shas[1]:
        raise UserError(
            f"{both}: scored on different shards (index sha256 {shas[0]} and {shas[1]}); "
            "score both on the same: wsol evaluate RUN --index SHARDS"
        )
    if one.ids != other.ids:
        missing = sorted(set(one.ids) ^ set(other.ids))
        what = (
            f"{len(missing)} images are in one only, the first {missing[0]}"
            if missing
            else "in another order"
        )
        raise UserError(f"{both}: different images were scored ({what}); score both again with wsol evaluate")
    knobs = [_part(run.record, "scored_as", "evaluate") for run in (one, other)]
    protocols = _shared_protocols(one.record, other.record)
    differing = _differing(knobs[0], knobs[1]) or _differing(protocols[0], protocols[1])
    if differing:
        raise UserError(
            f"{both}: scored by different protocols ({differing}); score both alike with wsol evaluate"
        )
    sources = [_part(run.record, "threshold", "source") for run in (one, other)]
    if sources[0] != sources[1]:
        raise UserError(
            f"{both}: thresholds from different sources ({sources[0]} and {sources[1]}), which do not compare; "
            f"score both alike: wsol evaluate RUN --split {one.record.split} --threshold {sources[0]}"
        )


def check_one_recipe(one: Scored, other: Scored) -> None:
    """Two runs of a group differ in the seed alone.

    Raises:
        UserError: the first difference.
    """
    configs = [_recipe(run.run.config) for run in (one, other)]
    differing = _differing(configs[0], configs[1])
    if differing:
        raise UserError(
            f"{one.run.folder} and {other.run.folder}: not seeds of one recipe ({differing}); "
            "part groups of different recipes by --"
        )


def table(groups: list[Group], *, num_resamples: int, seed: int) -> list[Line]:
    """Every number of all groups, with gains over the first group."""
    lines = []
    for name in (*PER_IMAGE[:3], MEAN_IOU, *PER_IMAGE[3:], *OTHERS):
        cells = [_cell(group, groups[0], name, num_resamples=num_resamples, seed=seed) for group in groups]
        if any(cells):
            metric = groups[0].runs[0].record.metric("gt_known" if name == MEAN_IOU else name) or {}
            lines.append(Line(name=name, protocol=str(metric.get("protocol") or ""), cells=cells))
    return lines


def most_changed(base: Group, other: Group, most: int) -> list[Change]:
    """The images whose IoU (mean over the seeds) differs most, the greatest change first."""
    before_N, after_N = base.per_image(MEAN_IOU), other.per_image(MEAN_IOU)
    if before_N is None or after_N is None:
        return []
    change_N = np.nan_to_num(np.abs(after_N - before_N))
    first = base.runs[0]
    # A stable sort: images of equal change stay in the order of the split.
    order = [int(at) for at in np.argsort(-change_N, kind="stable")[:most] if change_N[at] > 0]
    return [
        Change(
            position=at,
            id=first.ids[at],
            label=int(first.numbers["label"][at]),
            before=float(before_N[at]),
            after=float(after_N[at]),
        )
        for at in order
    ]


def flips(base: Group, other: Group) -> tuple[int, int, int] | None:
    """Images that only the second finds (GT-known), that only the first finds, and all; None of several seeds."""
    before, after = base.per_image("gt_known"), other.per_image("gt_known")
    if before is None or after is None or len(base.runs) > 1 or len(other.runs) > 1:
        return None
    there = np.isfinite(before) & np.isfinite(after)
    change = (after - before)[there]
    return int((change > 0).sum()), int((change < 0).sum()), int(there.sum())


def _scored(run: RunData, split: str) -> Scored:
    folder = run.folder
    record = latest([one for one in run.records if one.split == split])
    if record is None:
        splits = ", ".join(sorted({one.split for one in run.records})) or "none"
        raise UserError(
            f"{folder}: the split {split!r} was not scored (scored splits: {splits}); "
            f"run: wsol evaluate {folder} --split {split}"
        )
    numbers = read_image_numbers(record, "label", *PER_IMAGE, MEAN_IOU)
    rows = record.path.with_suffix(".parquet")
    if "label" not in numbers:
        raise UserError(
            f"{rows}: missing, so images cannot be compared; run: wsol evaluate {folder} --split {split}"
        )
    ids = read_column(rows, "id")
    if len(ids) != record.raw.get("num_images", len(ids)):
        raise UserError(
            f"{rows}: {len(ids)} rows, {record.raw['num_images']} images were scored; "
            f"run: wsol evaluate {folder} --split {split}"
        )
    return Scored(run=run, record=record, ids=ids, numbers=numbers)


def _cell(group: Group, base: Group, name: str, *, num_resamples: int, seed: int) -> Cell | None:
    values = group.values(name)
    if len(values) < len(group.runs):
        return None
    gain = interval = None
    base_values = base.values(name)
    if group is not base and base_values:
        gain = float(np.mean(values) - np.mean(base_values))
        before_N, after_N = base.per_image(name), group.per_image(name)
        if before_N is not None and after_N is not None:
            interval = paired_gain(100 * before_N, 100 * after_N, num_resamples=num_resamples, seed=seed)
    return Cell(
        mean=float(np.mean(values)),
        spread=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        sources=[_threshold(run.record, name) for run in group.runs],
        gain=gain,
        interval=interval,
    )


def _threshold(record: EvalRecord, name: str) -> str:
    return threshold_text(record.metric("gt_known" if name == MEAN_IOU else name) or {})


def _part(record: EvalRecord, name: str, key: str) -> Any:
    inner = record.raw.get(name)
    return inner.get(key) if isinstance(inner, dict) else None


def _shared_protocols(one: EvalRecord, other: EvalRecord) -> list[dict[str, Any]]:
    """Protocols of the numbers that both have."""
    of_each = [
        {str(metric.get("name")): metric.get("protocol") for metric in r.metrics} for r in (one, other)
    ]
    shared = of_each[0].keys() & of_each[1].keys()
    return [{name: protocols[name] for name in sorted(shared)} for protocols in of_each]


def _differing(one: Any, other: Any, prefix: str = "") -> str:
    """The first place where two plain values differ: `train.lr: 0.001 and 0.003`; empty where they are equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in (*one, *(key for key in other if key not in one)):
            found = _differing(one.get(key), other.get(key), f"{prefix}{key}.")
            if found:
                return found
        return ""
    return "" if one == other else f"{prefix.rstrip('.') or 'knobs'}: {one!r} and {other!r}"


def _recipe(config: dict[str, Any]) -> dict[str, Any]:
    """What the seeds of one recipe share; where the shards lie is no part of it, they are compared by content."""
    kept = {key: value for key, value in config.items() if key not in NOT_THE_RECIPE}
    if isinstance(kept.get("data"), dict):
        kept["data"] = {key: value for key, value in kept["data"].items() if key not in ("index", "workers")}
    return kept
