"""An epoch that is interrupted goes on at any world size and with any workers: each remaining image is read once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from wsol_dist.config.data import DataConfig
from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.stream import TrainingOrder, training_batches

GLOBAL_BATCH = 12
STEPS = 8
"""In an epoch of the 96 training images."""


def order(index: Index, *, rank: int, world: int, first: int, last: int = STEPS) -> TrainingOrder:
    return TrainingOrder(
        shard_of_row=index.rows("train").shard,
        data=DataConfig(lanes=4, window=8),
        seed=11,
        global_batch=GLOBAL_BATCH,
        accumulation=1,
        rank=rank,
        world=world,
        first_step=first,
        last_step=last,
    )


def ids(index: Index, batches: Iterator[list[tuple[int, int]]] | TrainingOrder) -> list[str]:
    names = index.rows("train").ids.to_pylist()
    return [names[row] for batch in batches for _, row in batch]


@pytest.fixture
def reads(tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reads]:
    log = Reads(tiny_shards, tmp_path / "reads")
    monkeypatch.setattr(os, "pread", log.pread)
    yield log
    os.close(log.file)


class Reads:
    """Every read from a tar, also those of loader processes, which are forks."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.log, self.really = folder, log, os.pread
        self.file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def pread(self, file: int, size: int, offset: int) -> bytes:
        place = Path(os.readlink(f"/proc/self/fd/{file}"))
        if place.parent == self.folder:
            os.write(self.file, f"{place.name} {offset} {size}\n".encode())
        return self.really(file, size, offset)

    def ids(self) -> list[str]:
        """Names of the samples whose very bytes were read, in any order; then forgotten."""
        table = Index.load(self.folder).table().to_pylist()
        files = [shard.file for shard in Index.load(self.folder).shards]
        known = {f"{files[row['shard']]} {row['offset']} {row['bytes']}": row["id"] for row in table}
        found = [known[line] for line in self.log.read_text().splitlines()]
        os.truncate(self.log, 0)
        return found


@pytest.mark.parametrize("before", [1, 2, 4])
@pytest.mark.parametrize("after", [1, 2, 4])
@pytest.mark.parametrize("cut", range(STEPS + 1))
def test_the_order_goes_on_at_any_step(tiny_shards: Path, before: int, after: int, cut: int) -> None:
    index = Index.load(tiny_shards)
    seen = [
        one
        for r in range(before)
        for one in ids(index, order(index, rank=r, world=before, first=0, last=cut))
    ]
    rest = [one for r in range(after) for one in ids(index, order(index, rank=r, world=after, first=cut))]
    assert len(seen) == cut * GLOBAL_BATCH
    assert Counter(seen + rest) == Counter(index.rows("train").ids.to_pylist())


@pytest.mark.parametrize(
    ("before", "after", "cut"),
    [  # (ranks, workers of each)
        ((1, 0), (2, 1), 3),
        ((1, 2), (4, 0), 1),
        ((2, 1), (1, 2), 5),
        ((4, 1), (2, 0), 7),
        ((2, 0), (4, 2), 2),
    ],
)
def test_the_stream_reads_the_rest_and_nothing_else(
    tiny_shards: Path, reads: Reads, before: tuple[int, int], after: tuple[int, int], cut: int
) -> None:
    index = Index.load(tiny_shards)
    seen: list[str] = []
    for rank in range(before[0]):
        run = order(index, rank=rank, world=before[0], first=0)
        # The run is ended behind step `cut`, though its loaders have read ahead of it.
        loader = training_batches(index, DataConfig(workers=before[1]), order=run, image_px=24)
        assert len(list(islice(loader, cut))) == cut
        seen += ids(index, islice(run, cut))
    ahead = reads.ids()
    assert set(seen) <= set(ahead)
    rest: list[str] = []
    for rank in range(after[0]):
        run = order(index, rank=rank, world=after[0], first=cut)
        loader = training_batches(index, DataConfig(workers=after[1]), order=run, image_px=24)
        labels = [label for batch in loader for label in batch.label_B.tolist()]
        mine = reads.ids()
        assert Counter(mine) == Counter(ids(index, run))  # one read an image, none of what came before
        classes = dict(
            zip(index.rows("train").ids.to_pylist(), index.rows("train").label.tolist(), strict=True)
        )
        assert labels == [classes[one] for one in ids(index, run)]
        rest += mine
    assert len(rest) == (STEPS - cut) * GLOBAL_BATCH
    assert Counter(seen + rest) == Counter(index.rows("train").ids.to_pylist())
