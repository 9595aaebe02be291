"""Overlays: `overlays/<stem>.jpg`, the image with its boxes beside the heat map of its first class; for looking."""

from __future__ import annotations

import colorsys
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageDraw, ImageFont

from wsol_dist.files import write_atomically
from wsol_dist.prediction.results import LocalizedImage
from wsol_dist.report.draw import heat_over

LONGEST_PX = 640
GAP_PX = 4
JPEG_QUALITY = 85


def draw(out: Path, stem: str, rgb_HWC: np.ndarray, found: LocalizedImage, classes: tuple[str, ...]) -> None:
    """One image's overlay."""
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(overlay(rgb_HWC, found)), quality=JPEG_QUALITY)
    path = out / f"{stem}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data, sync=False)


def overlay(rgb_HWC: np.ndarray, found: LocalizedImage) -> np.ndarray:
    """Two panels side by side, (P, 2 Q + 4, 3) uint8: boxes with class and score; the heat map over the image.

    Args:
        rgb_HWC: the image, uint8, upright; no panel is larger than it or than `LONGEST_PX`.
    """
    scale = min(1.0, LONGEST_PX / max(rgb_HWC.shape[:2]))
    wh = (max(1, round(rgb_HWC.shape[1] * scale)), max(1, round(rgb_HWC.shape[0] * scale)))
    panel = cv2.resize(rgb_HWC, wh, interpolation=cv2.INTER_AREA) if scale < 1 else rgb_HWC.copy()
    heat = heat_over(panel, found.classes[0].map_hw) if found.classes else panel
    gap = np.full((len(panel), GAP_PX, 3), 32, np.uint8)
    return np.concatenate([_with_boxes(panel, found), gap, heat], axis=1)


def _with_boxes(panel_HWC: np.ndarray, found: LocalizedImage) -> np.ndarray:
    picture = Image.fromarray(panel_HWC)
    canvas = ImageDraw.Draw(picture)
    width, height = picture.size
    font = ImageFont.load_default(size=max(10, round(min(width, height) / 18)))
    scale = np.array([width / found.width, height / found.height] * 2)
    # The most probable class last: what it covers is less of interest.
    for one in reversed(found.classes):
        colour = colour_of(one.label)
        for number, box in enumerate(one.boxes):
            x0, y0, x1, y1 = (np.array(box.xyxy) * scale).round().tolist()
            x1, y1 = max(min(x1, width) - 1, x0), max(min(y1, height) - 1, y0)
            canvas.rectangle((x0, y0, x1, y1), outline=(0, 0, 0), width=5)
            canvas.rectangle(
                (x0 + 1, y0 + 1, max(x1 - 1, x0 + 1), max(y1 - 1, y0 + 1)), outline=colour, width=3
            )
            if number == 0:
                _write(canvas, f"{one.name} {one.score:.2f}", (x0, y0), font, colour)
    return np.asarray(picture)


def _write(
    canvas: ImageDraw.ImageDraw,
    text: str,
    at: tuple[float, float],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    colour: tuple[int, ...],
) -> None:
    _, _, right, bottom = canvas.textbbox(at, text, font=font)
    canvas.rectangle((at[0], at[1], right + 6, bottom + 6), fill=(17, 17, 17))
    canvas.text((at[0] + 3, at[1] + 3), text, font=font, fill=colour)


def colour_of(label: int) -> tuple[int, int, int]:
    """A bright colour of a class number, unlike its neighbours'."""
    red, green, blue = colorsys.hsv_to_rgb((0.33 + label * 0.618) % 1, 0.75, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)
