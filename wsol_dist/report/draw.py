"""One evaluated image as a picture: the boxes on it, and the heat map over it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

GT_COLOR = (229, 57, 53)
"""Red of the true boxes, RGB."""
PREDICTED_COLOR = (0, 200, 83)
"""Green of the predicted box, RGB."""
_HALO = (0, 0, 0)
_GAP_PX = 4
_HEAT_SHARE = 0.55


def draw_case(
    image_HWC: np.ndarray,
    map_hw: np.ndarray,
    *,
    gt_boxes: Any,
    predicted_box: Any | None,
    iou: float | None,
    size_px: int = 224,
) -> np.ndarray:
    """Two panels side by side: the image with its boxes and IoU, and the heat map over the image.

    Args:
        image_HWC: (H, W, 3) uint8 RGB.
        map_hw: (h, w) scores of any range, on any grid that spans the whole image; shown from their least
            (blue) to their greatest (red). Values that are not finite count as the least.
        gt_boxes: (n, 4) xyxy in the frame of image_HWC; drawn red.
        predicted_box: (4,) xyxy in the same frame, drawn green; None where there is none.
        iou: written into the corner; None where there is none.
        size_px: the longer side of each panel, in pixels.

    Returns:
        (P, 2 Q + 4, 3) uint8 RGB; P and Q are the panel's height and width.
    """
    panel = _fitted(image_HWC, size_px)
    boxes = draw_boxes(image_HWC, gt_boxes=gt_boxes, predicted_box=predicted_box, iou=iou, size_px=size_px)
    gap = np.full((len(panel), _GAP_PX, 3), 32, np.uint8)
    return np.concatenate([boxes, gap, heat_over(panel, map_hw)], axis=1)


def draw_boxes(
    image_HWC: np.ndarray,
    *,
    gt_boxes: Any,
    predicted_box: Any | None,
    iou: float | None,
    size_px: int = 224,
) -> np.ndarray:
    """The first panel of `draw_case` alone: (P, Q, 3) uint8 RGB."""
    with_boxes = _fitted(image_HWC, size_px)
    scale = size_px / max(image_HWC.shape[:2])
    for box in np.asarray(gt_boxes, np.float64).reshape(-1, 4):
        _draw_box(with_boxes, box * scale, color=GT_COLOR)
    if predicted_box is not None:
        _draw_box(with_boxes, np.asarray(predicted_box, np.float64) * scale, color=PREDICTED_COLOR)
    return with_boxes if iou is None else _labelled(with_boxes, f"IoU {iou:.2f}")


def heat_over(image_HWC: np.ndarray, map_hw: np.ndarray) -> np.ndarray:
    """The map in colour (turbo) over the greyed image: (H, W, 3) uint8 RGB."""
    height, width = image_HWC.shape[:2]
    finite = np.isfinite(map_hw)
    low = float(map_hw[finite].min()) if finite.any() else 0.0
    grid = np.where(finite, map_hw, low).astype(np.float32)
    span = float(grid.max()) - low
    grid = (grid - low) / span if span > 0 else np.zeros_like(grid)
    large = np.clip(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)
    heat = cv2.applyColorMap(np.uint8(large * 255), cv2.COLORMAP_TURBO)[..., ::-1]  # type: ignore[call-overload]
    # Grey below the colours: else a red object and a high score look the same.
    grey = cv2.cvtColor(cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.uint8(np.rint(_HEAT_SHARE * heat + (1 - _HEAT_SHARE) * grey))  # type: ignore[return-value]


def _fitted(image_HWC: np.ndarray, size_px: int) -> np.ndarray:
    """A copy whose longer side is `size_px`."""
    assert image_HWC.shape[2:] == (3,), image_HWC.shape
    assert image_HWC.dtype == np.uint8, image_HWC.dtype
    height, width = image_HWC.shape[:2]
    scale = size_px / max(height, width)
    wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    interpolation = cv2.INTER_AREA if wh[0] < width else cv2.INTER_CUBIC
    return cv2.resize(image_HWC, wh, interpolation=interpolation).copy()


def _draw_box(image_HWC: np.ndarray, box_xyxy: np.ndarray, *, color: tuple[int, int, int]) -> None:
    """Draws in place, two pixels wide on a dark line that keeps it readable on any background."""
    height, width = image_HWC.shape[:2]
    # Kept inside, so that a box as large as the image shows all four of its sides.
    x0, x1 = np.clip(np.rint(box_xyxy[[0, 2]]), 1, width - 2).astype(int).tolist()
    y0, y1 = np.clip(np.rint(box_xyxy[[1, 3]]), 1, height - 2).astype(int).tolist()
    cv2.rectangle(image_HWC, (x0, y0), (x1, y1), _HALO, 4)
    cv2.rectangle(image_HWC, (x0, y0), (x1, y1), color, 2)


def _labelled(image_HWC: np.ndarray, text: str) -> np.ndarray:
    picture = Image.fromarray(image_HWC)
    canvas = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=max(10, round(min(image_HWC.shape[:2]) / 16)))
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    canvas.rectangle((0, 0, right - left + 9, bottom - top + 9), fill=(17, 17, 17))
    canvas.text((5 - left, 5 - top), text, font=font, fill=(255, 255, 255))
    return np.asarray(picture)
