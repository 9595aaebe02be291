"""What a sample must be to be packed: everything that training or evaluation would stumble over later."""

from __future__ import annotations

from typing import Any

import numpy as np

from wsol_dist.data.shards.sample import IGNORE, Sample
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
    _mask_of(sample)
    if sample.box_labels is not None:
        if sample.boxes_xyxy is None or len(sample.box_labels) != len(sample.boxes_xyxy):
            raise _refusal(sample.id, "box_labels", sample.box_labels, "one class number a box")
        for label in sample.box_labels:
            check_labels(sample.id, (label,))


def check_mask(sample: Sample, *, num_classes: int, image_wh: tuple[int, int]) -> None:
    """A mask's values mean something, and one of every pixel's class is of the image's own size.

    Args:
        num_classes: of the data set.
        image_wh: width and height of the upright image, (0, 0) where that cannot be read.

    Raises:
        UserError: an unknown value, or another size.
    """
    mask_HW = _mask_of(sample)
    if mask_HW is None:
        return
    if problem := mask_problem(mask_HW, semantic=sample.semantic, num_classes=num_classes):
        raise UserError(f"{sample.id}: {problem}; correct the mask, or remove it")
    height, width = mask_HW.shape
    if sample.semantic and image_wh != (0, 0) and (width, height) != image_wh:
        raise UserError(
            f"{sample.id}: the mask has {width} x {height} pixels, the image {image_wh[0]} x {image_wh[1]}; "
            "a mask with the class of every pixel must be of the image's size"
        )


def _mask_of(sample: Sample) -> np.ndarray | None:
    mask = None if sample.mask is None else np.asarray(sample.mask)
    if mask is not None and not (mask.dtype == np.uint8 and mask.ndim == 2 and mask.size > 0):
        raise _refusal(sample.id, "mask", f"{mask.dtype} of shape {mask.shape}", "uint8 of shape (H, W)")
    return mask


def mask_problem(mask_HW: np.ndarray, *, semantic: bool, num_classes: int) -> str | None:
    """The largest value that means nothing, as one line."""
    largest = int(mask_HW[mask_HW != IGNORE].max(initial=0))
    most = num_classes if semantic else 1
    if largest <= most:
        return None
    return f"the mask has the value {largest}, 0 to {most} and {IGNORE} allowed"


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

    Pixels count from 0 and the last one of a box is in it, so one that starts at the width or height has none. A box
    that only reaches over the border is no problem: published metadata has such, and protocols cut it or not.
    """
    if frame_wh is None:
        return None
    for x0, y0, x1, y1 in boxes_xyxy:
        if x1 < x0 or y1 < y0 or x1 < 0 or y1 < 0 or x0 >= frame_wh[0] or y0 >= frame_wh[1]:
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
