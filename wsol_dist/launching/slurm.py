"""What all submissions share: the flags that ask SLURM for something, its parameters, its scripts, its refusals."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from pydantic import PositiveInt

from wsol_dist.errors import UserError
from wsol_dist.launching.job import WsolJob
from wsol_dist.options import Switch


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """Flags of every submission."""

    cpus_per_proc: PositiveInt = 8
    """Cores for each process (slurm)."""
    partition: str | None = None
    """SLURM partition."""
    account: str | None = None
    """SLURM account."""
    qos: str | None = None
    """SLURM quality of service."""
    time: str = "1-00:00:00"
    """Limit of a job: minutes, HH:MM:SS or D-HH:MM:SS."""
    dry_run: Switch = False
    """Print the job scripts and submit nothing."""

    def __post_init__(self) -> None:
        _ = self.minutes  # refused before anything is written

    @property
    def minutes(self) -> int:
        """The limit in whole minutes, rounded up.

        Raises:
            ValueError: it is not written as SLURM writes it, or no time at all.
        """
        match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", self.time)
        if match is None:
            raise ValueError(f"--time: {self.time!r} given; write minutes, HH:MM:SS or D-HH:MM:SS")
        days, *parts = (None if part is None else int(part) for part in match.groups())
        if days is None and parts[2] is None:  # MM or MM:SS
            parts = [0, *parts[:2]]
        hours, mins, seconds = (part or 0 for part in parts)
        if not (limit := (days or 0) * 1440 + hours * 60 + mins + (seconds > 0)):
            raise ValueError(f"--time: {self.time!r} given; at least a minute is needed")
        return limit

    def parameters(self, name: str, *, gpus: int, srun: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
        """What a job asks SLURM for, in submitit's words; `more` adds to it, without those that are None."""
        wanted = {
            "job_name": name,
            "cpus_per_task": self.cpus_per_proc,
            "gpus_per_node": gpus or None,
            "time": self.minutes,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "stderr_to_stdout": True,
            # Since 22.05 srun does not take the job's cores for each task by itself.
            "srun_args": [*srun, f"--cpus-per-task={self.cpus_per_proc}"],
        }
        return {key: value for key, value in (wanted | more).items() if value is not None}


def check_slurm() -> None:
    """Refuse a machine from which nothing can be submitted.

    Raises:
        UserError: there is no sbatch.
    """
    if shutil.which("sbatch") is None:
        raise UserError(
            "--cluster slurm: SLURM is not installed here (no sbatch); use --cluster local, or --dry-run"
        )


def print_script(
    title: str, job: WsolJob, *, logs: Path, map_count: int | None = None, **parameters: Any
) -> None:
    """Print a job script as it would be submitted."""
    from submitit.slurm.slurm import _make_sbatch_string

    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(logs))}"
    print(f"# ---- {title}: wsol {shlex.join(job.arguments)}")
    print(_make_sbatch_string(command=command, folder=logs, map_count=map_count, **parameters))


def submit(jobs: list[WsolJob], *, logs: Path, array: bool = False, **parameters: Any) -> list[Any]:
    """Queue jobs, or the tasks of one array; returns submitit's.

    Raises:
        UserError: SLURM refuses them.
    """
    executor = submitit.SlurmExecutor(folder=logs)
    executor.update_parameters(**parameters)
    try:
        with executor.batch() if array else nullcontext():
            return [executor.submit(job) for job in jobs]
    except submitit.core.utils.FailedJobError as error:
        reasons = [line for line in str(error).splitlines() if line.strip()]
        raise UserError(
            f"SLURM refused the {parameters['job_name']} job: {reasons[-1] if reasons else error}"
        ) from error
