"""Arrays from a .params file of MXNet, which no longer installs; nothing in the file is code."""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

MAGIC = 0x112
V1, V2 = 0xF993FAC8, 0xF993FAC9
"""What begins an array since 2017; before, that place holds its number of dimensions."""
DTYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8"}
MOST_DIMENSIONS, MOST_NAME_BYTES = 32, 4096


def read_params(path: Path) -> dict[str, Tensor]:
    """Tensors by name, as `mx.nd.save` wrote them: dense arrays of any of the three versions of the format.

    Raises:
        ValueError: something else, or cut off.
    """
    left = path.stat().st_size
    with path.open("rb") as file:
        magic, _ = _numbers(file, "<u8", 2)
        if magic != MAGIC:
            raise ValueError("no list of MXNet arrays")
        (num_arrays,) = _numbers(file, "<u8", 1)
        if num_arrays > left:
            raise ValueError(f"{num_arrays} arrays in {left} bytes")
        arrays = [_array(file, left) for _ in range(num_arrays)]
        (num_names,) = _numbers(file, "<u8", 1)
        if num_names != num_arrays:
            raise ValueError(f"{num_names} names of {num_arrays} arrays")
        return {_name(file): array for array in arrays}


def _array(file: BinaryIO, most_bytes: int) -> Tensor:
    (first,) = _numbers(file, "<u4", 1)
    if first == V2 and _numbers(file, "<i4", 1) != [0]:
        raise ValueError("a sparse array")
    num_dimensions = _numbers(file, "<u4", 1)[0] if first in (V1, V2) else first
    if num_dimensions > MOST_DIMENSIONS:
        raise ValueError(f"an array of {num_dimensions} dimensions")
    shape = _numbers(file, "<i8" if first in (V1, V2) else "<u4", num_dimensions)
    _device, _number, kind = _numbers(file, "<i4", 3)
    if kind not in DTYPES:
        raise ValueError(f"an array of unknown type {kind}")
    dtype = np.dtype(DTYPES[kind])
    num_bytes = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or num_bytes > most_bytes:
        raise ValueError(f"an array of shape {shape} in {most_bytes} bytes")
    return torch.from_numpy(np.frombuffer(_bytes(file, num_bytes), dtype).reshape(shape).copy())


def _name(file: BinaryIO) -> str:
    (length,) = _numbers(file, "<u8", 1)
    if length > MOST_NAME_BYTES:
        raise ValueError(f"a name of {length} bytes")
    return _bytes(file, length).decode()


def _numbers(file: BinaryIO, dtype: str, count: int) -> list[int]:
    return np.frombuffer(_bytes(file, count * np.dtype(dtype).itemsize), dtype).tolist()


def _bytes(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise ValueError("cut off")
    return data
