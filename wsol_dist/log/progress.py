"""How far a long command is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

SECONDS_BETWEEN_LINES = 10.0


def duration_text(seconds: float) -> str:
    """Hours, minutes and seconds: 75.2 -> '0:01:15'."""
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class Eta:
    """Seconds left, from the pace of the last rows of this process (a resumed run starts at a high step)."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._seen: deque[tuple[float, int]] = deque(maxlen=30)

    def update(self, step: int, *, now: float | None = None) -> float | None:
        """Seconds to the last step; None while the pace or the total is unknown."""
        now = time.monotonic() if now is None else now
        if self._seen and step < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, step))
        (first_time, first_step), (last_time, last_step) = self._seen[0], self._seen[-1]
        if self._total is None or last_step == first_step:
            return None
        return max(0, self._total - last_step) * (last_time - first_time) / (last_step - first_step)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function that is told how many samples were done since it was told before."""
    if not sys.stdout.isatty():
        yield Lines(what, total)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


class Lines:
    """Progress for logs: a line every ten seconds, and one at the end where no other line follows."""

    def __init__(
        self, what: str, total: int, *, unit: str = "samples", say: Callable[[str], None] | None = None
    ) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._say, self._says_end = say or partial(print, flush=True), say is None
        self._done, self._eta, self._start = 0, Eta(total), time.monotonic()
        self._last = self._start
        self._eta.update(0, now=self._start)

    def __call__(self, count: int) -> None:
        """Take in that so many more are done; of several ranks it is an estimate, so at most all are."""
        before, self._done = self._done, min(self._total, self._done + count)
        now = time.monotonic()
        due = now - self._last >= SECONDS_BETWEEN_LINES or (self._says_end and self._done == self._total)
        if before == self._total or not due:
            return
        self._last = now
        left = self._eta.update(self._done, now=now) or 0.0
        rate = self._done / max(now - self._start, 1e-9)
        self._say(
            f"{self._what}: {self._done}/{self._total} {self._unit}, {rate:.0f}/s, ETA {duration_text(left)}"
        )
