"""A sample of a data set as a picture: its boxes and its mask, as they are stored."""

from __future__ import annotations

import colorsys
from typing import Any

import cv2
import numpy as np

from wsol_dist.report.draw import draw_boxes
from wsol_dist.report.run_data import data_uri

IGNORE_COLOR = (140, 140, 140)
"""Of mask pixels that do not count."""
_MASK_SHARE = 0.5
_QUALITY = 84


def draw_sample(
    image_HWC: np.ndarray,
    *,
    boxes_xyxy: Any = (),
    mask_hw: np.ndarray | None = None,
    ignore: int = 255,
    size_px: int = 200,
) -> str:
    """A JPEG as a data URI.

    Args:
        image_HWC: (H, W, 3) uint8 RGB.
        boxes_xyxy: (n, 4) in the frame of image_HWC.
        mask_hw: uint8 on any grid that spans the whole image; 0 is background, every other value has its colour.
        ignore: the mask's value of pixels that do not count; grey.
        size_px: the longer side.
    """
    shown = image_HWC if mask_hw is None else _tinted(image_HWC, mask_hw, ignore)
    return _jpeg(draw_boxes(shown, gt_boxes=boxes_xyxy, predicted_box=None, iou=None, size_px=size_px))


def draw_heat(grid_hw: np.ndarray, *, size_px: int = 320) -> str:
    """Numbers from 0 (dark) to their largest (red) as a JPEG in a data URI."""
    top = float(grid_hw.max()) or 1.0
    grey = np.uint8(np.rint(255 * np.clip(grid_hw / top, 0, 1)))
    large = cv2.resize(grey, (size_px, size_px), interpolation=cv2.INTER_CUBIC)  # type: ignore[call-overload]
    return _jpeg(cv2.applyColorMap(large, cv2.COLORMAP_TURBO)[..., ::-1])


def mask_color(value: int) -> tuple[int, int, int]:
    """RGB of a mask's value: neighbours differ, the first is green beside the boxes' red."""
    red, green, blue = colorsys.hsv_to_rgb((0.39 + 0.618034 * (value - 1)) % 1, 0.75, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _tinted(image_HWC: np.ndarray, mask_hw: np.ndarray, ignore: int) -> np.ndarray:
    height, width = image_HWC.shape[:2]
    mask = cv2.resize(mask_hw, (width, height), interpolation=cv2.INTER_NEAREST)
    shown = image_HWC.copy()
    for value in np.unique(mask[mask > 0]).tolist():
        color = IGNORE_COLOR if value == ignore else mask_color(value)
        there = mask == value
        shown[there] = np.rint((1 - _MASK_SHARE) * shown[there] + _MASK_SHARE * np.array(color))
    return shown


def _jpeg(rgb_HWC: np.ndarray) -> str:
    done, data = cv2.imencode(".jpg", rgb_HWC[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    uri = data_uri(data.tobytes())
    assert done
    assert uri is not None
    return uri
