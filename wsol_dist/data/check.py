"""What a sample must be to be packed: everything that training or evaluation would stumble over later."""

from __future__ import annotations

from typing import Any

import numpy as np

from wsol_dist.data.sample import Sample
from wsol_dist.errors import UserError

IMAGE_EXTENSIONS = ("jpg", "png", "webp", "bmp")


def check_labels(sample_id: str, labels: tuple[int, ...], *, num_classes: int | None = None) -> None:
    """Labels are one or more class numbers.

    Args:
        num_classes: None where the classes are not known.

    Raises:
        UserError: none, no whole numbers, or out of range.
    """
    most = "" if num_classes is None else f" to {num_classes - 1}"
    right = isinstance(labels, tuple) and len(labels) > 0
    for label in labels if right else ():
        right &= type(label) is int and label >= 0 and (num_classes is None or label < num_classes)
    if not right:
        raise _refusal(sample_id, "labels", labels, f"a tuple of one or more ints from 0{most}")


def check_sample(sample: Sample) -> None:
    """A sample's fields fit `Sample`. The image itself may be broken: evaluation counts it as a miss.

    Raises:
        UserError: the first field that does not; the id, what was given and what is allowed are named.
    """
    if not isinstance(sample.id, str) or not sample.id:
        raise _refusal(repr(sample.id), "id", sample.id, "a text that is not empty")
    if sample.extension not in IMAGE_EXTENSIONS:
        raise _refusal(sample.id, "extension", sample.extension, f"one of {', '.join(IMAGE_EXTENSIONS)}")
    check_labels(sample.id, sample.labels)
    _check_boxes(sample)
    mask = None if sample.mask is None else np.asarray(sample.mask)
    if mask is not None and not (mask.dtype == np.uint8 and mask.ndim == 2 and mask.size > 0):
        raise _refusal(sample.id, "mask", f"{mask.dtype} of shape {mask.shape}", "uint8 of shape (H, W)")
    if sample.box_labels is not None:
        if sample.boxes_xyxy is None or len(sample.box_labels) != len(sample.boxes_xyxy):
            raise _refusal(sample.id, "box_labels", sample.box_labels, "one class number a box")
        for label in sample.box_labels:
            check_labels(sample.id, (label,))


def _check_boxes(sample: Sample) -> None:
    frame = sample.box_frame_wh
    if frame is not None and not (len(frame) == 2 and all(type(side) is int and side > 0 for side in frame)):
        raise _refusal(sample.id, "box_frame_wh", frame, "width and height in pixels, two ints above 0")
    if sample.boxes_xyxy is None:
        return
    try:
        boxes = np.asarray(sample.boxes_xyxy, dtype=np.float64)
    except (TypeError, ValueError):
        raise _refusal(sample.id, "boxes_xyxy", sample.boxes_xyxy, "rows of four numbers") from None
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise _refusal(sample.id, "boxes_xyxy", f"shape {boxes.shape}", "rows of four numbers, shape (n, 4)")
    if not np.isfinite(boxes).all():
        raise _refusal(sample.id, "boxes_xyxy", boxes.tolist(), "finite numbers")
    if len(boxes) > 0 and frame is None:
        wanted = "width and height of the image that the boxes are given in"
        raise _refusal(sample.id, "boxes without box_frame_wh", frame, wanted)
    if problem := frame_problem(boxes, frame):
        raise UserError(f"{sample.id}: {problem}; correct or remove the box")


def frame_problem(boxes_xyxy: np.ndarray, frame_wh: tuple[int, int] | None) -> str | None:
    """The first box that has no pixel inside its image, as one line.

    A box that only reaches over the border is none: published metadata has such, and protocols cut it or not.
    """
    if frame_wh is None:
        return None
    for x0, y0, x1, y1 in boxes_xyxy:
        if x1 < x0 or y1 < y0 or x1 < 0 or y1 < 0 or x0 > frame_wh[0] or y0 > frame_wh[1]:
            given = ", ".join(f"{side:g}" for side in (x0, y0, x1, y1))
            return f"box x0,y0,x1,y1 = {given} lies outside the image of {frame_wh[0]} x {frame_wh[1]} pixels"
    return None


def reaches_out(sample: Sample) -> bool:
    """Whether a box goes more than a pixel beyond its image: no error, but worth a line."""
    if sample.boxes_xyxy is None or sample.box_frame_wh is None or len(sample.boxes_xyxy) == 0:
        return False
    width, height = sample.box_frame_wh
    boxes = np.asarray(sample.boxes_xyxy)
    return bool((boxes < -1).any() or (boxes[:, 2] > width + 1).any() or (boxes[:, 3] > height + 1).any())


def _refusal(sample_id: str, what: str, given: Any, allowed: str) -> UserError:
    shown = given if isinstance(given, str) else repr(given)
    return UserError(f"{sample_id}: {what}: {shown[:120] or repr('')} given, {allowed} expected")
