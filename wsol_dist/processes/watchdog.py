"""Ends a training whose steps no longer come: with the stack of every rank, so that it can start again."""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from wsol_dist.processes.ranks import Ranks
from wsol_dist.processes.stop import STOPPED, STOPPED_LINE

LOOK_EVERY_S = 1.0
STACKS_S = 2.0
"""How long the first rank waits for the other ranks' stacks."""
TURN_S = 3.0
"""After this long the next rank speaks for all, if those before it do not."""
END_S = 60.0
"""A rank ends this long after it found the hang, whatever else hangs, say the disk."""
REAL_STDERR = sys.__stderr__ or sys.stderr
"""faulthandler writes to a file descriptor, which what stands for sys.stderr in a notebook has none of."""


class Watchdog:
    """A thread beside the training of each rank; it counts from `beat` to `beat`.

    It begins with the first beat: the first step, which compiles and reads from cold disks, is not watched, nor is
    what happens inside `paused()`. Where the training holds Python's lock, so that no other thread runs, faulthandler
    prints the stack to stderr and ends the process, `END_S` later.
    """

    def __init__(
        self, folder: Path, ranks: Ranks, *, timeout_s: float, then: Callable[[], str] | None = None
    ) -> None:
        """Does nothing until it is entered, nor with a `timeout_s` of 0.

        Args:
            folder: of the run; the stacks go into `logs/hang-TIME/`.
            timeout_s: the longest time between two beats, in seconds.
            then: called on one rank before the end, to requeue the job; says in one line what happens now.
        """
        self.ranks, self.timeout_s, self.then = ranks, timeout_s, then or (lambda: "")
        started = ranks.gather(time.strftime("%Y%m%d-%H%M%S"))[0]
        self.stacks = folder / "logs" / f"hang-{started}"
        self._step = 0
        self._last: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        if self.timeout_s:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self.timeout_s:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def beat(self, step: int) -> None:
        """Called behind each optimizer step."""
        begins = self._last is None
        self._step, self._last = step, time.monotonic()
        if (
            begins and self.timeout_s
        ):  # the thread looks a moment later, and may never get Python's lock again
            self._arm(self.timeout_s + END_S)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time in this context is not watched."""
        before, self._last = self._last, None
        try:
            yield
        finally:
            if before is not None:
                self.beat(self._step)

    @staticmethod
    def _arm(within_s: float) -> None:
        """Have faulthandler end the process, whoever holds Python's lock, unless this is called again in time."""
        faulthandler.dump_traceback_later(within_s, exit=True, file=REAL_STDERR)

    def _watch(self) -> None:
        while not self._over.wait(min(LOOK_EVERY_S, self.timeout_s / 4)):
            last = self._last
            if last is None:
                faulthandler.cancel_dump_traceback_later()
                continue
            self._arm(self.timeout_s + END_S)
            if (silent_s := time.monotonic() - last) > self.timeout_s:
                self._end(silent_s)

    def _end(self, silent_s: float) -> None:
        """Leave this rank's stack, let one rank speak for all, and end the process."""
        self._arm(END_S)
        try:
            self._write_stack(silent_s)
            time.sleep(STACKS_S + TURN_S * self.ranks.rank)
            if self._speaks_for_all():
                self._say(silent_s)
        except OSError as error:
            print(f"watchdog: {error}", file=sys.stderr)
            faulthandler.dump_traceback(REAL_STDERR)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(STOPPED)

    def _write_stack(self, silent_s: float) -> None:
        self.stacks.mkdir(parents=True, exist_ok=True)
        with (self.stacks / f"rank-{self.ranks.rank:05d}.txt").open("w", encoding="utf-8") as file:
            file.write(
                f"rank {self.ranks.rank} of {self.ranks.world}, {socket.gethostname()}, process {os.getpid()}: "
                f"no step for {silent_s:.1f} s, the last was {self._step}\n"
            )
            file.flush()
            faulthandler.dump_traceback(file)

    def _speaks_for_all(self) -> bool:
        """The first rank that comes here. The others wait for it: the end of one task may end the job's others."""
        spoken = self.stacks / "spoken"
        try:
            (self.stacks / "speaks").open("x").close()
            return True
        except FileExistsError:
            until = time.monotonic() + END_S / 2
            while not spoken.exists() and time.monotonic() < until:
                time.sleep(0.1)
            return False

    def _say(self, silent_s: float) -> None:
        there = {int(path.stem.removeprefix("rank-")) for path in self.stacks.glob("rank-*.txt")}
        missing = [rank for rank in range(self.ranks.world) if rank not in there]
        without = (
            f"; none of rank {', '.join(map(str, missing[:8]))}, which does not react" if missing else ""
        )
        print(
            f"ALERT hang: no step for {silent_s:.0f} s (train.hang_timeout_s {self.timeout_s:g}) after step "
            f"{self._step}; stacks of {len(there)} of {self.ranks.world} ranks in {self.stacks}{without}",
            flush=True,
        )
        print(f"{STOPPED_LINE}hung after step {self._step}; {self.then()}", flush=True)
        (self.stacks / "spoken").touch()
