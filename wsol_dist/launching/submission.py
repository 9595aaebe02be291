"""Submit a training and the evaluator job beside it: python launch/submit.py --nodes 8 [RECIPE] [overrides].

Everything is checked before anything is queued. On SLURM the jobs wait for their nodes; with --cluster local they
run on this machine, one after the other, and their log is shown.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import submitit

from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.launching import array
from wsol_dist.launching.job import WsolJob
from wsol_dist.launching.local_job import wait_and_show
from wsol_dist.options import check_least, names_of
from wsol_dist.recipe import Config, parse_with_recipe
from wsol_dist.runs.run_state import CONFIG_FILE
from wsol_dist.training.preflight import check, check_network, prepare_folder
from wsol_dist.training.stages import stages

DEFAULT_RECIPE = "molt-imagenet"
SIGNAL_DELAY_S = 120
"""How long before its time limit a job is told to stop, in seconds."""
CLUSTERS = ("slurm", "local", "debug")


def main(argv: list[str]) -> int:
    """Entry of `launch/submit.py`."""
    if argv and argv[0] in array.COMMANDS:
        return array.main(argv)
    own, config = parse_with_recipe(arguments(), argv)
    check_counts(own)
    if own.ranks_per_node is not None and own.cluster != "slurm":
        raise UserError("--ranks-per-node: --cluster slurm alone knows it; use --procs-per-node here")
    if own.cluster != "slurm" and own.nodes > 1:
        raise UserError(
            f"--nodes: given {own.nodes}, but --cluster {own.cluster} has this one machine; use --nodes 1"
        )
    if own.gpus_per_node is None:
        own.gpus_per_node = 8 if own.cluster == "slurm" else local_gpus()
    procs = max(1, own.gpus_per_node) if own.procs_per_node is None else own.procs_per_node
    if own.cluster == "debug" and procs > 1:
        raise UserError(
            f"--procs-per-node: given {procs}, but --cluster debug runs in this one process; use 1"
        )
    folder = (own.out or Path("runs") / config.name).resolve()
    plan = Plan(own, config, folder, procs)
    if own.dry_run:
        return plan.show()
    if own.cluster == "slurm" and shutil.which("sbatch") is None:
        raise UserError(
            "--cluster slurm: SLURM is not installed here (no sbatch); use --cluster local, or --dry-run"
        )
    plan.check()
    prepare_folder(config, folder)
    mark_started(folder)
    print(f"run folder  {folder}", flush=True)
    return plan.submit_to_slurm() if own.cluster == "slurm" else plan.run_here()


def check_splits(given: str, index: Index) -> None:
    """Refuse now what the evaluator would refuse after the training.

    Raises:
        UserError: the shards have no such split.
    """
    for split in names_of(given):
        if split not in index.splits:
            allowed = did_you_mean(split, list(index.splits))
            raise UserError(f"--splits: no split {split!r} in {index.place}; {allowed}, joined by commas")


def check_counts(own: argparse.Namespace) -> None:
    """Refuse counts that cannot be."""
    least = {"nodes": 1, "procs_per_node": 1, "ranks_per_node": 1, "gpus_per_node": 0, "cpus_per_proc": 1}
    check_least(own, {**least, "time": 1})


def arguments() -> argparse.ArgumentParser:
    """The command line, besides the recipe's overrides."""
    parser = argparse.ArgumentParser(
        prog="python launch/submit.py", description=__doc__, allow_abbrev=False, add_help=False
    )
    add = parser.add_argument
    add("recipe", nargs="?", default=DEFAULT_RECIPE, help=f"recipe or .yaml; default {DEFAULT_RECIPE}")
    add("--nodes", type=int, default=1, help="machines")
    add("--procs-per-node", type=int, help="processes on each; default its GPUs, else 1")
    add("--ranks-per-node", type=int, help="fewer of them to train with, where memory is short (slurm)")
    add("--gpus-per-node", type=int, help="GPUs on each; default 8 on slurm, else those of this machine")
    add("--cpus-per-proc", type=int, default=8, help="cores for each process (slurm)")
    add("--partition", help="SLURM partition")
    add("--account", help="SLURM account")
    add("--qos", help="SLURM quality of service")
    add("--time", type=minutes, default=24 * 60, help="limit: minutes, HH:MM:SS or D-HH:MM:SS; default a day")
    add("--cluster", choices=CLUSTERS, default="slurm", help="where to run; debug: in this process")
    add("--out", type=Path, help="run folder; default runs/NAME")
    add("--splits", default="val,test", help="what the evaluator job scores, in this order")
    add("--dry-run", action="store_true", help="print the job scripts and submit nothing")
    add("-h", "--help", action="help", help="show this; a recipe's knobs: wsol train RECIPE --help")
    return parser


def minutes(text: str) -> int:
    """A time limit in SLURM's notation -> whole minutes, rounded up."""
    days, _, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if len(parts) == 1 and not days:
        return parts[0]
    hours, mins, seconds = [*parts, 0, 0][:3] if days or len(parts) == 3 else (0, *parts)
    return int(days or 0) * 1440 + hours * 60 + mins + (seconds > 0)


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


def following(splits: str, val: str) -> tuple[str, ...]:
    """Arguments of an evaluator that follows: the held-out split for every checkpoint, the others at the end.

    Without the held-out split there is nothing to follow with, and the splits are scored behind training.
    """
    names = names_of(splits)
    if val not in names:
        return ("--split", splits)
    rest = ",".join(name for name in names if name != val)
    return ("--follow", "--final-split", rest) if rest else ("--follow",)


