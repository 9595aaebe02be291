"""One checkpoint on one split: stream -> localize -> every metric, in one pass over the images.

Each rank counts its own images into integers of fixed shape; they are added once, so that the numbers are the
same at any world size. Nothing is written here: `wsol_dist.evaluator.record` does that.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsol_dist.data.index import Index
from wsol_dist.data.sample import Sample
from wsol_dist.data.stream import EvaluationBatch, evaluation_batches
from wsol_dist.data.transforms import normalise
from wsol_dist.errors import UserError
from wsol_dist.methods.base import Method
from wsol_dist.metrics.base import Metric, MetricRecord, Row, Scored
from wsol_dist.metrics.config import EvaluateConfig
from wsol_dist.metrics.registry import make_metrics
from wsol_dist.metrics.threshold import Threshold
from wsol_dist.ranks import Ranks
from wsol_dist.regions.boxes import NUM_LEVELS, NonFiniteMapError

Watch = Callable[[int, int], None]
"""Told after each batch how many images of how many are done, over all ranks and roughly."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One of the fixed images that are shown for every checkpoint."""

    id: str
    label: int
    image_HWC: np.ndarray
    """uint8 RGB as the method saw it, before normalisation."""
    map_hw: np.ndarray
    """float32 raw map of the true class."""
    gt_boxes: np.ndarray
    """(M, 4) float xyxy in the frame of `image_HWC`; M = 0 where the image has none."""
    row: Row = field(default_factory=dict)
    """The image's row; its `box` is on the square of `size_px`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Everything that a scored split says; the same on every rank."""

    split: str
    threshold: Threshold
    """With the level that rows and `topk_loc` were read at."""
    size_px: int
    image_px: int
    classes: tuple[str, ...]
    records: list[MetricRecord]
    curves: dict[str, np.ndarray]
    """Percentages by threshold position."""
    rows: list[Row]
    """One an image, in the order of the index."""
    cases: list[Case]
    broken: list[str]
    """Ids of images that did not decode and were counted as misses."""
    seconds: float

    def value(self, name: str) -> float | None:
        """A printed number by its name; None where the split does not have it."""
        return next((record.value for record in self.records if record.name == name), None)


def evaluate_checkpoint(
    method: Method,
    index_dir: str | Path,
    *,
    split: str,
    config: EvaluateConfig,
    ranks: Ranks,
    threshold: Threshold,
    watch: Watch | None = None,
) -> Evaluation:
    """Score a method on a split. All ranks call it.

    Args:
        method: on `ranks.device`.
        index_dir: folder of the shards.
        threshold: `oracle()` takes the best of this split, which is how a held-out split chooses one.

    Raises:
        UserError: no such split, boxes without a frame, a map that is not finite, images missing or repeated.
    """
    start = time.monotonic()
    index = Index.load(index_dir)
    rows = index.rows(split)
    ids = rows.ids.to_pylist()
    num_boxes = dict(zip(ids, rows.num_boxes.tolist(), strict=True))
    metrics = make_metrics(config, num_classes=len(index.classes))
    shown = set(case_ids(ids, config))
    share = _Share(method, metrics, config, shown=shown, num_boxes=num_boxes, level=threshold.level)
    batches = evaluation_batches(
        index,
        split=split,
        rank=ranks.rank,
        world=ranks.world,
        batch_size=config.batch_size,
        workers=config.workers,
        image_px=method.image_px,
    )
    done = 0
    for batch in batches:
        share.score(batch, ranks.device)
        done += len(batch.truths) * ranks.world
        if watch:
            watch(min(done, len(ids)), len(ids))
    check_ids(ids, ranks.gather([row["id"] for row in share.rows]))
    sum_counters(metrics, ranks)
    curves = {name: curve for metric in metrics for name, curve in metric.curves().items()}
    threshold = threshold.resolved(curves, select=config.select, otherwise=config.threshold)
    all_rows, cases = _gathered(share, ids, ranks, level=threshold.level)
    return Evaluation(
        split=split,
        threshold=threshold,
        size_px=config.size_px,
        image_px=method.image_px,
        classes=index.classes,
        records=[record for metric in metrics for record in metric.records(threshold)],
        curves=curves,
        rows=all_rows,
        cases=cases,
        broken=[row["id"] for row in all_rows if not row["decoded"]],
        seconds=time.monotonic() - start,
    )


