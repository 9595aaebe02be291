"""Class folders of JPEGs to stream: real ones where WSOL_DATA has them, the embedded collage at like sizes else."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from wsol_dist.data.images.decode import decode_rgb
from wsol_dist.data.sources.collage import Options, Source

COPIES = 8
"""Of the 128 real images: about 100 MB, so that an epoch is not over at once."""


def large(folder: Path, count: int) -> str:
    """Images of about 466 x 388 px, as ImageNet has them; returns what they are."""
    real = sorted((_real_data() / "imagenet-sample-128").rglob("*.JPEG"))
    if real:
        blobs = (path.read_bytes() for _ in range(COPIES) for path in real)
        return f"{_write(folder, blobs, count)} of imagenet-sample-128"
    return f"{_write(folder, _collage(count, image_px=448, size_wh=(466, 388)), count)} of the collage at 466 x 388"


def real_or_collage(count: int) -> tuple[str, list[np.ndarray]]:
    """(H, W, 3) uint8 images of about ImageNet's size, at most 128 real ones, and what they are."""
    real = sorted((_real_data() / "imagenet-sample-128").rglob("*.JPEG"))
    if real:
        return "imagenet-sample-128", [decode_rgb(path.read_bytes()) for path in real[:count]]
    blobs = islice(_collage(count, image_px=448, size_wh=(466, 388)), count)
    return "the collage at 466 x 388", [decode_rgb(blob) for blob in blobs]


def small(folder: Path, count: int) -> str:
    """Images of 64 x 64 px; returns what they are."""
    archive = _real_data() / "tiny-imagenet-200.zip"
    if archive.is_file():
        with zipfile.ZipFile(archive) as file:
            names = [n for n in file.namelist() if "/train/" in n and n.endswith(".JPEG")]
            return f"{_write(folder, map(file.read, names), count)} of tiny-imagenet-200"
    return (
        f"{_write(folder, _collage(count, image_px=64, size_wh=(64, 64)), count)} of the collage at 64 x 64"
    )


def _real_data() -> Path:
    return Path(os.environ.get("WSOL_DATA") or "/nonexistent")


def _collage(count: int, *, image_px: int, size_wh: tuple[int, int]) -> Iterator[bytes]:
    source = Source(Options(num_train=-(-count // 8) * 8, num_val=0, num_test=0, image_px=image_px))
    for item in source.items():
        rgb_HWC = simplejpeg.decode_jpeg(source.read(item).image)
        yield simplejpeg.encode_jpeg(cv2.resize(rgb_HWC, size_wh), quality=95, colorsubsampling="444")


def _write(folder: Path, blobs: Iterator[bytes], count: int) -> int:
    """train/CLASS/NUMBER.jpg, eight classes in turn, as the `folder` source and ImageFolder read; returns how many."""
    written = 0
    for number, blob in enumerate(islice(blobs, count)):
        place = folder / "train" / f"class{number % 8}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:06d}.jpg").write_bytes(blob)
        written += 1
    return written
