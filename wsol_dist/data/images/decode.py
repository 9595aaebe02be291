"""Image bytes -> RGB pixels. One decoder behind one function."""

from __future__ import annotations

import io
import warnings

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from wsol_dist.data.images.orientation import orientation, upright

MAX_PIXELS = 100_000_000
"""Larger images are refused: a few kilobytes can unpack to gigabytes."""
# PIL warns from 90 million pixels on; above our own limit an image is refused by name.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""What is decoded, whatever a file calls itself: PIL would hand others, EPS say, to programs outside."""

END_OF_JPEG, END_OF_PNG = b"\xff\xd9", b"IEND\xaeB\x60\x82"
PADDING = b"\0\r\n "
"""What some writers leave behind the end."""


class DecodeError(Exception):
    """The bytes are no image that can be shown."""


def decode_rgb(data: bytes, *, cover_px: int | None = None) -> np.ndarray:
    """Pixels of an encoded image, upright: an EXIF orientation is applied, as viewers do.

    Args:
        cover_px: lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its size where both sides keep at least this many
            pixels; None for the stored size.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DecodeError: broken, truncated, no image, or larger than MAX_PIXELS.
    """
    try:
        stored = _decode_jpeg(data, cover_px) if simplejpeg.is_jpeg(data) else _decode_any(data)
        return upright(stored, orientation(data))
    except (ValueError, OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DecodeError(str(error)) from error


def image_problem(data: bytes, size_wh: tuple[int, int]) -> str | None:
    """Why an image does not decode, None for one that does or seems to.

    An image whose header is read and that ends as its format has it is believed, since decoding every image would
    take packing several times longer; any other is decoded. `wsol shards verify --deep` decodes all.

    Args:
        size_wh: as its header says; (0, 0) where it was unreadable.
    """
    whole = data[-64:].rstrip(PADDING).endswith((END_OF_JPEG, END_OF_PNG))
    if whole and 0 < size_wh[0] * size_wh[1] <= MAX_PIXELS:
        return None
    try:
        decode_rgb(data)
    except DecodeError as error:
        return str(error)
    return None


def check_pixels(width: int, height: int) -> None:
    """A size that a header claims is one to unpack.

    Raises:
        ValueError: more than MAX_PIXELS.
    """
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels, more than {MAX_PIXELS}")


def _decode_jpeg(data: bytes, cover_px: int | None) -> np.ndarray:
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except KeyError:  # a subsampling that it has no name for: a rare kind, or a flipped bit
        return _decode_any(data)
    check_pixels(width, height)
    if colorspace in ("CMYK", "YCCK"):
        return _decode_any(data)
    # Other fractions of libjpeg's have no vector code and are slower than all pixels.
    factor = next((f for f in (8, 4, 2) if cover_px and min(height, width) >= f * cover_px), 1)
    return simplejpeg.decode_jpeg(
        data,
        colorspace="RGB",
        strict=True,
        min_height=-(-height // factor),
        min_width=-(-width // factor),
        min_factor=factor,
    )


def _decode_any(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        check_pixels(*image.size)
        return to_rgb(image)


def to_rgb(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 RGB as a viewer shows it: 16-bit grey scaled, what is transparent on white, of several frames
    the first."""
    if image.mode.startswith("I"):
        # PIL clips 16-bit grey at 255 instead of scaling it.
        return np.repeat((np.asarray(image, dtype=np.uint32) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        # The colour below a transparent pixel is anything, often black.
        rgba = image.convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"))
    return np.asarray(image.convert("RGB"))
