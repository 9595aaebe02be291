"""Images with areas of colour, for what clusters pixels."""

from __future__ import annotations

import cv2
import numpy as np


def some_images(count: int, side_px: int) -> np.ndarray:
    """(count, side, side, 3) uint8: smooth areas of several colours with some noise, each image different."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    large = [cv2.resize(one, (side_px, side_px), interpolation=cv2.INTER_CUBIC) for one in coarse]
    noise = rng.normal(0, 8, (count, side_px, side_px, 3))
    return np.clip(np.stack(large) + noise, 0, 255).astype(np.uint8)
