"""MATLAB files of data sets; they count from 1 and wrap everything in arrays."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from wsol_dist.data.raw.archive import Place
from wsol_dist.errors import UserError


def read_mat(path: Place, *names: str) -> dict[str, Any]:
    """Variables of a MATLAB file (up to version 7) with arrays of one element as that element.

    Raises:
        UserError: missing, damaged, or without one of the variables.
    """
    import scipy.io

    try:
        content = scipy.io.loadmat(io.BytesIO(path.read_bytes()), variable_names=names, squeeze_me=True)
        return {name: content[name] for name in names}
    except Exception as error:  # loadmat raises many kinds on damaged files
        raise UserError(f"{path}: a MATLAB file with {', '.join(names)} expected: {error}") from error


def as_list(value: Any) -> list[Any]:
    """The elements of a variable, of which one element alone is none of an array."""
    return np.atleast_1d(value).tolist()
