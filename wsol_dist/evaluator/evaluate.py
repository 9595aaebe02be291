"""One checkpoint on one split: stream -> localize -> every metric, in one pass over the images.

Each rank counts its own images into integers of fixed shape; they are added once, so that the numbers are the
same at any world size. Nothing is written here but the maps, if asked: `wsol_dist.evaluator.record` does the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsol_dist.config.evaluate import EvaluateConfig, RefineConfig
from wsol_dist.data.shards.columns import About
from wsol_dist.data.shards.index import Index, Rows
from wsol_dist.data.shards.sample import Sample
from wsol_dist.data.stream.stream import EvaluationBatch, evaluation_batches
from wsol_dist.evaluator import cases
from wsol_dist.evaluator.cases import Case
from wsol_dist.evaluator.counting import Predicted, Share
from wsol_dist.evaluator.evaluation import Evaluation
from wsol_dist.evaluator.localize import Localized, localize_every_class
from wsol_dist.evaluator.refined import Refiner, open_refiner
from wsol_dist.evaluator.save_maps import MapSaver
from wsol_dist.log.progress import Lines
from wsol_dist.methods.base import Method
from wsol_dist.metrics.base import Row, Scored
from wsol_dist.metrics.registry import make_metrics
from wsol_dist.metrics.threshold import Threshold
from wsol_dist.metrics.topk_loc import ERROR_KINDS
from wsol_dist.processes.ranks import Ranks

Say = Callable[[str], None]
"""Given a line now and then on how many images are done, over all ranks and roughly."""


@dataclass(frozen=True, kw_only=True)
class SaveMaps:
    """Where the maps of the split go, and what they are."""

    folder: Path
    about: About


def evaluate_checkpoint(
    method: Method,
    index_dir: str | Path,
    *,
    split: str,
    config: EvaluateConfig,
    ranks: Ranks,
    threshold: Threshold,
    say: Say | None = None,
    save_maps: SaveMaps | None = None,
    refine: RefineConfig | None = None,
) -> Evaluation:
    """Score a method on a split. All ranks call it.

    Args:
        method: on `ranks.device`.
        index_dir: folder of the shards.
        threshold: `oracle()` takes the best of this split, which is how a held-out split chooses one.
        save_maps: None writes no file for an image.
        refine: whether the maps are refined by pixel clusters; None: no.

    Raises:
        UserError: no such split, boxes without a frame, a map that is not finite, images missing or repeated.
    """
    index = Index.load(index_dir)
    rows = index.rows(split)
    saver = None
    if save_maps:
        saver = MapSaver(save_maps.folder, index, save_maps.about, ranks, num_rows=len(rows))
    refiner = open_refiner(refine, index, split)
    batches = predicted(method, index, rows, split=split, config=config, ranks=ranks, refiner=refiner)
    return score_split(
        batches if saver is None else saver.saving(batches),
        index,
        rows,
        split=split,
        config=config,
        ranks=ranks,
        threshold=threshold,
        image_px=method.image_px,
        say=say,
        show=lambda found: cases.show(
            method, index, found, split=split, config=config, ranks=ranks, refiner=refiner
        ),
    )


def score_split(
    batches: Iterable[list[Predicted]],
    index: Index,
    rows: Rows,
    *,
    split: str,
    config: EvaluateConfig,
    ranks: Ranks,
    threshold: Threshold,
    image_px: int,
    say: Say | None,
    show: Callable[[Iterable[Row]], list[Case]],
    hidden: frozenset[str] = frozenset(),
) -> Evaluation:
    """Count what was said of each image, wherever it comes from. All ranks call it.

    Args:
        batches: this rank's images.
        rows: of the split.
        image_px: side of the pictures of `show`.
        show: rows of the split (on the first rank) -> the images that are shown.
        hidden: numbers and columns of rows that mean nothing here; `error_kind` stands for all kinds.

    Raises:
        UserError: as `evaluate_checkpoint`.
    """
    start = time.monotonic()
    metrics = make_metrics(config, num_classes=len(index.classes))
    share = Share(rows, metrics, level=threshold.level, hidden=hidden)
    tell = Lines(split, len(rows), unit="images", say=say) if say else None
    for batch in batches:
        for one in batch:
            share.add(one)
        if tell:
            tell(len(batch) * ranks.world)
    share.sum_over(ranks)
    curves = {name: curve for metric in metrics for name, curve in metric.curves().items()}
    threshold = threshold.resolved(curves, select=config.select, otherwise=config.threshold)
    every = share.gathered_rows(ranks, threshold.level)
    return Evaluation(
        split=split,
        threshold=threshold,
        size_px=config.size_px,
        image_px=image_px,
        classes=index.classes,
        records=[
            number
            for metric in metrics
            for number in metric.records(threshold)
            if not _is_hidden(number.name, hidden)
        ],
        curves={name: curve for name, curve in curves.items() if not _is_hidden(name, hidden)},
        by_class={
            name: values
            for metric in metrics
            for name, values in metric.by_class_values(threshold).items()
            if not _is_hidden(name, hidden)
        },
        rows=every,
        num_images=len(rows),
        cases=show(every),
        broken=share.gathered_broken(ranks),
        seconds=time.monotonic() - start,
    )


def _is_hidden(name: str, hidden: frozenset[str]) -> bool:
    kind = name.removeprefix("error/")
    return name in hidden or ("error_kind" in hidden and kind in ERROR_KINDS)


def predicted(
    method: Method,
    index: Index,
    rows: Rows,
    *,
    split: str,
    config: EvaluateConfig,
    ranks: Ranks,
    refiner: Refiner | None,
) -> Iterator[list[Predicted]]:
    """This rank's batches through the method; padding is run and left out."""
    multi_label = index.multi_label
    for batch in evaluation_batches(
        index,
        split=split,
        rank=ranks.rank,
        world=ranks.world,
        batch_size=config.batch_size,
        workers=config.workers,
        image_px=method.image_px,
    ):
        found = localize_every_class(method, batch, ranks.device, refiner=refiner)
        yield [
            Predicted(
                row=int(batch.row_B[at]),
                scored=_scored(
                    batch,
                    int(at),
                    found,
                    multi_label=multi_label,
                    rows=rows,
                    config=config,
                ),
            )
            for at in np.flatnonzero(batch.valid_B.numpy())
        ]


