"""Which predicted boxes are right: matched one to one with true boxes, as COCO's evaluation does at one IoU.

Source: Lin et al., Microsoft COCO (2014), and its evaluation code (pycocotools): within an image and class, boxes by
descending score take the free true box of the highest IoU, if that reaches the least one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from wsol_dist.prediction.doubt import doubt_of
from wsol_dist.quality.truth import ANY, TrueBoxes, Truth

RECALLS = np.linspace(0, 1, 101)
"""Where COCO reads precision off."""
CORNERS = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Predicted boxes of the images that have true boxes, in the order of the predictions."""

    right: np.ndarray
    """(n,) bool."""
    misnamed: np.ndarray
    """(n,) bool: wrong, but where an object of another class is."""
    iou: np.ndarray
    """(n,) float64: the best with a true box of its class, taken or not."""
    label: np.ndarray
    score: np.ndarray
    stability: np.ndarray
    """NaN where the predictions do not say."""
    doubt: np.ndarray
    size: np.ndarray
    """Share of the image that the box covers."""
    num_true: dict[int, int]
    """True boxes by class, `ANY` where that is unknown."""
    num_images: int
    """That have true boxes, or of which it is known that nothing is on them."""
    num_without: int
    """Of these, images without a predicted box."""
    num_in_crowds: int
    """Predicted boxes in regions of many objects, which are not counted."""

    def __len__(self) -> int:
        return len(self.right)

    @property
    def num_right(self) -> int:
        return int(self.right.sum())

    @property
    def num_truth(self) -> int:
        return sum(self.num_true.values())


def judge(table: pa.Table, truth: Truth, *, least_iou: float) -> Judged:
    """Hold predictions against the truth.

    Args:
        table: with the columns of `prediction.record.SCHEMA`.
        least_iou: of a right box, in (0, 1).
    """
    images = table["image"].to_pylist()
    has_box = table["x0"].is_valid().to_numpy()
    rows_of: dict[str, list[int]] = {id_: [] for id_ in truth.boxes}
    for row in np.flatnonzero(has_box).tolist():
        if images[row] in rows_of:
            rows_of[images[row]].append(row)
    rows = np.array(sorted(row for found in rows_of.values() for row in found), np.int64)
    kept = table.take(pa.array(rows))
    box = np.stack([kept[name].to_numpy() for name in CORNERS], axis=1).astype(np.float64)
    label, score = kept["label"].to_numpy(), kept["score"].fill_null(1.0).to_numpy()
    state, misnamed, iou = np.zeros(len(rows), np.int8), np.zeros(len(rows), bool), np.zeros(len(rows))
    place = {row: at for at, row in enumerate(rows.tolist())}
    for id_, true in truth.boxes.items():
        at = np.array([place[row] for row in rows_of[id_]], np.int64)
        at = at[np.argsort(-score[at], kind="stable")]
        state[at], misnamed[at], iou[at] = _judge_image(box[at], label[at], true, least_iou=least_iou)
    counted = state >= 0
    true_label = np.concatenate([np.zeros(0, np.int64), *(one.label for one in truth.boxes.values())])
    number, count = np.unique(true_label, return_counts=True)
    return Judged(
        right=state[counted] == 1,
        misnamed=misnamed[counted],
        iou=iou[counted],
        label=label[counted],
        score=score[counted].astype(np.float64),
        stability=kept["stability"].fill_null(np.nan).to_numpy()[counted].astype(np.float64),
        doubt=doubt_of(kept)[counted].astype(np.float64),
        size=(box_area(box) / (kept["width"].to_numpy() * kept["height"].to_numpy().astype(np.float64)))[
            counted
        ],
        num_true=dict(zip(number.tolist(), count.tolist(), strict=True)),
        num_images=len(truth.boxes),
        num_without=sum(not found for found in rows_of.values()),
        num_in_crowds=int((~counted).sum()),
    )


def _judge_image(
    box_N4: np.ndarray, label_N: np.ndarray, true: TrueBoxes, *, least_iou: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of an image's boxes by descending score: the state (1 right, 0 wrong, -1 not counted), misnamed, best IoU."""
    iou_NM = box_iou(box_N4, true.xyxy)
    same_NM = (true.label == label_N[:, None]) | (true.label == ANY)
    state_N = match(iou_NM, same_NM, least_iou=least_iou)
    misnamed_N = (state_N == 0) & ((iou_NM >= least_iou) & ~same_NM).any(axis=1)
    in_crowd = box_iou(box_N4, true.crowd_xyxy, crowd=True) >= least_iou
    in_crowd &= (true.crowd_label == label_N[:, None]) | (true.crowd_label == ANY)
    state_N[in_crowd.any(axis=1) & (state_N == 0)] = -1
    return state_N, misnamed_N, np.where(same_NM, iou_NM, 0).max(axis=1, initial=0)


def match(iou_NM: np.ndarray, same_NM: np.ndarray, *, least_iou: float) -> np.ndarray:
    """Whether each box takes a true box, 1 or 0: (N,) int8.

    Args:
        iou_NM: of N boxes by descending score with M true boxes.
        same_NM: whether they are of one class.
    """
    found = np.zeros(len(iou_NM), np.int8)
    free_M = np.ones(iou_NM.shape[1], bool)
    if not iou_NM.shape[1]:
        return found
    for at, (iou_M, same_M) in enumerate(zip(iou_NM, same_NM, strict=True)):
        allowed_M = np.where(free_M & same_M, iou_M, -1.0)
        # The last of equals, as pycocotools takes it.
        best = len(allowed_M) - 1 - int(allowed_M[::-1].argmax())
        if allowed_M[best] >= least_iou:
            found[at], free_M[best] = 1, False
    return found


def box_iou(boxes_N4: np.ndarray, true_M4: np.ndarray, *, crowd: bool = False) -> np.ndarray:
    """Intersection over union of boxes as areas: (N, M) float64; of crowds, over the box's own area."""
    low = np.maximum(boxes_N4[:, None, :2], true_M4[:, :2])
    high = np.minimum(boxes_N4[:, None, 2:], true_M4[:, 2:])
    inter_NM = np.clip(high - low, 0, None).prod(axis=2)
    union_NM = box_area(boxes_N4)[:, None] + (0 if crowd else box_area(true_M4) - inter_NM)
    return inter_NM / np.maximum(union_NM, 1e-12)


def box_area(boxes_N4: np.ndarray) -> np.ndarray:
    """(N,) float64."""
    return np.clip(boxes_N4[:, 2:] - boxes_N4[:, :2], 0, None).prod(axis=1)


def average_precision(judged: Judged) -> float | None:
    """Mean over the classes that have true boxes of the area below precision by recall, read at 101 recalls.

    None where a true box is of no known class, or there is none.
    """
    if not judged.num_true or ANY in judged.num_true:
        return None
    order = np.argsort(-judged.score, kind="stable")
    label, right = judged.label[order], judged.right[order]
    values = []
    for number, num_true in judged.num_true.items():
        hit = right[label == number]
        num_hit = np.cumsum(hit)
        precision = num_hit / np.arange(1, len(hit) + 1)
        # Precision at a recall is the best one that is reached with it or more.
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        place = np.searchsorted(num_hit / num_true, RECALLS, side="left")
        values.append(np.append(precision, 0.0)[np.minimum(place, len(precision))].mean())
    return float(np.mean(values))
