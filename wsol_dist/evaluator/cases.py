"""The images that are shown of a scored split: some that never change, the best and the worst of this scoring.

Best and worst are known only after scoring, and keeping every map until then would cost memory by the image. So
the few that are shown are read and localized once more.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.data.shards.index import Index
from wsol_dist.data.shards.sample import Sample
from wsol_dist.data.stream.stream import evaluation_batches
from wsol_dist.evaluator.localize import localize_true_class
from wsol_dist.evaluator.refined import Refiner, Unrefined
from wsol_dist.methods.base import Method
from wsol_dist.metrics.base import Row
from wsol_dist.processes.ranks import Ranks

FIXED, BEST, WORST = "fixed", "best", "worst"


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One of the images that are shown."""

    id: str
    label: int
    image_HWC: np.ndarray
    """uint8 RGB as the method saw it, before normalisation."""
    map_hw: np.ndarray
    """float32 raw map of the true class."""
    gt_boxes: np.ndarray
    """(M, 4) float xyxy in the frame of `image_HWC`; M = 0 where the image has none."""
    unrefined: Unrefined | None = None
    """Where `map_hw` was refined: what it was before, and by which clusters."""
    groups: tuple[str, ...] = ()
    """Why it is shown: `fixed`, `best`, `worst`, or several of them."""
    row: Row = field(default_factory=dict)
    """The image's row; its `box` is on the square of `size_px`."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """An image to show: its row, and the groups it is in."""

    row: Row
    groups: tuple[str, ...]


def show(
    method: Method,
    index: Index,
    rows: Iterable[Row],
    *,
    split: str,
    config: EvaluateConfig,
    ranks: Ranks,
    refiner: Refiner | None = None,
) -> list[Case]:
    """Choose the images to show and localize them. All ranks call it, each takes its share.

    Args:
        method: on `ranks.device`.
        rows: of the whole split at the chosen level; those of the first rank count, others may give none.

    Returns:
        On every rank all cases in the order of `choose`.
    """

    def localized(positions: list[int]) -> list[Case]:
        return _localized(method, index, positions, split=split, config=config, ranks=ranks, refiner=refiner)

    return choose_and_show(localized, index, rows, split=split, config=config, ranks=ranks)


def choose_and_show(
    localized: Callable[[list[int]], list[Case]],
    index: Index,
    rows: Iterable[Row],
    *,
    split: str,
    config: EvaluateConfig,
    ranks: Ranks,
) -> list[Case]:
    """As `show`, wherever the maps come from.

    Args:
        localized: positions among the split's rows, the same on every rank -> this rank's share of them.
    """
    # The first rank's choice is everybody's: the ranks must agree on the number of forward passes.
    chosen: dict[str, Chosen] = ranks.gather(choose(rows, config) if ranks.is_main else {})[0]
    if not chosen:
        return []
    ids = index.rows(split).ids
    position = pc.index_in(pa.array(list(chosen), ids.type), value_set=ids).to_pylist()
    own = localized(position)
    found = {case.id: case for share in ranks.gather(own) for case in share}
    return [replace(found[one], groups=this.groups, row=this.row) for one, this in chosen.items()]


def choose(rows: Iterable[Row], config: EvaluateConfig) -> dict[str, Chosen]:
    """The images to show by id: the fixed first, then the best, then the worst; read in one pass.

    Fixed are the first by a hash of their ids: the same for all runs and checkpoints. Best are the highest IoUs
    among the right ones, of every class in turn; worst the lowest IoUs among the others, of every kind of error
    in turn: else the gallery would be one easy class and one kind of failure.
    """
    groups = {
        FIXED: LowestInTurn(config.cases),
        BEST: LowestInTurn(config.cases_best),
        WORST: LowestInTurn(config.cases_worst),
    }
    for row in rows:
        place = hashlib.sha256(f"{config.cases_seed}:{row['id']}".encode()).digest()
        groups[FIXED].add((0.0, place), row, turn="")
        if row.get("iou") is None or not row["decoded"]:
            continue
        if row["gt_known"] if row["error_kind"] is None else row["error_kind"] == "right":
            groups[BEST].add((-row["iou"], place), row, turn=row["label"])
        else:
            groups[WORST].add((row["iou"], place), row, turn=row["error_kind"])
    chosen: dict[str, Chosen] = {}
    for name, lowest in groups.items():
        for row in lowest.rows():
            before = chosen[row["id"]].groups if row["id"] in chosen else ()
            chosen[row["id"]] = Chosen(row=row, groups=(*before, name))
    return chosen


class LowestInTurn:
    """The rows of the lowest keys: the lowest of every kind, then the second of every kind, and so on.

    Holds no more rows than asked for of each kind, however many are added.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._of_kind: dict[object, list[tuple[tuple[float, bytes], Row]]] = {}

    def add(self, key: tuple[float, bytes], row: Row, *, turn: object) -> None:
        """Consider a row of the kind `turn`; keys are distinct."""
        kept = self._of_kind.setdefault(turn, [])
        bisect.insort(kept, (key, row), key=lambda one: one[0])
        del kept[self._number :]

    def rows(self) -> list[Row]:
        """The chosen ones, in order."""
        turns = [(at, *one) for kept in self._of_kind.values() for at, one in enumerate(kept)]
        return [row for _, _, row in sorted(turns, key=lambda one: one[:2])[: self._number]]


def _localized(
    method: Method,
    index: Index,
    positions: list[int],
    *,
    split: str,
    config: EvaluateConfig,
    ranks: Ranks,
    refiner: Refiner | None,
) -> list[Case]:
    """This rank's share of some rows of the split."""
    found = []
    for batch in evaluation_batches(
        index,
        split=split,
        rank=ranks.rank,
        world=ranks.world,
        batch_size=config.batch_size,
        workers=0,
        image_px=method.image_px,
        positions=positions,
    ):
        _, map_Bhw = localize_true_class(method, batch, ranks.device)
        for at in np.flatnonzero(batch.valid_B.numpy()):
            truth, image_HWC = batch.truths[at], batch.image_BCHW[at].permute(1, 2, 0).numpy().copy()
            map_hw, unrefined = map_Bhw[at].copy(), None
            if refiner is not None:
                unrefined = refiner.unrefined(
                    map_hw, int(batch.row_B[at]), image_HWC, normalise=config.normalise
                )
                map_hw = refiner.refine_one(map_hw, int(batch.row_B[at]))
            found.append(
                Case(
                    id=truth.id,
                    label=int(batch.label_B[at]),
                    image_HWC=image_HWC,
                    map_hw=map_hw,
                    gt_boxes=boxes_on(truth, image_HWC),
                    unrefined=unrefined,
                )
            )
    return found


def boxes_on(truth: Sample, image_HWC: np.ndarray) -> np.ndarray:
    """A sample's boxes in the frame of a picture of it: (M, 4) float xyxy."""
    if truth.boxes_xyxy is None or truth.box_frame_wh is None:
        return np.zeros((0, 4))
    height, width = image_HWC.shape[:2]
    frame_w, frame_h = truth.box_frame_wh
    return truth.boxes_xyxy * np.array([width / frame_w, height / frame_h] * 2)
