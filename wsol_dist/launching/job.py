"""What submitit runs on the nodes: `wsol` with fixed arguments. Holds words only, and imports late."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from wsol_dist.processes.ports import rendezvous_port

MAIN_LOG = "WSOL_MAIN_LOG"
"""Environment variable that names the first task's log: each task of submitit has a log of its own."""


@dataclass(frozen=True)
class WsolJob:
    """A `wsol` command line as a picklable callable."""

    arguments: tuple[str, ...]

    def __call__(self) -> int:
        """Run the command on this task.

        Raises:
            SystemExit: the command's exit code, so that scheduler and dependent jobs see a failure.
        """
        describe_ranks()
        from wsol_dist.cli import main

        code = main(list(self.arguments))
        if code:
            sys.exit(code)
        return code


def describe_ranks() -> None:
    """Say in torchrun's environment variables what submitit knows of this task."""
    import submitit

    environment = submitit.JobEnvironment()
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)  # of a job that submitted this one
    # All GPUs of the node stay visible: DeepSpeed picks the one of LOCAL_RANK itself.
    submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    os.environ["MASTER_PORT"] = str(rendezvous_port(environment.job_id))
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // max(1, local)))
    os.environ[MAIN_LOG] = str(main_log())
    if environment.num_tasks == 1:
        os.environ["MASTER_ADDR"] = "127.0.0.1"


def main_log() -> Path:
    """The log of this job's first task."""
    import submitit

    environment = submitit.JobEnvironment()
    return submitit.core.utils.JobPaths(environment.paths.folder, environment.job_id, 0).stdout
