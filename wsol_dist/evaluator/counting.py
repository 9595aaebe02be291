"""One rank's share of a split: its images counted by every metric, and their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wsol_dist.data.shards.index import Rows
from wsol_dist.errors import UserError
from wsol_dist.evaluator.row_file import RowFile
from wsol_dist.metrics.base import Metric, Row, Scored
from wsol_dist.processes.ranks import Ranks
from wsol_dist.regions.boxes import NUM_LEVELS, NonFiniteMapError

GATHER_ROWS = 512
"""Rows that a rank sends at once: memory for the ranks' rows is bounded by it."""


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """One image of the split with what was said of it."""

    row: int
    """Its position among the split's rows."""
    scored: Scored


class Share:
    """One rank's images. The counters are integers of fixed shape: ranks add theirs once, at the end."""

    def __init__(
        self, rows: Rows, metrics: list[Metric], *, level: int, hidden: frozenset[str] = frozenset()
    ) -> None:
        check_unique(rows.ids)
        self.metrics, self.level, self.hidden = metrics, level, hidden
        self.ids = rows.ids
        self.seen_N = np.zeros(len(rows), np.int64)
        """How often each row of the split was counted."""
        self.rows = RowFile(len(rows))
        self.broken: list[int] = []
        self.strange: list[str] = []

    def add(self, predicted: Predicted) -> None:
        """Count one image."""
        scored, number = predicted.scored, predicted.row
        if self.ids[number].as_py() != scored.id:
            self.strange.append(scored.id)
            return
        self.seen_N[number] += 1
        if not scored.decoded:
            self.broken.append(number)
        row = self._count(scored)
        # Once the level is known there is no need to keep 255 of everything until the end.
        self.rows.put(number, row if self.level < 0 else at_level(row, self.level))

    def _count(self, scored: Scored) -> Row:
        row: Row = {"id": scored.id, "label": scored.label, "decoded": scored.decoded}
        row["gt_boxes"] = scored.gt_boxes(clamp=True).tolist() if scored.has_boxes else []
        try:
            for metric in self.metrics:
                row |= metric.update(scored)
        except NonFiniteMapError as error:
            raise UserError(
                f"{scored.id}: {error}; the weights are broken or training diverged, score an earlier one"
            ) from error
        return row | dict.fromkeys(self.hidden & row.keys())

    def sum_over(self, ranks: Ranks) -> None:
        """Add the counters of all ranks in one message, and see that every image was counted once.

        Raises:
            UserError: images missing, repeated or unknown, with their names; on every rank.
        """
        total = ranks.all_sum(
            np.concatenate([*(metric.counts.ravel() for metric in self.metrics), self.seen_N])
        )
        start = 0
        for metric in self.metrics:
            stop = start + metric.counts.size
            metric.counts = total[start:stop].reshape(metric.counts.shape)
            start = stop
        strange = [one for ids in ranks.gather(self.strange) for one in ids]
        check_counted(self.ids, total[start:], strange=strange)

    def gathered_rows(self, ranks: Ranks, level: int) -> RowFile:
        """All ranks' rows at the chosen level, on the first rank; a bounded number of them in memory at a time."""
        every = RowFile(len(self.ids))
        numbers = self.rows.numbers
        most = max(ranks.gather(len(numbers)))
        for start in range(0, most, GATHER_ROWS):
            own = [(int(at), at_level(self.rows[at], level)) for at in numbers[start : start + GATHER_ROWS]]
            for part in ranks.gather(own):
                for number, row in part if ranks.is_main else ():
                    every.put(number, row)
        return every

    def gathered_broken(self, ranks: Ranks) -> list[str]:
        """Ids of the images that did not decode, in the order of the index."""
        numbers = sorted(number for part in ranks.gather(self.broken) for number in part)
        return [self.ids[number].as_py() for number in numbers]


def check_unique(ids: pa.StringArray) -> None:
    """Every id of a split is there once.

    Raises:
        UserError: the first ten that are not.
    """
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    counts = pc.value_counts(ids)
    repeated = [one["values"].as_py() for one in counts if one["counts"].as_py() > 1]
    raise UserError(_named(repeated, len(ids), "in the index several times"))


def check_counted(ids: Sequence[Any], seen_N: np.ndarray, *, strange: Sequence[str] = ()) -> None:
    """Every image of the split was counted exactly once, over all ranks.

    Args:
        ids: of the split, strings or arrow's.
        seen_N: how often each of them was counted.
        strange: ids that were counted and are not where the index has them.

    Raises:
        UserError: the first ten that were missing, and the first ten counted several times.
    """
    for what, at_fault_N in (("not scored", seen_N == 0), ("scored several times", seen_N > 1)):
        if at_fault_N.any():
            raise UserError(_named([str(ids[int(at)]) for at in np.flatnonzero(at_fault_N)], len(ids), what))
    if strange:
        raise UserError(_named(sorted(strange), len(ids), "not in the index"))


def _named(ids: list[str], total: int, what: str) -> str:
    return (
        f"{len(ids)} of {total} images were {what}: {', '.join(ids[:10])}; "
        "check the shards with shards/verify.py"
    )


def at_level(row: Row, level: int) -> Row:
    """A row with the values of one level, as plain Python values."""
    return {key: _plain(value, level) for key, value in row.items()}


def _plain(value: Any, level: int) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    assert len(value) == NUM_LEVELS, value.shape
    chosen = value[level]
    return chosen.tolist() if isinstance(chosen, np.ndarray | np.generic) else chosen
