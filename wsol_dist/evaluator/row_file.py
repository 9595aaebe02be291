"""A row an image, kept in a file without a name: memory stays the same however many images there are."""

from __future__ import annotations

import pickle  # noqa: TID251 - a file without a name, which no other process can open
import tempfile
from collections.abc import Iterator

import numpy as np

from wsol_dist.metrics.base import Row


class RowFile:
    """Rows by their number, put in any order and read in order, as often as wanted.

    The file is this process's own and goes with it; it lies where TMPDIR says.
    """

    def __init__(self, num_rows: int) -> None:
        # It lives as long as this object.
        self._file = tempfile.TemporaryFile(prefix="wsol-rows-")  # noqa: SIM115
        self._start_N = np.full(num_rows, -1, np.int64)
        self._size = 0

    def put(self, number: int, row: Row) -> None:
        """Keep a row."""
        data = pickle.dumps(row, protocol=pickle.HIGHEST_PROTOCOL)
        self._file.seek(self._size)
        self._file.write(data)
        self._start_N[number] = self._size
        self._size += len(data)

    @property
    def numbers(self) -> np.ndarray:
        """(n,) int64: of the rows that are there, ascending."""
        return np.flatnonzero(self._start_N >= 0)

    def __getitem__(self, number: int) -> Row:
        """One row.

        Raises:
            IndexError: it was never put.
        """
        start = int(self._start_N[number])
        if start < 0:
            raise IndexError(number)
        self._file.seek(start)
        return pickle.load(self._file)  # noqa: S301 - what `put` wrote

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Row]:
        return (self[number] for number in self.numbers)
