"""A wish to stop: signals become a flag, and all ranks agree on it between two optimizer steps.

Imports no torch, so that a process can listen before the seconds that importing it takes.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from wsol_dist.ranks import Ranks

STOPPED = 75
"""Exit code of a training that is not through and that the same command continues: sysexits' EX_TEMPFAIL."""
STOPPED_LINE = "stopped: "
"""How the line begins that says so."""
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
"""Sent before a time limit (`--signal=USR2@120`), at a preemption, and by whoever ends a job."""


class Stop:
    """Listens to `SIGNALS` inside its `with` block, whatever listened before; outside it is never asked to stop.

    SLURM signals all processes of a job, torchrun and people often one of them. Each only notes the signal: saving
    is the work of all ranks together, at a step that they agree on.
    """

    def __init__(self) -> None:
        self._heard = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other thread may listen
            self._before = {one: signal.signal(one, self._hear) for one in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)
        self._before = {}

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._heard = number

    def ask(self, ranks: Ranks) -> Callable[[], str]:
        """Begin to ask all ranks; what comes back gives the name of the signal that one of them heard, or nothing.

        Every rank asks behind one step and takes the answer behind the next: no step waits for it.
        """
        answer = ranks.begin_max(self._heard)
        return lambda: _name(answer())


def _name(number: int) -> str:
    return signal.Signals(number).name if number else ""
