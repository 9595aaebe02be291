"""EXIF orientation: cameras store a turned picture and a tag that says so.

Images are shown upright, as every viewer shows them, and boxes of one's own data were drawn on that picture. The
metadata of a published data set may be in the frame of the stored pixels instead: packing then resets the tag.
"""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image

TAG = 0x0112
UPRIGHT = 1
TURNED = (5, 6, 7, 8)
"""Orientations that swap width and height."""
JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
"""How the files begin."""
APP1, EXIF = 0xE1, b"Exif\0\0"
BYTE_ORDERS = {b"II": "<", b"MM": ">"}


def orientation(data: bytes) -> int:
    """The EXIF orientation of an encoded image, 1 to 8; 1 is upright and what is taken where there is none."""
    if data.startswith((JPEG, PNG)):
        place = _place_in_jpeg(data) if data.startswith(JPEG) else _place_in_png(data)
        found = UPRIGHT if place is None else struct.unpack_from(f"{place[1]}H", data, place[0])[0]
    elif b"EXIF" in data[-65_536:]:  # it ends a WebP
        found = _of_webp(data)
    else:
        return UPRIGHT
    return found if found in range(1, 9) else UPRIGHT


def upright(pixels_HWC: np.ndarray, turned: int) -> np.ndarray:
    """Stored pixels -> the picture as a person sees it.

    Args:
        pixels_HWC: as decoded.
        turned: of `orientation`.
    """
    if turned == UPRIGHT:
        return pixels_HWC
    if turned in TURNED:
        pixels_HWC = pixels_HWC.swapaxes(0, 1)
    if turned in (2, 3, 6, 7):
        pixels_HWC = pixels_HWC[:, ::-1]
    if turned in (3, 4, 7, 8):
        pixels_HWC = pixels_HWC[::-1]
    return np.ascontiguousarray(pixels_HWC)


def without_orientation(data: bytes) -> bytes:
    """A JPEG with the tag set to upright: its stored pixels are then what is shown. Others come back as they are."""
    place = _place_in_jpeg(data) if orientation(data) != UPRIGHT else None
    if place is None:
        return data
    changed = bytearray(data)
    struct.pack_into(f"{place[1]}H", changed, place[0], UPRIGHT)
    return bytes(changed)


def _place_in_jpeg(data: bytes) -> tuple[int, str] | None:
    """Byte offset of the tag's value and the byte order, None where there is no tag.

    Read here and not by PIL, which costs as much as decoding a small image.
    """
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == APP1 and data[at + 4 : at + 10] == EXIF:
            return _place_in_tiff(data, at + 10)
        if (
            not 0xE0 <= marker <= 0xEF and marker != 0xFE
        ):  # neither metadata nor a comment: the picture begins
            return None
        at += 2 + length
    return None


def _place_in_png(data: bytes) -> tuple[int, str] | None:
    """The same in a PNG, whose EXIF may lie before or behind the pixels: PIL would unpack them to look."""
    at = len(PNG)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"eXIf":
            start = at + 8
            return _place_in_tiff(data, start + 6 if data[start : start + 6] == EXIF else start)
        at += 12 + length
    return None


def _place_in_tiff(data: bytes, start: int) -> tuple[int, str] | None:
    order = BYTE_ORDERS.get(data[start : start + 2])
    if order is None:
        return None
    try:
        entries = start + struct.unpack_from(f"{order}I", data, start + 4)[0]
        (count,) = struct.unpack_from(f"{order}H", data, entries)
        for entry in range(entries + 2, entries + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", data, entry)
            if (tag, kind) == (TAG, 3) and entry + 10 <= len(data):
                return entry + 8, order
    except struct.error:  # ends before it says
        pass
    return None


def _of_webp(data: bytes) -> int:
    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
            return image.getexif().get(TAG, UPRIGHT)
    except Exception:  # PIL meets foreign EXIF bytes with any error there is
        return UPRIGHT
