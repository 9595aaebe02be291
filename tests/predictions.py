"""A folder as `wsol predict` leaves it, painted: for tests of what comes behind it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from wsol_dist.prediction.record import SCHEMA, write_record

CLASSES = ("cat", "dog", "owl")


def paint(path: Path, *, size_wh: tuple[int, int], box: list[float], hue: int) -> None:
    """A coloured rectangle where the box is, on grey."""
    image = np.full((size_wh[1], size_wh[0], 3), 150, np.uint8)
    x0, y0, x1, y1 = (int(side) for side in box)
    image[y0:y1, x0:x1] = cv2.cvtColor(np.uint8([[[hue % 180, 200, 220]]]), cv2.COLOR_HSV2BGR)[0, 0]
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def row(image: str, number: int, *, box: list[float] | None, size_wh: tuple[int, int]) -> dict[str, Any]:
    """Scores fall and rise with the number, so that every order is another one."""
    label = number % len(CLASSES)
    given = (number // 5) % len(CLASSES) if number % 5 == 0 else label
    common = {
        "image": image,
        "width": size_wh[0],
        "height": size_wh[1],
        "given_label": given,
        "given_class": CLASSES[given],
    }
    if box is None:
        return common
    sides = dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))
    score = round(0.30 + 0.69 * ((number * 37) % 101) / 100, 4)
    stability = round(0.5 + 0.5 * ((number * 53) % 97) / 96, 4)
    return common | {
        "class_rank": 0,
        "label": label,
        "class": CLASSES[label],
        "score": score,
        "box_rank": 0,
        "stability": stability,
        **sides,
    }


def write_predictions(
    out: Path, rows: list[dict[str, Any]], *, root: Path | None, shards: Sequence[dict[str, str]] = ()
) -> None:
    """`predictions.parquet` and `predictions.json`."""
    out.mkdir(parents=True, exist_ok=True)
    about = {
        "root": None if root is None else str(root.resolve()),
        "shards": list(shards),
        "classes": list(CLASSES),
        "model": {"path": "run", "method": "molt", "weights_sha256": "0" * 64, "step": 5},
        "threshold": {"value": 0.42, "level": 107, "source": "val", "from": None},
        "settings": {},
        "num_images": len({one["image"] for one in rows}),
    }
    write_record(out, pa.Table.from_pylist(rows, schema=SCHEMA), about)


def make_predictions(folder: Path, num_images: int = 12, *, side_px: int = 160) -> Path:
    """Images of two shapes, a box each; the last image has none."""
    rows = []
    for number in range(num_images):
        size = (side_px, side_px * 3 // 4) if number % 2 else (side_px * 3 // 4, side_px)
        box = [10.0 + number % 7, 20.0, size[0] / 2 + number % 5, size[1] - 15.0]
        image = f"{CLASSES[number % len(CLASSES)]}/{number:05d}.jpg"
        paint(folder / "images" / image, size_wh=size, box=box, hue=number * 29)
        rows.append(row(image, number, box=None if number == num_images - 1 else box, size_wh=size))
    write_predictions(folder / "O", rows, root=folder / "images")
    return folder / "O"


def make_many(folder: Path, num_images: int, *, num_files: int = 40) -> Path:
    """As many images as asked for: links to a few files, since it is the page that is tried and not the disk."""
    sources = folder / "images" / "files"
    size = (120, 90)
    for number in range(num_files):
        paint(sources / f"{number}.jpg", size_wh=size, box=[20, 10, 80, 70], hue=number * 17)
    rows = []
    for number in range(num_images):
        image = f"many/{number:05d}.jpg"
        path = folder / "images" / image
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(sources / f"{number % num_files}.jpg")
        rows.append(row(image, number, box=[20.0, 10.0, 80.0, 70.0], size_wh=size))
    write_predictions(folder / "O", rows, root=folder / "images")
    return folder / "O"