def _scored(
    batch: EvaluationBatch,
    at: int,
    found: Localized,
    *,
    multi_label: bool,
    rows: Rows,
    config: EvaluateConfig,
) -> Scored:
    truth = batch.truths[at]
    # The box metrics score one box of one class.
    num_boxes = int(rows.num_boxes[int(batch.row_B[at])])
    boxes, frame = (None, None) if multi_label else truth_boxes(truth, num_boxes)
    return Scored(
        id=truth.id,
        label=int(batch.label_B[at]),
        prob_C=found.prob_BC[at],
        map_hw=found.map_BKhw[at, 0],
        size_px=config.size_px,
        boxes_xyxy=boxes,
        box_frame_wh=frame,
        mask=truth.mask,
        semantic=truth.semantic,
        map_Khw=found.map_BKhw[at, : len(truth.labels)],
        segment_Chw=None if found.segment_BChw is None else found.segment_BChw[at],
        label_K=truth.labels,
        normalise=config.normalise,
        decoded=bool(batch.decoded_B[at]),
    )


def truth_boxes(truth: Sample, num_boxes: int) -> tuple[np.ndarray | None, tuple[int, int] | None]:
    """The image's boxes. Where the whole sample could not be read, stand-ins for as many as the index counts:
    the image then stays in the denominator of the box metrics."""
    if truth.boxes_xyxy is None and num_boxes > 0:
        return np.zeros((num_boxes, 4)), (1, 1)
    return truth.boxes_xyxy, truth.box_frame_wh
