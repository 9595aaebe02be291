"""Fetching the shards of later batches while earlier ones are worked on."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

Batch = TypeVar("Batch")


class Ahead(Generic[Batch]):
    """Batches as they come, a number of them held back, while threads fetch the shards that those will need."""

    NUM_BATCHES, NUM_THREADS = 64, 4

    def __init__(
        self,
        batches: Iterable[Batch],
        *,
        missing: Callable[[Batch], Iterable[int]],
        fetch: Callable[[int], Any],
    ) -> None:
        """`missing` names the shards of a batch that are not in the cache; `fetch` gets one."""
        self.batches, self.missing, self.fetch = batches, missing, fetch

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        wanted: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        left = threading.Event()
        asked: set[int] = set()

        def work() -> None:
            while (shard := wanted.get()) is not None and not left.is_set():
                try:
                    self.fetch(shard)
                except Exception:  # noqa: S112 - the loader process that needs it meets the same, and says so
                    continue  # asked for once is enough here
                asked.discard(shard)  # a full cache may drop it again

        for _ in range(self.NUM_THREADS):
            threading.Thread(target=work, daemon=True).start()
        held: deque[Batch] = deque()
        try:
            for batch in self.batches:
                for shard in self.missing(batch):
                    if shard not in asked:
                        asked.add(shard)
                        wanted.put(shard)
                held.append(batch)
                if len(held) > self.NUM_BATCHES:
                    yield held.popleft()
            yield from held
        finally:
            left.set()
            for _ in range(self.NUM_THREADS):
                wanted.put(None)
