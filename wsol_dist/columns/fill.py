"""Fill a derived column on any number of ranks, shard by shard; an interrupted run resumes.

A shard is one rank's work from its first sample to its last. So values do not depend on who works on which shard, or
in how many runs, as long as whoever computes them begins a batch with each shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from wsol_dist.data.images.arrays import encode
from wsol_dist.data.images.broken import name_some
from wsol_dist.data.shards.columns import About, ColumnWriter
from wsol_dist.data.shards.index import Index
from wsol_dist.log.progress import progress
from wsol_dist.processes.environment import is_first_rank
from wsol_dist.processes.ranks import Ranks

END = object()
Values = Callable[[str, Sequence[range]], Iterator[np.ndarray | None]]
"""A split, and for each shard the rows of its samples in that split -> a value for each sample, in this order; None
for an image that does not decode."""


@dataclass(frozen=True, kw_only=True)
class ColumnTask:
    """The column to fill; picklable."""

    out: Path
    about: About
    value: str
    """What a sample gets, in the singular: `label map`."""
    made_by: str
    """For logs, after `shards of label maps`: `by slic`."""
    part: tuple[int, int] = (0, 1)
    """(i, n): every n-th shard from the i-th on, for the tasks of a job array; the column's index is then left to a
    run without."""


def is_complete(index: Index, task: ColumnTask) -> bool:
    """Whether the column is filled, which is then printed: to start ranks that find nothing to do takes half a minute.

    Raises:
        UserError: the folder holds another column, or cannot be written.
    """
    complete = ColumnWriter(task.out, index, task.about).finished
    if complete and is_first_rank():
        print(f"{task.out}: complete, nothing to do", flush=True)
    return complete


def fill_column(ranks: Ranks, index: Index, task: ColumnTask, open_values: Callable[[], Values]) -> None:
    """Write the missing shards, and the column's index at the end. All ranks call it.

    Args:
        open_values: called on all ranks once it is known that a shard is missing.

    Raises:
        UserError: the folder holds another column, or cannot be written.
    """
    ranks.main_first(lambda: _print_start(index, task))
    writer = ColumnWriter(task.out, index, task.about)
    # Rank 0's list is everybody's: shards are being finished while the others still look.
    missing: list[int] = ranks.gather(writer.todo() if ranks.is_main else [])[0]
    part, parts = task.part
    todo = [number for number in missing if number % parts == part]
    broken: list[str] = []
    if todo:
        total = sum(index.shards[number].num_samples for number in todo)
        with _progress(f"{task.value}s", total, ranks) as advance:
            broken = _write_shards(writer, todo[ranks.rank :: ranks.world], open_values(), advance)
    broken = [one for some in ranks.gather(broken) for one in some]
    if task.part == (0, 1):
        ranks.main_first(writer.finish)
    if ranks.is_main:
        _print_end(writer, task, len(todo), broken)


def _write_shards(
    writer: ColumnWriter, numbers: Sequence[int], values: Values, advance: Callable[[int], None]
) -> list[str]:
    """Write these shards; returns the ids of images that do not decode."""
    broken: list[str] = []
    for split, of_split in groupby(numbers, key=lambda number: writer.index.shards[number].split):
        shards = [(number, writer.positions(number)) for number in of_split]
        found = values(split, [rows for _, rows in shards])
        for number, rows in shards:
            with writer.shard(number) as shard:
                for row, value in zip(rows, found, strict=False):  # `found` goes on with the next shard
                    shard.add(None if value is None else encode(value, writer.about.extension))
                    broken += [writer.id(number, row)] if value is None else []
                    advance(1)
        assert next(found, END) is END, f"{split}: more values than samples"
    return broken


def _print_start(index: Index, task: ColumnTask) -> None:
    writer = ColumnWriter(task.out, index, task.about)
    num_missing, num_shards = len(writer.todo()), len(writer.numbers)
    if num_missing:
        resumed = f", {num_shards - num_missing} are there already" if num_missing < num_shards else ""
        print(f"{task.out}: {num_shards} shards of {task.value}s {task.made_by}{resumed}", flush=True)


def _print_end(writer: ColumnWriter, task: ColumnTask, num_written: int, broken: list[str]) -> None:
    if broken:
        print(f"{len(broken)} images do not decode and have no {task.value}: {name_some(broken)}")
    if not writer.finished:
        print(f"{task.out}: part {task.part[0] + 1}/{task.part[1]} done, {num_written} shards written")
    elif num_written:
        print(f"{task.out}: complete, {num_written} shards written")
    else:
        print(f"{task.out}: complete, nothing to do")


@contextmanager
def _progress(what: str, total: int, ranks: Ranks) -> Iterator[Callable[[int], None]]:
    """Called with a number of samples as they are done; rank 0 prints its own pace times the number of ranks."""
    if not ranks.is_main:
        yield lambda count: None
        return
    with progress(what, total) as advance:
        yield lambda count: advance(count * ranks.world)