class _Share:
    """One rank's images: scored, counted, and what their rows need."""

    def __init__(
        self,
        method: Method,
        metrics: list[Metric],
        config: EvaluateConfig,
        *,
        shown: set[str],
        num_boxes: dict[str, int],
        level: int,
    ) -> None:
        self.method, self.metrics, self.config = method, metrics, config
        self.shown, self.num_boxes, self.level = shown, num_boxes, level
        self.rows: list[Row] = []
        self.cases: list[Case] = []

    def score(self, batch: EvaluationBatch, device: torch.device) -> None:
        """Run the method on a batch and count its images; padding is run and not counted."""
        prob_BC, map_Bhw = localize_true_class(self.method, batch, device)
        for at in np.flatnonzero(batch.valid_B.numpy()):
            scored = self._scored(batch, int(at), prob_BC[at], map_Bhw[at])
            row = self._count(scored)
            # Once the level is known there is no need to hold 255 of everything until the end.
            self.rows.append(row if self.level < 0 else at_level(row, self.level))
            if scored.id in self.shown:
                self.cases.append(_case(scored, batch.image_BCHW[at]))

    def _scored(self, batch: EvaluationBatch, at: int, prob_C: np.ndarray, map_hw: np.ndarray) -> Scored:
        truth = batch.truths[at]
        boxes, frame = _boxes(truth, self.num_boxes.get(truth.id, 0))
        return Scored(
            id=truth.id,
            label=int(batch.label_B[at]),
            prob_C=prob_C,
            map_hw=map_hw,
            size_px=self.config.size_px,
            boxes_xyxy=boxes,
            box_frame_wh=frame,
            mask=truth.mask,
            decoded=bool(batch.decoded_B[at]),
        )

    def _count(self, scored: Scored) -> Row:
        row: Row = {"id": scored.id, "label": scored.label, "decoded": scored.decoded}
        row["gt_boxes"] = scored.gt_boxes(clamp=True).tolist() if scored.has_boxes else []
        try:
            for metric in self.metrics:
                row |= metric.update(scored)
        except NonFiniteMapError as error:
            raise UserError(
                f"{scored.id}: {error}; the weights are broken or training diverged, score an earlier one"
            ) from error
        return row


def localize_true_class(
    method: Method, batch: EvaluationBatch, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (B, C) and the true classes' maps (B, h, w), float32 on the CPU."""
    image_BCHW = normalise(batch.image_BCHW.to(device, non_blocking=True), method.mean, method.std)
    with torch.inference_mode():
        found = method.localize(image_BCHW, batch.label_B.to(device)[:, None])
    return found.prob_BC.float().cpu().numpy(), found.map_BKhw[:, 0].float().cpu().numpy()


def sum_counters(metrics: list[Metric], ranks: Ranks) -> None:
    """Add the counters of all ranks, all metrics in one message."""
    total = ranks.all_sum(np.concatenate([metric.counts.ravel() for metric in metrics]))
    start = 0
    for metric in metrics:
        stop = start + metric.counts.size
        metric.counts = total[start:stop].reshape(metric.counts.shape)
        start = stop


def check_ids(expected: list[str], of_rank: list[list[str]]) -> None:
    """Every image of the split was counted exactly once, over all ranks.

    Raises:
        UserError: the first ten that were missing, and the first ten counted several times.
    """
    seen = Counter(one for ids in of_rank for one in ids)
    missing = [one for one in expected if one not in seen]
    repeated = [one for one, times in seen.items() if times > 1]
    strange = sorted(seen.keys() - set(expected))
    for what, ids in (
        ("not scored", missing),
        ("scored several times", repeated),
        ("not in the index", strange),
    ):
        if ids:
            raise UserError(
                f"{len(ids)} of {len(expected)} images were {what}: {', '.join(ids[:10])}; "
                "check the shards with shards/verify.py"
            )


def case_ids(ids: list[str], config: EvaluateConfig) -> list[str]:
    """The images to show: the first by a hash of their ids, the same for all runs and checkpoints."""

    def place(one: str) -> bytes:
        return hashlib.sha256(f"{config.cases_seed}:{one}".encode()).digest()

    return sorted(ids, key=place)[: config.cases]


def _boxes(truth: Sample, num_boxes: int) -> tuple[np.ndarray | None, tuple[int, int] | None]:
    """The image's boxes. Where the whole sample could not be read, stand-ins for as many as the index counts:
    the image then stays in the denominator of the box metrics."""
    if truth.boxes_xyxy is None and num_boxes > 0:
        return np.zeros((num_boxes, 4)), (1, 1)
    return truth.boxes_xyxy, truth.box_frame_wh


def _case(scored: Scored, image_CHW: Tensor) -> Case:
    height, width = image_CHW.shape[1:]
    gt_boxes = np.zeros((0, 4))
    if scored.has_boxes and scored.boxes_xyxy is not None and scored.box_frame_wh is not None:
        frame_w, frame_h = scored.box_frame_wh
        gt_boxes = scored.boxes_xyxy * np.array([width / frame_w, height / frame_h] * 2)
    return Case(
        id=scored.id,
        label=scored.label,
        image_HWC=image_CHW.permute(1, 2, 0).numpy().copy(),
        map_hw=scored.map_hw.copy(),
        gt_boxes=gt_boxes,
    )


def at_level(row: Row, level: int) -> Row:
    """A row with the values of one level, as plain Python values."""
    return {key: _plain(value, level) for key, value in row.items()}


def _plain(value: Any, level: int) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    assert len(value) == NUM_LEVELS, value.shape
    chosen = value[level]
    return chosen.tolist() if isinstance(chosen, np.ndarray | np.generic) else chosen


def _gathered(share: _Share, ids: list[str], ranks: Ranks, *, level: int) -> tuple[list[Row], list[Case]]:
    """All ranks' rows at the chosen level in the order of the index, and the cases with theirs."""
    own = [at_level(row, level) for row in share.rows]
    by_id = {row["id"]: row for rows in ranks.gather(own) for row in rows}
    cases = [case for cases in ranks.gather(share.cases) for case in cases]
    cases = [replace(case, row=by_id[case.id]) for case in cases]
    position = {one: at for at, one in enumerate(case_ids(ids, share.config))}
    return [by_id[one] for one in ids], sorted(cases, key=lambda case: position[case.id])
