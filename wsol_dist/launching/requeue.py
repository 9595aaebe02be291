"""How a training that was stopped goes on: SLURM starts its job again, elsewhere a person or a loop does."""

from __future__ import annotations

import os
import subprocess

SCONTROL_S = 60.0
"""The longest wait for a scheduler that does not answer."""
BY_HAND = "the same command goes on from the newest checkpoint"


def requeue(*, limit: int) -> str:
    """Put the SLURM job of this process back into the queue; one rank calls it, with everything written.

    SLURM ends the job at once: nothing that is to happen may be left. A job that ends by itself, even when it was
    told to, is not started again by SLURM: hence before the end, and not by an exit code.

    Args:
        limit: the job is not requeued when SLURM has started it again this often.

    Returns:
        One line on what happens next.
    """
    job = os.environ.get("SLURM_JOB_ID", "")
    if not job:
        return BY_HAND
    count = os.environ.get("SLURM_RESTART_COUNT", "0")
    restarts = int(count) if count.isdigit() else 0
    if restarts >= limit:
        return f"job {job} was started again {restarts} times (train.max_requeues {limit}); {BY_HAND}"
    try:
        state = _ask("squeue", "--noheader", f"--jobs={job}", "--format=%T %r").stdout.strip()
        if state.startswith("COMPLETING") and "TimeLimit" not in state:
            # A requeue would bring back what a person ended with `scancel`.
            return f"job {job} was cancelled, or SLURM itself starts it again; if not, {BY_HAND}"
        done = _ask("scontrol", "requeue", job)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"job {job} is not requeued ({' '.join(str(error).split())}); {BY_HAND}"
    if done.returncode:
        return f"job {job} is not requeued ({' '.join((done.stderr or done.stdout).split())}); {BY_HAND}"
    return f"job {job} is requeued, restart {restarts + 1} of at most {limit}"


def _ask(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=SCONTROL_S, check=False)
