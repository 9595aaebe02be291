"""Submit a training and the evaluator job beside it: python launch/submit.py --nodes 8 [RECIPE] [overrides].

Everything is checked before anything is queued. On SLURM the jobs wait for their nodes; with --cluster local they
run on this machine, one after the other, and their log is shown.
"""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import submitit
import tyro
from pydantic import NonNegativeInt, PositiveInt

from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.launching.job import WsolJob
from wsol_dist.launching.local_job import wait_and_show
from wsol_dist.launching.slurm import SlurmOptions, check_slurm, print_script, submit
from wsol_dist.options import names_of
from wsol_dist.recipe import Config, RecipeOptions
from wsol_dist.runs.run_state import CONFIG_FILE
from wsol_dist.training.preflight import check, check_network, prepare_folder
from wsol_dist.training.stages import stages

SIGNAL_DELAY_S = 120
"""How long before its time limit a job is told to stop, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Options(RecipeOptions, SlurmOptions):
    """The flags of a submission."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")] = "molt-imagenet"
    """Name of a recipe, or a path to a .yaml file."""
    nodes: PositiveInt = 1
    """Machines."""
    procs_per_node: PositiveInt | None = None
    """Processes on each; by default its GPUs, else 1."""
    ranks_per_node: PositiveInt | None = None
    """Fewer of them to train with, where memory is short (slurm)."""
    gpus_per_node: NonNegativeInt | None = None
    """GPUs on each; by default 8 on slurm, else those of this machine."""
    cluster: Literal["slurm", "local", "debug"] = "slurm"
    """Where to run; local: on this machine; debug: in this process."""
    out: Path | None = None
    """Run folder; by default runs/NAME."""
    splits: str = "val,test"
    """What the evaluator job scores, in this order."""


def run(options: Options) -> int:
    """Check everything, then submit or run the two jobs."""
    config = options.config()
    if options.ranks_per_node is not None and options.cluster != "slurm":
        raise UserError("--ranks-per-node: --cluster slurm alone knows it; use --procs-per-node here")
    if options.cluster != "slurm" and options.nodes > 1:
        raise UserError(
            f"--nodes: given {options.nodes}, but --cluster {options.cluster} has this one machine; use --nodes 1"
        )
    plan = Plan(options, config)
    if options.dry_run:
        return plan.show()
    if options.cluster == "slurm":
        check_slurm()
    plan.check()
    prepare_folder(config, plan.folder)
    mark_started(plan.folder)
    print(f"run folder  {plan.folder}", flush=True)
    return plan.submit_to_slurm() if options.cluster == "slurm" else plan.run_here()


def check_splits(given: str, index: Index) -> None:
    """Refuse now what the evaluator would refuse after the training.

    Raises:
        UserError: the shards have no such split.
    """
    for split in names_of(given):
        if split not in index.splits:
            allowed = did_you_mean(split, list(index.splits))
            raise UserError(f"--splits: no split {split!r} in {index.place}; {allowed}, joined by commas")


def default_gpus(cluster: str) -> int:
    """GPUs of a node, where none are given."""
    return 8 if cluster == "slurm" else local_gpus()


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

    def __init__(self, options: Options, config: Config) -> None:
        self.options, self.config = options, config
        self.folder = (options.out or Path("runs") / config.name).resolve()
        self.gpus = (
            options.gpus_per_node if options.gpus_per_node is not None else default_gpus(options.cluster)
        )
        self.procs = max(1, self.gpus) if options.procs_per_node is None else options.procs_per_node
        if options.cluster == "debug" and self.procs > 1:
            raise UserError(
                f"--procs-per-node: given {self.procs}, but --cluster debug runs in this one process; use 1"
            )
        self.ranks = options.ranks_per_node or self.procs
        if self.ranks > self.procs:
            raise UserError(
                f"--ranks-per-node: given {self.ranks}, each node has {self.procs} (--procs-per-node)"
            )
        self.logs = self.folder / "logs"
        # The jobs read the configuration that was stored at submission: later edits of a recipe do not reach them.
        self.train = WsolJob(("train", str(self.folder / CONFIG_FILE), "--out", str(self.folder)))
        # The held-out split first: it chooses the threshold.
        self.evaluate = WsolJob(("evaluate", str(self.folder), "--split", options.splits))
        # On nodes of its own the evaluator works while training does.
        self.follow = WsolJob(("evaluate", str(self.folder), *following(options.splits, config.val.split)))
        self.dependency = "after" if "--follow" in self.follow.arguments else "afterany"

    def check(self) -> None:
        """Refuse what would fail in the jobs: shards, batch, files, network, splits."""
        for run, place in stages(self.config, self.folder):
            # The tasks tell their samples as if all of them trained.
            for ranks in {self.procs, self.ranks}:
                index = check(run, world=self.options.nodes * ranks, folder=place)
            check_network(run, index)
        check_splits(self.options.splits, index)

    def slurm_parameters(self, job: str, dependency: str | None = None) -> dict[str, Any]:
        """What the job asks SLURM for; the evaluator takes one node."""
        nodes, tasks, gpus = self.options.nodes, self.procs, self.gpus
        if job != "train":
            nodes, tasks, gpus = 1, self.ranks, min(gpus, self.ranks)
        return self.options.parameters(
            f"{self.config.name}-{job}",
            gpus=gpus,
            # One failed rank ends the others, instead of leaving them in a collective until it times out.
            srun=(
                "--kill-on-bad-exit=1",
                f"--ntasks-per-node={self.ranks}",
                f"--ntasks={nodes * self.ranks}",
            ),
            nodes=nodes,
            ntasks_per_node=tasks,
            dependency=dependency,
            # Time for a checkpoint before the limit; the job then puts itself back into the queue, and so does the
            # evaluator, which scores again what it was busy with.
            signal_delay_s=SIGNAL_DELAY_S,
            additional_parameters={"requeue": True},
            setup=self._first_step() if job == "train" else None,
        )

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
        try:
            self.check()
        except UserError as error:
            print(f"note: would be refused now: {error}", file=sys.stderr)
        evaluate = self.slurm_parameters("evaluate", f"{self.dependency}:TRAIN_JOB")
        print_script("train", self.train, logs=self.logs, **self.slurm_parameters("train"))
        print_script("evaluate", self.follow, logs=self.logs, **evaluate)
        return 0

    def submit_to_slurm(self) -> int:
        """Queue training and the evaluator, which starts with it; say how to watch them."""
        (train,) = submit([self.train], logs=self.logs, **self.slurm_parameters("train"))
        self._announce("training", train)
        parameters = self.slurm_parameters("evaluate", f"{self.dependency}:{train.job_id}")
        self._announce("evaluator", *submit([self.follow], logs=self.logs, **parameters))
        print(f"watch       tail -F {train.paths.stdout}")
        print(f"            squeue --me; W&B project {self.config.track.project}")
        return 0

    def run_here(self) -> int:
        """Run training and then evaluation on this machine, with their log on the terminal."""
        for what, job in (("training", self.train), ("evaluator", self.evaluate)):
            executor = submitit.AutoExecutor(folder=self.logs, cluster=self.options.cluster)
            executor.update_parameters(
                tasks_per_node=self.procs,
                timeout_min=self.options.minutes,
                stderr_to_stdout=True,
                gpus_per_node=self.gpus,
            )
            running = executor.submit(job)
            self._announce(what, running)
            if code := wait_and_show(running):
                return code
        return 0

    def _announce(self, what: str, job: Any) -> None:
        print(f"{what:<11} job {job.job_id}, log {job.paths.stdout}", flush=True)
