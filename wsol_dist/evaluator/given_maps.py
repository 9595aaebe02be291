"""Maps of other code scored like our own: the same pass, protocols, record and rows, without a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.data.images.decode import DecodeError, decode_rgb
from wsol_dist.data.images.transforms import squash
from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.stream import ShardReader
from wsol_dist.errors import UserError
from wsol_dist.evaluator.cases import Case, boxes_on, choose_and_show
from wsol_dist.evaluator.counting import Predicted
from wsol_dist.evaluator.evaluate import Say, score_split, truth_boxes
from wsol_dist.evaluator.evaluation import Evaluation
from wsol_dist.evaluator.map_files import (
    MapFiles,
    check_complete,
    check_predicted,
    checked_map,
    open_maps,
    read_predictions,
)
from wsol_dist.evaluator.refined import Refiner, open_refiner
from wsol_dist.evaluator.scoring import open_log, score_splits
from wsol_dist.evaluator.work import Work
from wsol_dist.metrics.base import Scored
from wsol_dist.metrics.threshold import Threshold
from wsol_dist.processes.ranks import Ranks

BATCH = 64
NEEDS_CLASSES = frozenset({"predicted", "cls_top1", "top1_loc", "error_kind"})
NEEDS_FIVE_CLASSES = frozenset({"cls_top5", "top5_loc"})


@dataclass(frozen=True, kw_only=True)
class Given:
    """What other code left for a split."""

    maps: Path
    predictions: Path | None
    """None: only what needs no class is printed."""


@dataclass(frozen=True, kw_only=True)
class GivenWork:
    """What every rank does; picklable."""

    work: Work
    given: Mapping[str, Given]
    """By split."""


@dataclass(frozen=True, kw_only=True)
class GivenScored(Scored):
    """An image of which the predicted classes are known, and no probabilities."""

    given: tuple[int, ...]

    @property
    def top5(self) -> np.ndarray:
        return np.array(self.given[:5], np.int64)


def run_given(ranks: Ranks, task: GivenWork) -> None:
    """Score all splits on these ranks; the first rank writes and prints."""
    with open_log(task.work, ranks) as track:

        def score(split: str, threshold: Threshold) -> Evaluation:
            given = task.given[split]
            return score_maps(given, task.work, split=split, ranks=ranks, threshold=threshold, say=track.line)

        score_splits(score, task.work, ranks, track)


def check_given(task: GivenWork) -> None:
    """Refuse what is missing before anything is scored.

    Raises:
        UserError: images without a map or without a predicted class, with their names.
    """
    index = Index.load(task.work.index)
    for split, given in task.given.items():
        rows = index.rows(split)
        check_complete(open_maps(given.maps, index, split), rows, where=given.maps)
        if given.predictions is not None:
            check_predicted(read_predictions(given.predictions, index), rows, where=given.predictions)


def score_maps(
    given: Given, work: Work, *, split: str, ranks: Ranks, threshold: Threshold, say: Say | None = None
) -> Evaluation:
    """Score the maps of a split. All ranks call it.

    Raises:
        UserError: a map is missing, damaged, or no map.
    """
    index, config = Index.load(work.index), work.config.evaluate
    reader, maps = ShardReader(index, split), open_maps(given.maps, index, split)
    maps.missing(reader.rows)  # a tar learns here how its names are made
    predictions = read_predictions(given.predictions, index) if given.predictions else {}
    known = len(next(iter(predictions.values()), ()))
    hidden = (
        {"predicted_prob"}
        | (NEEDS_CLASSES if known == 0 else set())
        | (NEEDS_FIVE_CLASSES if known < 5 else set())
    )
    read = partial(
        _read_one,
        reader,
        maps,
        where=given.maps,
        config=config,
        num_classes=len(index.classes),
        refiner=open_refiner(work.config.refine, index, split),
    )

    def batches() -> Iterator[list[Predicted]]:
        own = range(ranks.rank, len(reader), ranks.world)
        for start in range(0, len(own), BATCH):
            yield [
                Predicted(row=row, scored=read(row, predictions.get(reader.id(row), ())))
                for row in own[start : start + BATCH]
            ]

    def localized(positions: list[int]) -> list[Case]:
        return [_case(reader, row, read(row, ())) for row in positions[ranks.rank :: ranks.world]]

    return score_split(
        batches(),
        index,
        reader.rows,
        split=split,
        config=config,
        ranks=ranks,
        threshold=threshold,
        image_px=config.size_px,
        say=say,
        show=lambda found: choose_and_show(localized, index, found, split=split, config=config, ranks=ranks),
        hidden=frozenset(hidden),
    )


def _read_one(
    reader: ShardReader,
    maps: MapFiles,
    row: int,
    classes: tuple[int, ...],
    *,
    where: Path,
    config: EvaluateConfig,
    num_classes: int,
    refiner: Refiner | None,
) -> Scored:
    image_id = reader.id(row)
    try:
        value = maps.read(row, image_id)
        map_hw = np.zeros((1, 1), np.float32) if value is None else checked_map(value)
    except (ValueError, EOFError) as error:
        raise UserError(f"{where}: the map of {image_id}: {error}") from error
    if refiner is not None and value is not None:
        map_hw = refiner.refine_one(map_hw, row)
    truth = reader.known_truth(row)  # the map counts even where the image itself is damaged here
    boxes, frame = truth_boxes(truth, int(reader.rows.num_boxes[row]))
    return GivenScored(
        id=image_id,
        label=int(reader.rows.label[row]),
        prob_C=np.zeros(num_classes, np.float32),
        map_hw=map_hw,
        size_px=config.size_px,
        boxes_xyxy=boxes,
        box_frame_wh=frame,
        mask=truth.mask,
        semantic=truth.semantic,
        normalise=config.normalise,
        decoded=value is not None,
        given=classes,
    )


def _case(reader: ShardReader, row: int, scored: Scored) -> Case:
    try:
        image_HWC = squash(decode_rgb(reader.image(row)), scored.size_px).permute(1, 2, 0).numpy().copy()
    except DecodeError:
        image_HWC = np.zeros((scored.size_px, scored.size_px, 3), np.uint8)
    return Case(
        id=scored.id,
        label=scored.label,
        image_HWC=image_HWC,
        map_hw=scored.map_hw.astype(np.float32),
        gt_boxes=boxes_on(reader.known_truth(row), image_HWC),
    )
