"""What pixel clusters do to a score map, as one picture: image, superpixels, clusters, map before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from skimage.segmentation import mark_boundaries

from wsol_dist.report.draw import draw_boxes, heat_over

_GAP_PX = 4
_COLOUR_SHARE = 0.6
_HUE_STEP = 111
"""Between neighbouring labels, of 180: prime to it, so that 180 labels have 180 hues."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MapBox:
    """A score map, and the box read from it."""

    map_hw: np.ndarray
    box: Any | None
    """(4,) xyxy in the image's frame."""
    iou: float | None = None


def draw_clusters(
    image_HWC: np.ndarray,
    *,
    segment_HW: np.ndarray,
    label_HW: np.ndarray,
    gt_boxes: Any = (),
    maps: tuple[MapBox, ...] = (),
    size_px: int = 160,
) -> np.ndarray:
    """Panels side by side: the image with its true boxes, superpixels, clusters, and each map with its box.

    Args:
        image_HWC: (H, W, 3) uint8 RGB.
        segment_HW: superpixels, on any grid that spans the image.
        label_HW: clusters, on any such grid.
        gt_boxes: (n, 4) xyxy in the image's frame; drawn red.
        maps: usually before and after; their boxes are drawn green.
        size_px: the longer side of each panel.

    Returns:
        (P, Q, 3) uint8 RGB.
    """
    nothing = MapBox(map_hw=np.zeros((1, 1)), box=None)
    parts = [(image_HWC, gt_boxes, nothing)]
    parts += [(outlined(image_HWC, segment_HW), (), nothing), (coloured(image_HWC, label_HW), (), nothing)]
    parts += [(heat_over(image_HWC, one.map_hw), gt_boxes, one) for one in maps]
    panels = [
        draw_boxes(picture, gt_boxes=boxes, predicted_box=found.box, iou=found.iou, size_px=size_px)
        for picture, boxes, found in parts
    ]
    gap = np.full((len(panels[0]), _GAP_PX, 3), 32, np.uint8)
    return np.concatenate([part for panel in panels for part in (gap, panel)][1:], axis=1)


def outlined(image_HWC: np.ndarray, segment_HW: np.ndarray) -> np.ndarray:
    """The image with the borders of its superpixels in yellow: (H, W, 3) uint8."""
    marked = mark_boundaries(image_HWC, _on(image_HWC, segment_HW), color=(1, 1, 0))
    return np.rint(marked * 255).astype(np.uint8)


def coloured(image_HWC: np.ndarray, label_HW: np.ndarray) -> np.ndarray:
    """A colour for each cluster over the greyed image: (H, W, 3) uint8."""
    hue_HW = (_on(image_HWC, label_HW).astype(np.int64) * _HUE_STEP % 180).astype(np.uint8)
    hsv_HWC = np.stack([hue_HW, np.full_like(hue_HW, 200), np.full_like(hue_HW, 255)], axis=2)
    colour = cv2.cvtColor(hsv_HWC, cv2.COLOR_HSV2RGB)
    grey = cv2.cvtColor(cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.rint(_COLOUR_SHARE * colour + (1 - _COLOUR_SHARE) * grey).astype(np.uint8)


def _on(image_HWC: np.ndarray, label_HW: np.ndarray) -> np.ndarray:
    """Labels on the image's grid."""
    height, width = image_HWC.shape[:2]
    return cv2.resize(label_HW.astype(np.int32), (width, height), interpolation=cv2.INTER_NEAREST)
