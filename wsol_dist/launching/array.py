"""A `wsol` command cut into the tasks of a job array: python launch/submit.py cluster --jobs 16 --index SHARDS ...

Each task gets `--part I/N` of the command; behind the array one more job runs the command without it, which does
what failed tasks left and finishes. The command must be one that goes on where it was cut off.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import submitit
import tyro
from pydantic import NonNegativeInt, PositiveInt

from wsol_dist.errors import UserError
from wsol_dist.launching.job import WsolJob
from wsol_dist.launching.local_job import wait_and_show
from wsol_dist.launching.submission import minutes
from wsol_dist.options import Overrides, Switch

COMMANDS = ("cluster", "search")
"""Those that know --part and --dry-run."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of a job array; all others are the command's."""

    command: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="COMMAND")]
    """What is cut into tasks: cluster or search."""
    jobs: PositiveInt = 8
    """Tasks of the array."""
    cluster: Literal["slurm", "local"] = "slurm"
    """local: one after the other, here."""
    gpus_per_node: NonNegativeInt = 1
    """GPUs of a task (slurm)."""
    cpus_per_proc: PositiveInt = 8
    """Cores of a task (slurm)."""
    time: str = "1-00:00:00"
    """Limit of a task: minutes, HH:MM:SS or D-HH:MM:SS."""
    partition: str | None = None
    """SLURM partition."""
    account: str | None = None
    """SLURM account."""
    qos: str | None = None
    """SLURM quality of service."""
    logs: Path = Path("runs/arrays")
    """Folder of the tasks' logs."""
    dry_run: Switch = False
    """Print the job scripts and submit nothing."""
    overrides: Overrides = ()


def run(options: Options) -> int:
    """Have the command check its flags, then submit it in tasks."""
    from wsol_dist.cli import execute

    command = (options.command, *options.overrides)
    if "--help" in command:
        return execute(command)
    # The command itself refuses what is wrong before anything is queued.
    if code := execute([*command, "--dry-run"]):
        return code
    array = Array(options, command)
    if options.dry_run:
        return array.show()
    if options.cluster == "slurm" and shutil.which("sbatch") is None:
        raise UserError("--cluster slurm: SLURM is not installed here (no sbatch); use --cluster local")
    return array.submit_to_slurm() if options.cluster == "slurm" else array.run_here()


class Array:
    """The tasks, and the job behind them."""

    def __init__(self, options: Options, command: tuple[str, ...]) -> None:
        self.options, self.command, self.minutes = options, command, minutes(options.time)
        self.tasks = [
            WsolJob((*command, "--part", f"{task}/{options.jobs}")) for task in range(1, options.jobs + 1)
        ]
        self.last = WsolJob(command)

    def parameters(self, job: str, dependency: str | None = None) -> dict[str, Any]:
        """What a task asks SLURM for."""
        wanted = {
            "job_name": f"{self.command[0]}-{job}",
            "nodes": 1,
            "ntasks_per_node": 1,
            "cpus_per_task": self.options.cpus_per_proc,
            "gpus_per_node": self.options.gpus_per_node or None,
            "time": self.minutes,
            "partition": self.options.partition,
            "account": self.options.account,
            "qos": self.options.qos,
            "dependency": dependency,
            "stderr_to_stdout": True,
            # Since 22.05 srun does not take the job's cores for each task by itself.
            "srun_args": [f"--cpus-per-task={self.options.cpus_per_proc}"],
        }
        return {key: value for key, value in wanted.items() if value is not None}

    def show(self) -> int:
        """Print both job scripts as they would be submitted."""
        from submitit.slurm.slurm import _make_sbatch_string

        logs = self.options.logs
        command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(logs))}"
        for what, count, dependency in (("tasks", len(self.tasks), None), ("end", None, "afterany:TASKS")):
            shown = self.tasks[0].arguments if count else self.last.arguments
            print(f"# ---- {what}: wsol {shlex.join(shown)}")
            parameters = self.parameters(what, dependency)
            print(_make_sbatch_string(command=command, folder=logs, map_count=count, **parameters))
        return 0

    def submit_to_slurm(self) -> int:
        """Queue the array and the job that waits for it."""
        executor = submitit.SlurmExecutor(folder=self.options.logs)
        executor.update_parameters(**self.parameters("tasks"))
        try:
            with executor.batch():
                jobs = [executor.submit(task) for task in self.tasks]
            array = jobs[0].job_id.split("_")[0]
            executor = submitit.SlurmExecutor(folder=self.options.logs)
            executor.update_parameters(**self.parameters("end", f"afterany:{array}"))
            last = executor.submit(self.last)
        except submitit.core.utils.FailedJobError as error:
            reasons = [line for line in str(error).splitlines() if line.strip()]
            raise UserError(f"SLURM refused: {reasons[-1] if reasons else error}") from error
        print(f"array       job {array}, {len(jobs)} tasks, logs in {self.options.logs}")
        print(f"end         job {last.job_id}, log {last.paths.stdout}")
        return 0

    def run_here(self) -> int:
        """The tasks one after the other on this machine, then the end."""
        for job in (*self.tasks, self.last):
            executor = submitit.AutoExecutor(folder=self.options.logs, cluster="local")
            executor.update_parameters(timeout_min=self.minutes, stderr_to_stdout=True)
            if code := wait_and_show(executor.submit(job)):
                return code
        return 0
