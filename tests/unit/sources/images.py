"""Image files for hand-made trees."""

from pathlib import Path

import cv2
import numpy as np


def image_bytes(size_hw: tuple[int, int] = (20, 30), shade: int = 100) -> bytes:
    """A grey JPEG."""
    return cv2.imencode(".jpg", np.full((*size_hw, 3), shade, np.uint8))[1].tobytes()


def png_bytes(pixels: np.ndarray) -> bytes:
    """A PNG of exactly these pixels; colours are blue, green, red."""
    return cv2.imencode(".png", pixels)[1].tobytes()


def write_image(path: Path, shade: int = 100, size_hw: tuple[int, int] = (20, 30)) -> bytes:
    """A grey JPEG under any name; returns its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = image_bytes(size_hw, shade)
    path.write_bytes(data)
    return data


def write_text(path: Path, text: str) -> None:
    """A text file and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
