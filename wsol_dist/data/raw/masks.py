"""Outlines and run lengths to pixels, and masks that are kept as PNGs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from wsol_dist.data.images.decode import FORMATS, check_pixels
from wsol_dist.data.raw.archive import Place
from wsol_dist.data.raw.files import read_image_bytes
from wsol_dist.errors import UserError

FARTHEST = 10
"""Longer sides of the image that an outline may reach out of it."""


def read_indices(path: Place) -> np.ndarray:
    """The numbers in a PNG, (H, W) uint8: of a palette image the entries' numbers, not their colours.

    Raises:
        UserError: missing, damaged, larger than MAX_PIXELS, or with colours in it.
    """
    data = read_image_bytes(path)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            check_pixels(*image.size)
            if image.mode not in ("P", "L", "1"):
                raise ValueError(f"mode {image.mode}, one channel of 8 bits expected")
            return np.asarray(image).astype(np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error


def read_colours(path: Place) -> np.ndarray:
    """An image as (H, W, 3) uint8, red first.

    Raises:
        UserError: missing, damaged or larger than MAX_PIXELS.
    """
    data = read_image_bytes(path)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            check_pixels(*image.size)
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if pixels is None:
            raise UnidentifiedImageError
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _unreadable(path: Place, error: Exception) -> UserError:
    # What PIL says of something unknown names an address in memory.
    why = "it does not decode" if isinstance(error, UnidentifiedImageError) else error
    return UserError(f"{path}: cannot read this mask: {why}")


def fill_polygons(polygons: Sequence[Sequence[float]], size_hw: tuple[int, int]) -> np.ndarray:
    """Fill outlines with COCO's own code, so that masks, and what is scored on them, equal other projects' exactly.

    Args:
        polygons: each x0, y0, x1, y1, ... where pixel (0, 0) reaches from 0 to 1.
        size_hw: height and width.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: no pairs of finite numbers, or an outline far outside of the image.
    """
    from pycocotools import mask as coco

    if not polygons:
        return np.zeros(size_hw, bool)
    outlines = [np.asarray(flat, dtype=np.float64) for flat in polygons]
    for points in outlines:
        if points.ndim != 1 or len(points) % 2 or len(points) < 6 or not np.isfinite(points).all():
            raise ValueError("an outline of three or more x, y expected")
        # Time and memory of the filling grow with the length of the outline.
        if np.abs(points).max() > FARTHEST * max(size_hw):
            raise ValueError(f"an outline reaches to {np.abs(points).max():g}, far outside of the image")
    runs = coco.frPyObjects([points.tolist() for points in outlines], *size_hw)
    return coco.decode(coco.merge(runs)).astype(bool)


def decode_runs(counts: Sequence[int] | str, size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W) bool from COCO's run lengths: down the columns, background first; a text is their compressed form.

    Read here because pycocotools leaves pixels that the runs do not cover as they were in memory.

    Raises:
        ValueError: the runs do not cover the image.
    """
    runs = np.asarray(_decompress(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    height, width = size_hw
    if runs.ndim != 1 or ((runs < 0) | (runs > height * width)).any() or runs.sum() != height * width:
        raise ValueError(f"run lengths of {height} x {width} pixels expected")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _decompress(text: str) -> list[int]:
    """Five bits a character from 48 on, the sixth says that more follow; from the fourth run on, differences to
    the last but one."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("no compressed run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs


def segmentation_mask(segmentation: Any, size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W) bool from an annotation's `segmentation`: outlines, run lengths or compressed run lengths.

    Raises:
        ValueError: none of these.
    """
    if isinstance(segmentation, list):
        return fill_polygons(segmentation, size_hw)
    if isinstance(segmentation, dict) and {"counts", "size"} <= segmentation.keys():
        if list(segmentation["size"]) != list(size_hw):
            raise ValueError(f"size {segmentation['size']} given, {list(size_hw)} expected")
        return decode_runs(segmentation["counts"], size_hw)
    raise ValueError("outlines, or counts and size expected")
