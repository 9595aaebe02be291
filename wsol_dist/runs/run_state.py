"""What the jobs of a run tell one another in its folder: the best checkpoint, those in use, and when training ended."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wsol_dist.files import write_atomically

CONFIG_FILE = "config.yaml"
"""The resolved recipe, also of a checkpoint and of an exported model."""
BEST_FILE = "best.json"
"""Which checkpoint is the best, and by what."""
FINISHED_FILE = "finished"
"""Holds the last step; there when training is through."""
BEFORE_FOLDER = "before"
"""Holds the folders of the runs that a recipe trains first."""
_IN_USE = Path("checkpoints") / ".in-use"
_IN_USE_S = 6 * 3600.0
"""A mark this old is of a job that was killed and never came back."""


def write_best(run: Path, best: dict[str, Any]) -> None:
    """Point at the best checkpoint; `step` is among the keys."""
    write_atomically(run / BEST_FILE, (json.dumps(best, indent=1, allow_nan=False) + "\n").encode())


def read_best(run: Path) -> dict[str, Any] | None:
    """What `write_best` wrote; None where nothing was, or it is damaged."""
    try:
        best = json.loads((run / BEST_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return best if isinstance(best, dict) and isinstance(best.get("step"), int) else None


@contextmanager
def in_use(run: Path, step: int) -> Iterator[None]:
    """Keep a checkpoint from being removed while another job reads it. It may be gone already: look after."""
    mark = run / _IN_USE / str(step)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def kept_steps(run: Path) -> set[int]:
    """Steps of the checkpoints that must not be removed now: the best, and those in use."""
    best = read_best(run)
    steps = set() if best is None else {int(best["step"])}
    for mark in (run / _IN_USE).glob("*"):
        try:
            if time.time() - mark.stat().st_mtime < _IN_USE_S:
                steps.add(int(mark.name))
        except (FileNotFoundError, ValueError):
            continue
    return steps


def mark_finished(run: Path, step: int) -> None:
    """Say that training is through; after its last checkpoint."""
    write_atomically(run / FINISHED_FILE, f"{step}\n".encode())


def finished_step(run: Path) -> int | None:
    """The last step of a training that is through; None before."""
    try:
        return int((run / FINISHED_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
