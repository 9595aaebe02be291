"""Heat maps: `heatmaps/<stem>.<class number>.png`, 8-bit grey at the image's own size, 255 the highest score."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from wsol_dist.files import write_atomically
from wsol_dist.prediction.results import LocalizedImage
from wsol_dist.regions.boxes import to_uint8


def draw(out: Path, stem: str, rgb_HWC: np.ndarray, found: LocalizedImage, classes: tuple[str, ...]) -> None:
    """One image's heat maps, of each localized class."""
    for one in found.classes:
        sink = io.BytesIO()
        Image.fromarray(to_uint8(one.heat_map)).save(sink, "PNG")
        path = out / f"{stem}.{one.label}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, sink.getvalue(), sync=False)
