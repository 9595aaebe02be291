"""What can happen to a running job: the rows of docs/reliability.md, and where their measurements are kept."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

MEASURED = Path(__file__).with_name("measured.json")
RECORD = "WSOL_MEASURED"
"""Environment variable: the file that tests add their measurements to."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A fault; its measurements are under the test's name."""

    fault: str
    then: str
    limit: str
    """How long it may take until every process of the job has ended, or until it goes on by itself."""
    test: str
    """Below tests/: FILE::FUNCTION."""


def measured(test: str, **seconds: float) -> None:
    """Add a test's measurements to the file that is named in the environment, if one is.

    Args:
        seconds: `ended`: from the fault until every process had ended; `back`: from the new start until the first new
            step, or under SLURM from the fault until then.
    """
    name = os.environ.get(RECORD)
    if not name:
        return
    path = Path(name)
    known = json.loads(path.read_text()) if path.is_file() else {}
    load = {"cores": float(len(os.sched_getaffinity(0))), "load": os.getloadavg()[0]}
    known[test] = {key: round(value, 1) for key, value in (seconds | load).items()}
    path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


HERE, SLURM = "e2e/reliability/test_faults.py::", "slurm/test_requeue.py::"
KILLED = (
    "the other ranks lose their peer and end with its name; the run goes on from the newest whole checkpoint"
)
STOPPED = "all ranks stop at one step, write its checkpoint, "
ROWS = [
    Row(
        fault="SIGUSR1, SIGUSR2 or SIGTERM to one rank or all, outside SLURM",
        then=f"{STOPPED}say how to go on; exit code 75",
        limit="two steps and a checkpoint",
        test=HERE + "test_a_job_of_submitit_is_told_to_stop",
    ),
    Row(
        fault="SIGTERM to torchrun, whose ranks have loader processes",
        then=f"{STOPPED}say how to go on (torchrun itself ends with 1)",
        limit="two steps and a checkpoint; torchrun kills its ranks after 30 s",
        test=HERE + "test_torchrun_is_told_to_end",
    ),
    Row(
        fault="a SLURM job's time limit, `--signal=USR2@N` before it",
        then=f"{STOPPED}and requeue the job; it goes on by itself, no step is done twice",
        limit="two steps and a checkpoint, of the 120 s that the signal comes before the limit",
        test=SLURM + "test_a_time_limit",
    ),
    Row(
        fault="`scancel --signal=USR2`",
        then="the same",
        limit="two steps and a checkpoint",
        test=SLURM + "test_a_signal_behind_a_restart_of_slurmctld",
    ),
    Row(
        fault="preemption by a job of another partition",
        then="the same, on SIGTERM",
        limit="two steps and a checkpoint, within the partition's GraceTime",
        test=SLURM + "test_a_preemption",
    ),
    Row(
        fault="a signal in the first step, or before it",
        then="rank 0 requeues the job, whatever the others do: there is nothing to save",
        limit="at once",
        test=SLURM + "test_a_signal_in_the_first_step",
    ),
    Row(
        fault="`scancel`",
        then="all ranks stop at one step and write its checkpoint; the job is not requeued",
        limit="SLURM's KillWait",
        test=SLURM + "test_a_job_that_is_cancelled_stays_away",
    ),
    Row(
        fault="the time limit of an evaluator that follows a run, `scancel --signal=USR2`, a preemption",
        then="it is queued again and scores what it was busy with from the start; what was scored is not scored twice",
        limit="at once",
        test=SLURM + "test_an_evaluator_that_follows",
    ),
    Row(
        fault="SIGKILL of one rank at a random step",
        then=KILLED,
        limit="60 s",
        test=HERE + "test_a_rank_is_killed_at_a_random_step",
    ),
    Row(
        fault="SIGKILL of rank 0 while it writes a checkpoint",
        then="the checkpoint has no name yet, or is whole; the next start sweeps what is half away, and goes on",
        limit="60 s",
        test=HERE + "test_rank_0_is_killed_while_it_writes_a_checkpoint",
    ),
    Row(
        fault="SIGKILL of a node's slurmd",
        then="SLURM takes the node for dead (SlurmdTimeout) and requeues the job; it goes on from the newest whole "
        "checkpoint, the steps behind it are done again and count once",
        limit="SLURM's SlurmdTimeout (15 s there, 300 s by default) and its next look",
        test=SLURM + "test_the_slurmd_of_a_node_is_killed",
    ),
    Row(
        fault="SIGKILL and new start of slurmctld",
        then="the job trains on meanwhile; back is the controller",
        limit="none: nothing waits",
        test=SLURM + "test_a_signal_behind_a_restart_of_slurmctld[slurmctld]",
    ),
    Row(
        fault="a hung rank: its thread sleeps",
        then="every rank writes its stack into logs/hang-TIME/, one says so and requeues the job; exit code 75",
        limit="train.hang_timeout_s (600 s; 5 s in the test) and 60 s",
        test=HERE + "test_a_rank_hangs",
    ),
    Row(
        fault="a hung rank: a C extension holds Python's lock",
        then="the same; the hung rank's own stack comes from faulthandler, on stderr, and its exit code is 1",
        limit="train.hang_timeout_s and 90 s",
        test=HERE + "test_a_rank_hangs[hang-holding]",
    ),
    Row(
        fault="a hung rank under SLURM: rank 0 is frozen (SIGSTOP)",
        then="another rank names it, whose stack nobody can have, and requeues the job; SLURM kills the frozen one",
        limit="train.hang_timeout_s and SLURM's KillWait",
        test=SLURM + "test_a_hung_rank",
    ),
    Row(
        fault="a full disk, then a read-only one",
        then="exit 2 with one line, before or behind a checkpoint; no half one stays; with space the same command "
        "goes on",
        limit="at once",
        test=HERE + "test_a_disk_that_is_full_and_then_read_only",
    ),
    Row(
        fault="a loss that is not a number",
        then="exit 2 with one line on all ranks; no checkpoint of it is written, also where a stop is asked for",
        limit="at the next log row",
        test=HERE + "test_a_loss_that_is_not_a_number",
    ),
    Row(
        fault="W&B cannot be reached",
        then="one line; training goes on, and the log is kept for `wandb sync`",
        limit="none; the start waits for 2.5 s at most",
        test=HERE + "test_wandb_cannot_be_reached",
    ),
    Row(
        fault="a second job on the same run folder",
        then="exit 2, the first goes on undisturbed",
        limit="at once",
        test="e2e/faults/test_runs.py::test_a_second_training_is_refused_until_the_first_is_killed",
    ),
]
