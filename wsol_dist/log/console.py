"""What a job says on its console: a progress bar on a terminal, plain lines with ETA everywhere else."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from wsol_dist.log.progress import Eta, duration_text

_SHORT = {
    "train/loss": ("loss", "{:.4f}"),
    "train/lr": ("lr", "{:.2e}"),
    "train/images_per_s": ("images/s", "{:.1f}"),
    "train/data_wait_pct": ("wait %", "{:.1f}"),
    "train/memory_gib": ("GiB", "{:.2f}"),
    "train/epoch": ("epoch", "{:.2f}"),
}


def scalar_text(scalars: dict[str, float]) -> str:
    """The scalars in one line: the known ones first under short names, then the rest under their own."""
    known = [
        f"{short} {form.format(scalars[name])}" for name, (short, form) in _SHORT.items() if name in scalars
    ]
    rest = [
        f"{name.removeprefix('train/')} {value:.4g}" for name, value in scalars.items() if name not in _SHORT
    ]
    return "  ".join(known + rest)


class PlainConsole:
    """One line a row: time, step, scalars, ETA. For SLURM logs, pipes and files."""

    def __init__(self, total: int | None, *, job: str, stream: TextIO | None = None) -> None:
        self._total, self._job, self._stream = total, job, stream or sys.stdout
        self._eta = Eta(total)

    def log(self, scalars: dict[str, float], *, step: int) -> None:
        eta = self._eta.update(step)
        total = f"/{self._total}" if self._total else ""
        tail = f"  ETA {duration_text(eta)}" if eta is not None else ""
        self.line(f"{self._job} {step}{total}  {scalar_text(scalars)}{tail}")

    def advance(self, step: int) -> None:
        """Nothing: a log file gets a line a row, not one a step."""

    def line(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {text}", file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing is held open."""


class BarConsole:
    """A live progress bar; messages scroll above it."""

    def __init__(self, total: int | None, *, job: str, console: Console | None = None) -> None:
        self._console, self._job, self._total = console or Console(), job, total
        self._eta = Eta(total)
        self._eta_text = "-:--:--"
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def log(self, scalars: dict[str, float], *, step: int) -> None:
        eta = self._eta.update(step)
        self._eta_text = duration_text(eta) if eta is not None else "-:--:--"
        self._bar().update(self._task, completed=step, eta=self._eta_text, scalars=scalar_text(scalars))

    def advance(self, step: int) -> None:
        self._bar().update(self._task, completed=step)

    def line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _bar(self) -> Progress:
        """The bar, shown from the first row on: a job that only prints lines never shows an empty one."""
        if self._progress is None:
            # The scalars come last: a narrow terminal cuts them and never the step or the ETA.
            self._progress = Progress(
                TextColumn("{task.description}"),
                MofNCompleteColumn(),
                BarColumn(bar_width=20),
                TextColumn("ETA {task.fields[eta]}"),
                TextColumn("{task.fields[scalars]}", markup=False),
                console=self._console,
            )
            self._task = self._progress.add_task(self._job, total=self._total, eta=self._eta_text, scalars="")
            self._progress.start()
        return self._progress


def open_console(total: int | None, *, job: str) -> PlainConsole | BarConsole:
    """A bar where stdout is a terminal, else plain lines."""
    if sys.stdout.isatty():
        return BarConsole(total, job=job)
    return PlainConsole(total, job=job)
