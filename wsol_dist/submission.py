"""Submit a training and the evaluator job behind it: python launch/submit.py --nodes 8 [RECIPE] [overrides].

Everything is checked before anything is queued. On SLURM the jobs wait for their nodes; with --cluster local they
run on this machine, one after the other, and their log is shown.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import submitit

from wsol_dist.commands.train import check, prepare_folder
from wsol_dist.config import Config, parse_with_recipe
from wsol_dist.errors import UserError
from wsol_dist.job import WsolJob

DEFAULT_RECIPE = "molt-imagenet"
CLUSTERS = ("slurm", "local", "debug")


def main(argv: list[str]) -> int:
    """Entry of `launch/submit.py`."""
    own, config = parse_with_recipe(arguments(), argv)
    if own.nodes < 1:
        raise UserError(f"--nodes: given {own.nodes}, at least 1 is needed")
    if own.cluster != "slurm" and own.nodes > 1:
        raise UserError(
            f"--nodes: given {own.nodes}, but --cluster {own.cluster} has this one machine; use --nodes 1"
        )
    procs = own.procs_per_node if own.procs_per_node is not None else gpus_per_node(own)
    if procs < 1:
        raise UserError(f"--procs-per-node: given {procs}, at least 1 is needed")
    folder = (own.out or Path("runs") / config.name).resolve()
    plan = Plan(own, config, folder, procs)
    if own.dry_run:
        return plan.show()
    if own.cluster == "slurm" and shutil.which("sbatch") is None:
        raise UserError(
            "--cluster slurm: SLURM is not installed here (no sbatch); use --cluster local, or --dry-run"
        )
    check(config, world=own.nodes * procs)
    prepare_folder(config, folder, write=True)
    mark_started(folder)
    return plan.submit()


def arguments() -> argparse.ArgumentParser:
    """The command line, besides the recipe's overrides."""
    parser = argparse.ArgumentParser(
        prog="python launch/submit.py", description=__doc__, allow_abbrev=False, add_help=False
    )
    parser.add_argument(
        "recipe", nargs="?", default=DEFAULT_RECIPE, help=f"recipe or .yaml; default {DEFAULT_RECIPE}"
    )
    parser.add_argument("--nodes", type=int, default=1, help="machines")
    parser.add_argument("--procs-per-node", type=int, help="processes on each; default its GPUs, else 1")
    parser.add_argument(
        "--gpus-per-node", type=int, help="GPUs to ask for on each node; default 8 on slurm, else those here"
    )
    parser.add_argument("--cpus-per-proc", type=int, default=8, help="cores for each process (slurm)")
    parser.add_argument("--partition", help="SLURM partition")
    parser.add_argument("--account", help="SLURM account")
    parser.add_argument("--qos", help="SLURM quality of service")
    parser.add_argument("--time", type=int, default=24 * 60, help="limit in minutes")
    parser.add_argument("--cluster", choices=CLUSTERS, default="slurm", help="where to run")
    parser.add_argument("--out", type=Path, help="run folder; default runs/NAME")
    parser.add_argument("--splits", default="val,test", help="what the evaluator job scores, in this order")
    parser.add_argument("--dry-run", action="store_true", help="print the job scripts and submit nothing")
    parser.add_argument(
        "-h", "--help", action="help", help="show this help; behind a recipe: also `wsol train RECIPE --help`"
    )
    return parser


def gpus_per_node(own: argparse.Namespace) -> int:
    """Processes on a node: one for each GPU that is asked for or, on this machine, seen; else one."""
    if own.gpus_per_node is not None:
        return max(1, own.gpus_per_node)
    return 8 if own.cluster == "slurm" else max(1, local_gpus())


def local_gpus() -> int:
    """GPUs of this machine."""
    import torch

    return torch.cuda.device_count()


def mark_started(folder: Path) -> None:
    """Remember when the run was first submitted; the summary counts from there."""
    try:
        with (folder / "started").open("x", encoding="utf-8") as file:
            file.write(f"{time.time():.0f}\n")
    except FileExistsError:
        pass


