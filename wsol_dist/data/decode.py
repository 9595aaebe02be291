"""Image bytes -> RGB pixels. One decoder behind one function."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 100_000_000
"""Larger images are refused: a few kilobytes can unpack to gigabytes."""


FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""What is decoded, whatever a file calls itself: PIL would hand others, EPS say, to programs outside."""


class DecodeError(Exception):
    """The bytes are no image that can be shown."""


def decode_rgb(data: bytes) -> np.ndarray:
    """Pixels of an encoded image, as stored: an EXIF orientation is not applied, since boxes are given in this frame.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DecodeError: broken, truncated, no image, or larger than MAX_PIXELS.
    """
    try:
        if simplejpeg.is_jpeg(data):
            return _decode_jpeg(data)
        return _decode_any(data)
    except (ValueError, OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DecodeError(str(error)) from error


def _decode_jpeg(data: bytes) -> np.ndarray:
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    if height * width > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels, more than {MAX_PIXELS}")
    if colorspace in ("CMYK", "YCCK"):
        return _decode_any(data)
    return simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)


def _decode_any(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS}")
        if image.mode.startswith("I"):
            # PIL clips 16-bit grey at 255 instead of scaling it.
            return np.repeat((np.asarray(image, dtype=np.uint32) >> 8).astype(np.uint8)[..., None], 3, axis=2)
        return np.asarray(image.convert("RGB"))
