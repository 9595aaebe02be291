"""A `wsol` command cut into the tasks of a job array: python launch/submit.py cluster --jobs 16 --index SHARDS ...

Each task gets `--part I/N` of the command; behind the array one more job runs the command without it, which does
what failed tasks left and finishes. The command must be one that goes on where it was cut off.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import submitit
import tyro
from pydantic import NonNegativeInt, PositiveInt

from wsol_dist.errors import UserError
from wsol_dist.launching.job import WsolJob
from wsol_dist.launching.local_job import wait_and_show
from wsol_dist.launching.slurm import SlurmOptions, check_slurm, print_script, submit
from wsol_dist.options import Overrides

COMMANDS = ("cluster", "search")
"""Those that know --part and --dry-run."""


@dataclass(frozen=True, kw_only=True)
class Options(SlurmOptions):
    """The flags of a job array; all others are the command's."""

    command: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="COMMAND")]
    """What is cut into tasks: cluster or search."""
    jobs: PositiveInt = 8
    """Tasks of the array."""
    cluster: Literal["slurm", "local"] = "slurm"
    """local: one after the other, here."""
    gpus_per_node: NonNegativeInt = 1
    """GPUs of a task (slurm)."""
    logs: Path = Path("runs/arrays")
    """Folder of the tasks' logs."""
    overrides: Overrides = ()


def run(options: Options) -> int:
    """Have the command check its flags, then submit it in tasks."""
    from wsol_dist.cli import execute

    if options.command not in COMMANDS:
        raise UserError(f"{options.command}: no command for an array; allowed: {', '.join(COMMANDS)}")
    command = (options.command, *options.overrides)
    if "--help" in command:
        return execute(command)
    # The command itself refuses what is wrong before anything is queued.
    if code := execute([*command, "--dry-run"]):
        return code
    tasks = [WsolJob((*command, "--part", f"{task}/{options.jobs}")) for task in range(1, options.jobs + 1)]
    if options.dry_run:
        wanted = _parameters(options, "tasks")
        print_script("tasks", tasks[0], logs=options.logs, map_count=len(tasks), **wanted)
        print_script("end", WsolJob(command), logs=options.logs, **_parameters(options, "end", after="TASKS"))
        return 0
    if options.cluster == "local":
        return _run_here([*tasks, WsolJob(command)], options)
    check_slurm()
    first, *_ = submit(tasks, logs=options.logs, array=True, **_parameters(options, "tasks"))
    array = first.job_id.split("_")[0]
    (last,) = submit([WsolJob(command)], logs=options.logs, **_parameters(options, "end", after=array))
    print(f"array       job {array}, {len(tasks)} tasks, logs in {options.logs}")
    print(f"end         job {last.job_id}, log {last.paths.stdout}")
    return 0


def _parameters(options: Options, what: str, *, after: str | None = None) -> dict[str, Any]:
    """What the tasks, and the job behind them, ask SLURM for."""
    return options.parameters(
        f"{options.command}-{what}",
        gpus=options.gpus_per_node,
        nodes=1,
        ntasks_per_node=1,
        dependency=after and f"afterany:{after}",
    )


def _run_here(jobs: list[WsolJob], options: Options) -> int:
    """The jobs one after the other on this machine."""
    for job in jobs:
        executor = submitit.AutoExecutor(folder=options.logs, cluster="local")
        executor.update_parameters(timeout_min=options.minutes, stderr_to_stdout=True)
        if code := wait_and_show(executor.submit(job)):
            return code
    return 0
