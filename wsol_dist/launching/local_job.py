"""A job that submitit runs on this machine: its log on the terminal while it runs, and at the end why it failed."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

import submitit

from wsol_dist.processes.first_error import HEADER
from wsol_dist.processes.stop import STOPPED, STOPPED_LINE

LOOK_EVERY_S = 0.5
MISTAKE = "error: "
"""How the command line begins the lines of a user's mistake."""


def wait_and_show(job: Any) -> int:
    """Copy a local job's log to the terminal until it ends; returns its exit code: 0, 1 a failure, 2 a mistake."""
    if isinstance(job, submitit.DebugJob):
        job.result()
        return 0
    print("            starting: importing torch and DeepSpeed takes about 20 s", flush=True)
    shown, done = 0, False
    # The job is a process of its own: whoever ends this one wants it to end, too.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while not done:
            done = job.done()  # asked before the log is read, which is then complete
            shown += show_from(job.paths.stdout, shown, whole_lines=not done)
            time.sleep(0 if done else LOOK_EVERY_S)
    except KeyboardInterrupt:
        job.cancel()
        print("\nstopped; the same command goes on from the newest checkpoint", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    failed = [task for task in map(job.task, range(job.num_tasks)) if not ended_well(task)]
    return explain(job, failed) if failed else 0


def show_from(log: Path, start: int, *, whole_lines: bool) -> int:
    """Print a log from a byte on, if wanted up to its last whole line; returns the number of bytes shown."""
    if not log.exists():
        return 0
    with log.open("rb") as file:
        file.seek(start)
        text = file.read()
    if whole_lines:
        text = text[: text.rfind(b"\n") + 1]
    sys.stdout.write(without_noise(text.decode(errors="replace")))
    sys.stdout.flush()
    return len(text)


def ended_well(task: Any) -> bool:
    """Whether a task that has ended returned. Without a result it was killed, or called `sys.exit`."""
    return task.paths.result_pickle.exists() and task.exception() is None


def explain(job: Any, failed: list[Any]) -> int:
    """Print where the log is and why the tasks failed, each reason once; returns the exit code."""
    logs = {task: _log_lines(task) for task in failed}
    if stopped := {line for log in logs.values() for line in log if line.startswith(STOPPED_LINE)}:
        print("\n".join(stopped), file=sys.stderr)
        return STOPPED
    # Where the ranks agreed on a first error, the task that tells it speaks for all.
    logs = {task: log for task, log in logs.items() if any(line.startswith(HEADER) for line in log)} or logs
    mistaken = [task for task, log in logs.items() if _mistakes(log)]
    # A mistake is the cause; the other tasks then only lost their peer.
    reasons = [line for task in mistaken for line in _mistakes(logs[task])]
    reasons = reasons or [f"{MISTAKE}{_who(task, log)}: {_last_words(log)}" for task, log in logs.items()]
    print(f"job {job.job_id} failed; its log: {(mistaken or list(logs))[0].paths.stdout}", file=sys.stderr)
    print("\n".join(dict.fromkeys(reasons)), file=sys.stderr)
    return 2 if mistaken else 1


def _who(task: Any, log: list[str]) -> str:
    """The rank that failed first, where the log tells of it; else whose log this is."""
    told = [line for line in log if line.startswith(HEADER)]
    return told[-1].removeprefix(HEADER) if told else f"task {task.task_id}"


def _mistakes(log: list[str]) -> list[str]:
    return [line for line in log if line.startswith(MISTAKE)]


def _log_lines(task: Any) -> list[str]:
    try:
        text = task.paths.stdout.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in without_noise(text).splitlines() if line.strip()]


def _last_words(log: list[str]) -> str:
    """What a task's log ends with: of a traceback that is the exception."""
    words = [line for line in log if not line.startswith("submitit ")]
    return words[-1] if words else "ended without a word"


def without_noise(text: str) -> str:
    """A log without submitit's own lines about pickles."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("submitit INFO"))
