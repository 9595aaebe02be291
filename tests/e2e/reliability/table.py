"""The page made of rows and measurements: `python -m tests.e2e.reliability.table` writes docs/reliability.md."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.reliability.rows import MEASURED, ROWS

PAGE = Path(__file__).parents[3] / "docs" / "reliability.md"
HEAD = """# Reliability

What can happen to a running job, what it then does, and how long it takes to be back. This page is written by
`python -m tests.e2e.reliability.table` from `tests/e2e/reliability/rows.py` and from what the tests measured
themselves, where `WSOL_MEASURED` names a file: `pytest tests/e2e/reliability tests/slurm/test_requeue.py`.
What is refused with which words stands on [the page of faults](faults.md), how jobs start on [Jobs on SLURM](slurm.md).

**Stop and go on.** Each rank listens to USR1, USR2 and TERM from before torch is imported, whoever listened before
(submitit does). A signal only sets a flag. Behind each optimizer step the ranks exchange their flags, and read the
answer behind the next, so that no step waits for it (`bench/stop.py`). Then all stop at the same step, write a whole
checkpoint, close the log, and rank 0 calls `scontrol requeue` before any rank ends, since SLURM does not start a job
again that ended by itself. Exit code 75 means: not through, the same command goes on. `train.max_requeues` bounds it.
The continued run has the losses of one that was never stopped: bit for bit at the same number of ranks and ZeRO stage
(CPU, float32), to rounding at another. What was not yet in a log row is in the checkpoint, so that rows of several
steps are the same, too. A stop at a step that is to be scored leaves the scoring to the continued run.

What comes while Python imports waits for that. Where nothing is to be saved, before the end of the first step and while
a checkpoint is scored inside training, no step would come for minutes: there rank 0 of a SLURM job requeues it at once,
from a thread, whatever the other ranks do (outside SLURM the signal waits). A job that a person ends with `scancel`
gets SIGTERM, too, and is not requeued.

**Hangs.** A thread beside each rank ends the job where no optimizer step comes for `train.hang_timeout_s`. The first
step after a start and scoring inside training do not count; a hang in those ends with the collective's own time-out of
30 minutes. The stacks of all ranks are in `RUN/logs/hang-TIME/`.

**Not covered.** A rank that is killed, or fails, ends its job with an error, and SLURM does not requeue it: the same
command goes on. So it is with a signal before `wsol train` runs: in the first moment of its ranks, and while the tasks
tell their samples. SLURM lets a requeued job wait for two minutes before it starts; the tests skip that.

*ended*: from the fault until every process had ended, or the job was back in the queue. *back*: outside SLURM from the
new start, under SLURM from the fault, until the first new optimizer step is logged; most of it is importing torch and
DeepSpeed. An empty cell was not measured yet. """


def render() -> str:
    """The whole page."""
    tests = json.loads(MEASURED.read_text())
    cores = {f"{one['cores']:g}" for one in tests.values()}
    lines = [
        f"{HEAD}Measured on {' and '.join(sorted(cores))} CPU cores; *load* is what waited",
        "for them at the time, of other work too: with more than cores, everything takes that much longer.",
        "",
        "| fault | what happens | may take | ended, s | back, s | load | test |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        seconds = tests.get(row.test.partition("::")[2], {})
        numbers = " | ".join(
            f"{seconds[key]:g}" if key in seconds else "" for key in ("ended", "back", "load")
        )
        lines.append(
            f"| {row.fault} | {row.then} | {row.limit} | {numbers} | `{row.test.partition('[')[0]}` |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