class Plan:
    """The two jobs of a run."""

    def __init__(self, own: argparse.Namespace, config: Config, folder: Path, procs: int) -> None:
        self.own, self.config, self.folder, self.procs = own, config, folder, procs
        self.ranks = own.ranks_per_node or procs
        if self.ranks > procs:
            raise UserError(f"--ranks-per-node: given {self.ranks}, each node has {procs} (--procs-per-node)")
        self.logs = folder / "logs"
        # The jobs read the configuration that was stored at submission: later edits of a recipe do not reach them.
        self.train = WsolJob(("train", str(folder / CONFIG_FILE), "--out", str(folder)))
        # The held-out split first: it chooses the threshold.
        self.evaluate = WsolJob(("evaluate", str(folder), "--split", own.splits))
        # On nodes of its own the evaluator works while training does.
        self.follow = WsolJob(("evaluate", str(folder), *following(own.splits, config.val.split)))
        self.dependency = "after" if "--follow" in self.follow.arguments else "afterany"

    def check(self) -> None:
        """Refuse what would fail in the jobs: shards, batch, files, network, splits."""
        for run, place in stages(self.config, self.folder):
            # The tasks tell their samples as if all of them trained.
            for ranks in {self.procs, self.ranks}:
                index = check(run, world=self.own.nodes * ranks, folder=place)
            check_network(run, index)
        check_splits(self.own.splits, index)

    def slurm_parameters(self, job: str, dependency: str | None = None) -> dict[str, Any]:
        """What the job asks SLURM for; the evaluator takes one node."""
        nodes, tasks, gpus = self.own.nodes, self.procs, self.own.gpus_per_node
        if job != "train":
            nodes, tasks, gpus = 1, self.ranks, min(gpus, self.ranks)
        wanted = {
            "job_name": f"{self.config.name}-{job}",
            "nodes": nodes,
            "ntasks_per_node": tasks,
            "cpus_per_task": self.own.cpus_per_proc,
            "gpus_per_node": gpus or None,
            "time": self.own.time,
            "partition": self.own.partition,
            "account": self.own.account,
            "qos": self.own.qos,
            "dependency": dependency,
            "stderr_to_stdout": True,
            # Time for a checkpoint before the limit; the job then puts itself back into the queue, and so does the
            # evaluator, which scores again what it was busy with.
            "signal_delay_s": SIGNAL_DELAY_S,
            "additional_parameters": {"requeue": True},
            # One failed rank ends the others, instead of leaving them in a collective until it times out.
            "srun_args": [
                "--kill-on-bad-exit=1",
                # Since 22.05 srun does not take the job's cores for each task by itself.
                f"--cpus-per-task={self.own.cpus_per_proc}",
                f"--ntasks-per-node={self.ranks}",
                f"--ntasks={nodes * self.ranks}",
            ],
            "setup": self._first_step() if job == "train" else None,
        }
        return {key: value for key, value in wanted.items() if value is not None}

    def _first_step(self) -> list[str]:
        """Lines of the job script before training: each task tells which samples are its own, and all are checked."""
        wsol = f"{shlex.quote(sys.executable)} -m wsol_dist.cli ranks"
        run = shlex.quote(str(self.folder))
        return [
            f"srun --kill-on-bad-exit=1 {wsol} tell {run} || exit $?",
            f"{wsol} check {run} --ranks-per-node {self.ranks} || exit $?",
        ]

    def show(self) -> int:
        """Print both job scripts as they would be submitted."""
        from submitit.slurm.slurm import _make_sbatch_string

        try:
            self.check()
        except UserError as error:
            print(f"note: would be refused now: {error}", file=sys.stderr)
        command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(self.logs))}"
        for job, what, dependency in (
            ("train", self.train, None),
            ("evaluate", self.follow, f"{self.dependency}:TRAIN_JOB"),
        ):
            parameters = self.slurm_parameters(job, dependency)
            print(f"# ---- {job}: wsol {shlex.join(what.arguments)}")
            print(_make_sbatch_string(command=command, folder=self.logs, **parameters))
        return 0

    def submit_to_slurm(self) -> int:
        """Queue training and the evaluator, which starts with it; say how to watch them."""
        train = self._queue("train", self.train)
        self._announce("training", train)
        self._announce("evaluator", self._queue("evaluate", self.follow, f"{self.dependency}:{train.job_id}"))
        print(f"watch       tail -F {train.paths.stdout}")
        print(f"            squeue --me; W&B project {self.config.track.project}")
        return 0

    def run_here(self) -> int:
        """Run training and then evaluation on this machine, with their log on the terminal."""
        for what, job in (("training", self.train), ("evaluator", self.evaluate)):
            executor = submitit.AutoExecutor(folder=self.logs, cluster=self.own.cluster)
            executor.update_parameters(
                tasks_per_node=self.procs,
                timeout_min=self.own.time,
                stderr_to_stdout=True,
                gpus_per_node=self.own.gpus_per_node,
            )
            running = executor.submit(job)
            self._announce(what, running)
            if code := wait_and_show(running):
                return code
        return 0

    def _queue(self, job: str, what: WsolJob, dependency: str | None = None) -> Any:
        executor = submitit.SlurmExecutor(folder=self.logs)
        executor.update_parameters(**self.slurm_parameters(job, dependency))
        try:
            return executor.submit(what)
        except submitit.core.utils.FailedJobError as error:
            reasons = [line for line in str(error).splitlines() if line.strip()]
            raise UserError(f"SLURM refused the {job} job: {reasons[-1] if reasons else error}") from error

    def _announce(self, what: str, job: Any) -> None:
        print(f"{what:<11} job {job.job_id}, log {job.paths.stdout}", flush=True)