class Plan:
    """The two jobs of a run."""

    def __init__(self, own: argparse.Namespace, config: Config, folder: Path, procs: int) -> None:
        self.own, self.config, self.folder, self.procs = own, config, folder, procs
        self.logs = folder / "logs"

    @property
    def train_job(self) -> WsolJob:
        """Training, from the configuration that was stored at submission."""
        return WsolJob(("train", str(self.folder / "config.yaml"), "--out", str(self.folder)))

    @property
    def evaluate_job(self) -> WsolJob:
        """Scoring of the finished run: the threshold from val, then test."""
        index = str(Path(self.config.data.index).resolve())
        return WsolJob(("evaluate", str(self.folder), "--index", index, "--split", self.own.splits))

    def executor(self, job: str, dependency: str | None = None) -> Any:
        """submitit's executor for one of the two jobs."""
        executor = submitit.AutoExecutor(folder=self.logs, cluster=self.own.cluster)
        nodes = self.own.nodes if job == "train" else 1
        executor.update_parameters(
            name=f"{self.config.name}-{job}",
            nodes=nodes,
            tasks_per_node=self.procs,
            timeout_min=self.own.time,
            stderr_to_stdout=True,
            gpus_per_node=self._gpus(),
        )
        if self.own.cluster == "slurm":
            executor.update_parameters(
                **{f"slurm_{key}": value for key, value in self.slurm_options(dependency).items()}
            )
            executor.update_parameters(cpus_per_task=self.own.cpus_per_proc)
        return executor

    def slurm_options(self, dependency: str | None) -> dict[str, Any]:
        """SLURM's own options that were given."""
        wanted = {
            "partition": self.own.partition,
            "account": self.own.account,
            "qos": self.own.qos,
            "dependency": dependency,
        }
        return {key: value for key, value in wanted.items() if value is not None}

    def _gpus(self) -> int:
        if self.own.gpus_per_node is not None:
            return self.own.gpus_per_node
        return 8 if self.own.cluster == "slurm" else local_gpus()

    def show(self) -> int:
        """Print both job scripts as they would be submitted."""
        try:
            check(self.config, world=self.own.nodes * self.procs)
        except UserError as error:
            print(f"note: would be refused now: {error}", file=sys.stderr)
        for job, command, dependency in (
            ("train", self.train_job, None),
            ("evaluate", self.evaluate_job, "afterany:TRAIN_JOB"),
        ):
            print(f"# {'-' * 20} {job}: wsol {' '.join(command.arguments)}")
            print(self.script(job, dependency))
        return 0

    def script(self, job: str, dependency: str | None) -> str:
        """The sbatch script of a job."""
        from submitit.slurm.slurm import _make_sbatch_string

        options = self.slurm_options(dependency)
        return _make_sbatch_string(
            command=f"{sys.executable} -u -m submitit.core._submit {self.logs}",
            folder=self.logs,
            job_name=f"{self.config.name}-{job}",
            time=self.own.time,
            nodes=self.own.nodes if job == "train" else 1,
            ntasks_per_node=self.procs,
            cpus_per_task=self.own.cpus_per_proc,
            gpus_per_node=self._gpus() or None,
            stderr_to_stdout=True,
            **options,
        )

    def submit(self) -> int:
        """Queue training and evaluation, and say how to watch; locally, wait for both and show their log."""
        print(f"run folder  {self.folder}")
        train = self.executor("train").submit(self.train_job)
        self._announce("training", train)
        if self.own.cluster == "slurm":
            evaluate = self.executor("evaluate", f"afterany:{train.job_id}").submit(self.evaluate_job)
            self._announce("evaluator", evaluate)
            print(
                f"watch       tail -F {train.paths.stdout}; squeue --me; W&B: project {self.config.track.project}"
            )
            return 0
        if not wait_and_show(train):
            return 1
        evaluate = self.executor("evaluate").submit(self.evaluate_job)
        self._announce("evaluator", evaluate)
        return 0 if wait_and_show(evaluate) else 1

    def _announce(self, what: str, job: Any) -> None:
        print(f"{what:<11} job {job.job_id}, log {job.paths.stdout}", flush=True)


def wait_and_show(job: Any) -> bool:
    """Copy a local job's log to the terminal until it ends; True if it ended well."""
    if isinstance(job, submitit.DebugJob):
        job.result()
        return True
    shown = 0
    while True:
        done = job.done()
        if job.paths.stdout.exists():
            with job.paths.stdout.open("rb") as log:
                log.seek(shown)
                text = log.read()
            shown += len(text)
            sys.stdout.write(without_noise(text.decode(errors="replace")))
            sys.stdout.flush()
        if done:
            break
        time.sleep(0.5)
    try:
        job.results()
    except Exception as error:
        print(
            f"error: job {job.job_id} failed; its log: {job.paths.stdout}\n{last_line(str(error))}",
            file=sys.stderr,
        )
        return False
    return True


def without_noise(text: str) -> str:
    """A log without submitit's own lines about pickles."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("submitit INFO"))


def last_line(text: str) -> str:
    """The line of a traceback that says what happened."""
    return (text.strip().splitlines() or [""])[-1]
