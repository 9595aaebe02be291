"""A wish to stop: signals become a flag, and all ranks agree on it between two optimizer steps.

Imports no torch, so that a process can listen before the seconds that importing it takes.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from wsol_dist.processes.ranks import Ranks

STOPPED = 75
"""Exit code of a training that is not through and that the same command continues: sysexits' EX_TEMPFAIL."""
STOPPED_LINE = "stopped: "
"""How the line begins that says so."""
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
"""Sent before a time limit (`--signal=USR2@120`), at a preemption, and by whoever ends a job."""


@contextmanager
def held() -> Iterator[None]:
    """Signals that come in this context before a `Stop` listens wait for it, instead of ending the process.

    For the first thread of a process, before there are others.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Stop:
    """Listens to `SIGNALS` inside its `with` block, whatever listened before; outside it is never asked to stop.

    SLURM signals all processes of a job, torchrun and people often one of them. Each only notes the signal: saving
    is the work of all ranks together, at a step that they agree on.
    """

    def __init__(self, *, at_once: Callable[[str], None] | None = None) -> None:
        """
        Args:
            at_once: called once with the signal's name, from a thread, where one comes while there is nothing to be
                saved: no step would come soon. That is so until `saves` is set.
        """
        self.saves = False
        """Whether a step has been done that no checkpoint holds."""
        self._heard = 0
        self._before: dict[int, Any] = {}
        self._at_once = at_once
        self._lock = threading.Lock()
        self._wakeup = self._wakeup_before = -1

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other thread may listen
            if self._at_once:
                self._wake_a_thread()
            self._before = {one: signal.signal(one, self._hear) for one in SIGNALS}
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return self

    def __exit__(self, *error: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)
        self._before = {}
        if self._wakeup >= 0:
            signal.set_wakeup_fd(self._wakeup_before)
            os.close(self._wakeup)
            self._wakeup = -1

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._heard = number

    def _wake_a_thread(self) -> None:
        """The main thread may be in a library for minutes, and hears nothing meanwhile."""
        read, self._wakeup = os.pipe()
        os.set_blocking(self._wakeup, False)
        self._wakeup_before = signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(read,), name="stop", daemon=True).start()

    def _listen(self, read: int) -> None:
        while numbers := os.read(read, 64):
            for number in set(numbers).intersection(SIGNALS):
                self._heard = number
                self._end_at_once()
        os.close(read)

    def _end_at_once(self) -> None:
        with self._lock:
            if self._heard and not self.saves and self._at_once:
                at_once, self._at_once = self._at_once, None
                at_once(_name(self._heard))

    @contextmanager
    def nothing_to_save(self) -> Iterator[None]:
        """In this context, which begins behind a checkpoint, a signal need not wait for a step."""
        before, self.saves = self.saves, False
        self._end_at_once()  # heard since the ranks last asked each other
        try:
            yield
        finally:
            self.saves = before

    def ask(self, ranks: Ranks) -> Callable[[], str]:
        """Begin to ask all ranks; what comes back gives the name of the signal that one of them heard, or nothing.

        Every rank asks behind one step and takes the answer behind the next: no step waits for it.
        """
        answer = ranks.begin_max(self._heard)
        return lambda: _name(answer())


def _name(number: int) -> str:
    return signal.Signals(number).name if number else ""
