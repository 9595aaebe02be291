"""A `wsol` command cut into the tasks of a job array: python launch/submit.py cluster --jobs 16 --index SHARDS ...

Each task gets `--part I/N` of the command; behind the array one more job runs the command without it, which does
what failed tasks left and finishes. The command must be one that goes on where it was cut off.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import submitit

from wsol_dist.errors import UserError
from wsol_dist.launching.job import WsolJob
from wsol_dist.launching.local_job import wait_and_show
from wsol_dist.options import split_arguments

COMMANDS = ("cluster", "search")
"""Those that know --part and --dry-run."""


def main(argv: list[str]) -> int:
    """Entry of `launch/submit.py COMMAND` for these commands."""
    name, *words = argv
    assert name in COMMANDS, name
    parser = _parser(name)
    if not words or words[0] in ("-h", "--help"):
        parser.print_help()
        return 0 if words else 2
    own, rest = _without_unknown_flags(parser, words)
    if own.jobs < 1 or own.time < 1:
        raise UserError(f"--jobs and --time: given {own.jobs} and {own.time}, at least 1 is needed")
    from wsol_dist.cli import main as wsol

    # The command itself refuses what is wrong before anything is queued.
    if code := wsol([name, *rest, "--dry-run"]):
        return code
    array = Array(own, (name, *rest))
    if own.dry_run:
        return array.show()
    if own.cluster == "slurm" and shutil.which("sbatch") is None:
        raise UserError("--cluster slurm: SLURM is not installed here (no sbatch); use --cluster local")
    return array.submit_to_slurm() if own.cluster == "slurm" else array.run_here()


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python launch/submit.py {name}", description=__doc__, allow_abbrev=False, add_help=False
    )
    add = parser.add_argument
    add("--jobs", type=int, default=8, help="tasks of the array; default 8")
    add("--cluster", choices=("slurm", "local"), default="slurm", help="local: one after the other, here")
    add("--gpus-per-node", type=int, default=1, help="GPUs of a task (slurm); default 1")
    add("--cpus-per-proc", type=int, default=8, help="cores of a task (slurm); default 8")
    add("--time", type=int, default=24 * 60, help="limit of a task in minutes; default a day")
    add("--partition", help="SLURM partition")
    add("--account", help="SLURM account")
    add("--qos", help="SLURM quality of service")
    add(
        "--logs",
        type=Path,
        default=Path("runs/arrays"),
        help="folder of the tasks' logs; default runs/arrays",
    )
    add("--dry-run", action="store_true", help="print the job scripts and submit nothing")
    return parser


def _without_unknown_flags(
    parser: argparse.ArgumentParser, words: list[str]
) -> tuple[argparse.Namespace, list[str]]:
    """The array's own flags, and the command's words in their order; positional ones are the command's."""
    positional = []
    while words and not words[0].startswith("-"):
        positional.append(words.pop(0))
    own, rest = split_arguments(parser, words)
    return own, [*positional, *rest]


class Array:
    """The tasks, and the job behind them."""

    def __init__(self, own: argparse.Namespace, command: tuple[str, ...]) -> None:
        self.own, self.command = own, command
        self.tasks = [WsolJob((*command, "--part", f"{task}/{own.jobs}")) for task in range(1, own.jobs + 1)]
        self.last = WsolJob(command)

    def parameters(self, job: str, dependency: str | None = None) -> dict[str, Any]:
        """What a task asks SLURM for."""
        wanted = {
            "job_name": f"{self.command[0]}-{job}",
            "nodes": 1,
            "ntasks_per_node": 1,
            "cpus_per_task": self.own.cpus_per_proc,
            "gpus_per_node": self.own.gpus_per_node or None,
            "time": self.own.time,
            "partition": self.own.partition,
            "account": self.own.account,
            "qos": self.own.qos,
            "dependency": dependency,
            "stderr_to_stdout": True,
            # Since 22.05 srun does not take the job's cores for each task by itself.
            "srun_args": [f"--cpus-per-task={self.own.cpus_per_proc}"],
        }
        return {key: value for key, value in wanted.items() if value is not None}

    def show(self) -> int:
        """Print both job scripts as they would be submitted."""
        from submitit.slurm.slurm import _make_sbatch_string

        logs = self.own.logs
        command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(logs))}"
        for what, count, dependency in (("tasks", len(self.tasks), None), ("end", None, "afterany:TASKS")):
            shown = self.tasks[0].arguments if count else self.last.arguments
            print(f"# ---- {what}: wsol {shlex.join(shown)}")
            parameters = self.parameters(what, dependency)
            print(_make_sbatch_string(command=command, folder=logs, map_count=count, **parameters))
        return 0

    def submit_to_slurm(self) -> int:
        """Queue the array and the job that waits for it."""
        executor = submitit.SlurmExecutor(folder=self.own.logs)
        executor.update_parameters(**self.parameters("tasks"))
        try:
            with executor.batch():
                jobs = [executor.submit(task) for task in self.tasks]
            array = jobs[0].job_id.split("_")[0]
            executor = submitit.SlurmExecutor(folder=self.own.logs)
            executor.update_parameters(**self.parameters("end", f"afterany:{array}"))
            last = executor.submit(self.last)
        except submitit.core.utils.FailedJobError as error:
            reasons = [line for line in str(error).splitlines() if line.strip()]
            raise UserError(f"SLURM refused: {reasons[-1] if reasons else error}") from error
        print(f"array       job {array}, {len(jobs)} tasks, logs in {self.own.logs}")
        print(f"end         job {last.job_id}, log {last.paths.stdout}")
        return 0

    def run_here(self) -> int:
        """The tasks one after the other on this machine, then the end."""
        for job in (*self.tasks, self.last):
            executor = submitit.AutoExecutor(folder=self.own.logs, cluster="local")
            executor.update_parameters(timeout_min=self.own.time, stderr_to_stdout=True)
            if code := wait_and_show(executor.submit(job)):
                return code
        return 0
