"""`wsol` with a fault at one rank and one moment:  python -m tests.e2e.reliability.inject FAULT RANK WHEN WORDS

FAULT is one of those in `FAULTS`, and WHEN the optimizer step, counted from 1; or `kill-writing`, where WHEN tells how
far the second checkpoint is; or `slow`, which makes every step of that rank WHEN + 0.1 seconds longer. The moment is
noted in `fault.json` in the working folder.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NOTE = Path("fault.json")


def note(**about: Any) -> None:
    """Write down that the fault comes now."""
    NOTE.write_text(json.dumps({"time": time.time(), "pid": os.getpid(), **about}))


def kill(step: int) -> None:
    note(step=step)
    os.kill(os.getpid(), signal.SIGKILL)


def hang(step: int) -> None:
    """As a read from a dead file server does: the thread sleeps, others run."""
    note(step=step)
    time.sleep(3600)


def hang_holding(step: int) -> None:
    """As a dead-lock inside a C extension does: Python's lock is held, no other thread runs."""
    note(step=step)
    ctypes.PyDLL(None).sleep(3600)


def freeze(step: int) -> None:
    """The whole process stops, and no thread of it can tell."""
    note(step=step)
    os.kill(os.getpid(), signal.SIGSTOP)


FAULTS: dict[str, Callable[[int], None]] = {
    "kill": kill,
    "hang": hang,
    "hang-holding": hang_holding,
    "freeze": freeze,
}


def at_step(fault: Callable[[int], None], rank: int, when: int) -> None:
    """Let it come in the middle of training, before the step's own work."""
    from wsol_dist.training.zero import ZeroEngine

    own_step = ZeroEngine.step

    def step(self: ZeroEngine, number: int, *args: Any, **kwargs: Any) -> Any:
        if (self.ranks.rank, number + 1) == (rank, when):
            fault(when)
        return own_step(self, number, *args, **kwargs)

    ZeroEngine.step = step  # type: ignore[method-assign]


def slow(rank: int, seconds: float) -> None:
    """Leave time to do something to a run of a small network."""
    from wsol_dist.training.zero import ZeroEngine

    own_step = ZeroEngine.step

    def step(self: ZeroEngine, *args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds if self.ranks.rank == rank else 0)
        return own_step(self, *args, **kwargs)

    ZeroEngine.step = step  # type: ignore[method-assign]


def while_writing(when: int) -> None:
    """Kill the rank that completes checkpoints when the second of them lies there by half.

    `when` 0: half of the weights are written; 1: everything is, but not yet under its name; 2: it has its name.
    """
    from wsol_dist.runs import checkpoint

    save, replace = checkpoint.save_weights, os.replace

    def torn(path: Path, *args: Any, **kwargs: Any) -> None:
        save(path, *args, **kwargs)
        if second() and when == 0:
            os.truncate(path, path.stat().st_size // 2)
            kill(0)

    def renamed(source: Any, target: Any) -> None:
        doomed = second() and ".unfinished" in str(source)
        if doomed and when == 1:
            kill(0)
        replace(source, target)
        if doomed and when == 2:
            kill(0)

    def second() -> bool:
        return bool(list(Path().rglob("checkpoints/step-*/state.json")))

    checkpoint.save_weights, os.replace = torn, renamed  # type: ignore[assignment]


if __name__ == "__main__":
    name, rank, when, *words = sys.argv[1:]
    if name == "kill-writing":
        while_writing(int(when))
    elif name == "slow":
        slow(int(rank), float(when) + 0.1)
    elif name != "none":
        at_step(FAULTS[name], int(rank), int(when))
    from wsol_dist.cli import main

    sys.exit(main(words))
