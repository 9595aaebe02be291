"""PNG masks: `masks/<stem>.png` at the image's own size, 0 background, class number + 1 else; a palette shows them.

With more than 254 classes the PNG is 16-bit grey instead of 8-bit with a palette.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from wsol_dist.files import write_atomically
from wsol_dist.prediction.results import LocalizedImage

MOST_8_BIT = 254
"""Classes that 8 bits hold beside the background and 255, which readers take for `ignore`."""


def draw(out: Path, stem: str, rgb_HWC: np.ndarray, found: LocalizedImage, classes: tuple[str, ...]) -> None:
    """One image's mask."""
    mask_HW = found.class_mask()
    if len(classes) > MOST_8_BIT:
        picture = Image.fromarray(mask_HW.astype(np.uint16))
    else:
        picture = Image.fromarray(mask_HW.astype(np.uint8), mode="P")
        picture.putpalette(palette())
    sink = io.BytesIO()
    picture.save(sink, "PNG")
    path = out / f"{stem}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, sink.getvalue(), sync=False)


def palette() -> list[int]:
    """The colours of VOC's masks: the bits of a number, from the lowest, go round red, green and blue from the highest
    on, so that neighbouring numbers look different; 3 x 256 values."""
    colours = np.zeros((256, 3), np.uint8)
    number = np.arange(256)
    for bit in range(24):
        value = (number >> bit & 1) << (7 - bit // 3)
        colours[:, bit % 3] |= value.astype(np.uint8)
    return colours.ravel().tolist()
