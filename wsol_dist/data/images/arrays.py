"""Arrays as bytes and back: 8-bit PNG and npy, neither of which can run code."""

from __future__ import annotations

import io
import math
import struct
from typing import Literal

import cv2
import numpy as np

from wsol_dist.data.images.decode import check_pixels

Extension = Literal["png", "npy"]
PNG_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
"""Before width and height."""


def encode(value: np.ndarray, extension: Extension) -> bytes:
    """An array as bytes: png for (H, W) uint8, npy for any."""
    if extension == "png":
        assert value.ndim == 2, value.shape
        assert value.dtype == np.uint8, value.dtype
        ok, data = cv2.imencode(".png", value)
        assert ok
        return data.tobytes()
    file = io.BytesIO()
    np.save(file, value, allow_pickle=False)
    return file.getvalue()


def decode(data: bytes, extension: Extension) -> np.ndarray:
    """The array of `encode`.

    Raises:
        ValueError: damaged, larger than MAX_PIXELS, or an array of objects.
    """
    return _decode_npy(data) if extension == "npy" else _decode_png(data)


def _decode_png(data: bytes) -> np.ndarray:
    """A picture whose header claims no more than is unpacked."""
    if not data.startswith(PNG_HEAD) or len(data) < len(PNG_HEAD) + 8:
        raise ValueError("no 8-bit grey PNG")
    check_pixels(*struct.unpack_from(">II", data, len(PNG_HEAD)))
    value = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if value is None or value.ndim != 2 or value.dtype != np.uint8:
        raise ValueError("no 8-bit grey PNG")
    return value


def _decode_npy(data: bytes) -> np.ndarray:
    """An array whose header claims no more than there is: numpy would allocate what it claims first."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = (
        np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read_header(file)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"an array of shape {shape} and dtype {dtype} in {len(data)} bytes")
    return np.load(io.BytesIO(data), allow_pickle=False)
