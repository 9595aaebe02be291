"""The score maps of a split as a derived column, written while the split is scored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from wsol_dist.data.images.arrays import encode
from wsol_dist.data.shards.columns import About, ColumnWriter, ShardOfColumn
from wsol_dist.data.shards.index import Index
from wsol_dist.evaluator.counting import Predicted
from wsol_dist.evaluator.identity import Identity
from wsol_dist.processes.ranks import Ranks
from wsol_dist.regions.boxes import normalise, to_uint8

NAME = "map"


def map_column(index: Index, split: str, *, identity: Identity, command: str) -> About:
    """What a column of score maps is: made again with the same weights and knobs it is the same column.

    A value is the true class's map on the method's own grid, min-max to 0..255 and truncated.
    """
    settings = {"weights": identity.weights, "scored_as": identity.settings}
    return About(
        name=NAME, extension="png", splits=(split,), source=index.sha256, settings=settings, command=command
    )


class MapSaver:
    """Collects the ranks' maps after each batch; the first rank writes them, one shard after the other."""

    def __init__(self, folder: Path, index: Index, about: About, ranks: Ranks, *, num_rows: int) -> None:
        self.ranks = ranks
        self.writer: ColumnWriter | None = None
        ranks.main_first(lambda: self._begin(folder, index, about))
        todo: list[int] = self.writer.todo() if self.writer else []
        self.wanted_N: np.ndarray = ranks.gather(self._rows_of(todo, num_rows))[0]
        """Of the split's rows, those that are in no whole tar yet; the same on every rank."""
        self._todo = todo
        self._waiting: dict[int, bytes] = {}
        self._open: ShardOfColumn | None = None

    def _begin(self, folder: Path, index: Index, about: About) -> None:
        self.writer = ColumnWriter(folder, index, about)

    def _rows_of(self, shards: list[int], num_rows: int) -> np.ndarray:
        wanted_N = np.zeros(num_rows, bool)
        for number in shards:
            assert self.writer
            positions = self.writer.positions(number)
            wanted_N[positions.start : positions.stop] = True
        return wanted_N

    def add(self, batch: list[Predicted]) -> None:
        """This rank's part of a batch; every rank calls it for every batch."""
        if not self.wanted_N.any():
            return
        own = [(one.row, _encoded(one)) for one in batch if self.wanted_N[one.row]]
        for part in self.ranks.gather(own):
            if self.writer is not None:
                self._waiting.update(part)
        if self.writer is not None:
            self._write_ready(self.writer)

    def _write_ready(self, writer: ColumnWriter) -> None:
        """Write what follows on what is written. The rows of all ranks come nearly in order, so little waits."""
        while self._todo:
            positions = writer.positions(self._todo[0])
            if self._open is None:
                self._open = writer.shard(self._todo[0])
            following = positions.start + self._open.num_added
            while following < positions.stop and following in self._waiting:
                self._open.add(self._waiting.pop(following))
                following += 1
            if following < positions.stop:
                return
            self._open.close()
            self._open = None
            del self._todo[0]

    def saving(self, batches: Iterable[list[Predicted]]) -> Iterator[list[Predicted]]:
        """The same batches, their maps written on the way; behind the last one the column is whole.

        Cut off, the whole shards stay, and the next time only the others are written.
        """
        try:
            for batch in batches:
                self.add(batch)
                yield batch
        except BaseException as error:
            if self._open is not None:
                self._open.__exit__(type(error), error, error.__traceback__)
            raise
        if self.writer is not None:
            self.writer.finish()


def _encoded(one: Predicted) -> bytes:
    """A map as it is stored; nothing where the image did not decode."""
    return encode(to_uint8(normalise(one.scored.map_hw)), "png") if one.scored.decoded else b""
