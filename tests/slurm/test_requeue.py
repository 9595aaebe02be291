"""A job that SLURM stops goes back into the queue and on: by a signal, a preemption, a dead node, a hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.dist.runs import losses, tiny
from tests.e2e.reliability.job import ROOT, Job, whole_steps
from tests.e2e.reliability.rows import measured
from tests.slurm.conftest import Slurm
from wsol_dist.processes.stop import STOPPED_LINE
from wsol_dist.recipe import dump
from wsol_dist.runs.run_state import finished_step

pytestmark = pytest.mark.timeout(600)
STEPS = 120
SCRIPT = """#!/usr/bin/env bash
#SBATCH --job-name=requeue
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --signal=USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=job.log
export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_PORT=$((20000 + RANDOM % 12000)) OMP_NUM_THREADS=1
echo "restart ${SLURM_RESTART_COUNT:-0}"
fault=(none 0 0)
[ "${SLURM_RESTART_COUNT:-0}" != 0 ] || fault=($FAULT)
srun --kill-on-bad-exit=1 "$PYTHON" -m tests.e2e.reliability.inject "${fault[@]}" train recipe.yaml --out run "$@"
"""


def write_job(shards: Path, folder: Path) -> None:
    """A recipe of 120 steps with a checkpoint after each twelfth, and the script of its job."""
    config = tiny(shards, "short", epochs=20, checkpoint_every_epochs=2)
    (folder / "recipe.yaml").write_text(dump(config))
    (folder / "job.sh").write_text(SCRIPT)


@pytest.fixture(scope="module")
def whole(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The losses of a run to which nothing happens."""
    folder = tmp_path_factory.mktemp("whole")
    write_job(tiny_shards, folder)
    job = Job(folder)
    assert job.wait() == [0, 0], job.said()
    return losses(folder / "run")


def waited(what: Callable[[], bool], told: Callable[[], str], timeout_s: float = 240) -> None:
    """Wait for something, in time; else fail with what is told."""
    end = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end, told()
        time.sleep(0.2)


class Running:
    """A job of two nodes in its folder, with at least 20 steps done."""

    def __init__(
        self,
        slurm: Slurm,
        shards: Path,
        folder: Path,
        *words: str,
        fault: str = "slow 0 0",
        options: tuple[str, ...] = (),
    ) -> None:
        write_job(shards, folder)
        self.slurm, self.folder, self.run = slurm, folder, folder / "run"
        environment = {"FAULT": fault, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
        self.job = slurm.sbatch(*options, "job.sh", *words, cwd=folder, **environment)

    def steps(self) -> int:
        """Of the log so far."""
        return max(losses(self.run), default=0) if (self.run / "metrics.jsonl").exists() else 0

    def said(self) -> str:
        """Its log."""
        log = self.folder / "job.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def until(self, what: Callable[[], bool], timeout_s: float = 240) -> None:
        """Wait for something, in time."""
        waited(what, lambda: self.said() + self.slurm.command("squeue", check=False).stdout, timeout_s)

    def reach(self, step: int) -> None:
        """Wait for a step."""
        self.until(lambda: self.steps() >= step)

    def waits_again(self) -> None:
        """Wait until it is back in the queue. It starts by itself 20 s later (`cred_expire` of this cluster)."""
        self.until(lambda: self.slurm.state(self.job) == "PENDING")

    def left(self) -> bool:
        """Whether SLURM's own processes of the job, one per node and step, are still there."""
        found = subprocess.run(
            ["pgrep", "--full", rf"^slurmstepd: \[{self.job}\."], stdout=subprocess.DEVNULL
        )
        return found.returncode == 0

    def goes_on(self, whole: dict[int, float], *, resumed_at: int) -> None:
        """It ends well, went on at that step, and its losses are those of the undisturbed run, to the bit."""
        self.slurm.completed(self.job, timeout_s=300, logs=self.folder)
        said = self.said()
        assert "\nrestart 1\n" in said, said
        assert "\nrestart 2\n" not in said
        continues = f"continues after step {resumed_at}\n" if resumed_at else "continues after"
        assert (continues in said.split("\nrestart 1\n")[1]) == (resumed_at > 0), said
        assert losses(self.run) == whole
        assert len(whole) == STEPS == finished_step(self.run)
        assert whole_steps(self.run)[-1] == STEPS
        assert self.slurm.accounted(self.job, rows=2)[-1] == ["COMPLETED"]

    def logged(self) -> list[int]:
        """The step of every row that was ever written."""
        return [int(row["step"]) for row in self.rows()]

    def back(self, since: float, step: int) -> float:
        """From a moment until the first row of a step beyond."""
        return min(row["time"] for row in self.rows() if row["step"] > step and row["time"] > since) - since

    def rows(self) -> list[dict[str, float]]:
        """Every row that was ever written."""
        return [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slurm(3)
def test_a_signal_behind_a_restart_of_slurmctld(
    slurm: Slurm, tiny_shards: Path, tmp_path: Path, whole: dict[int, float]
) -> None:
    """The controller is killed and started; the job does not notice. Then comes the signal of a time limit."""
    job = Running(slurm, tiny_shards, tmp_path, fault="slow 0 0.1")
    job.reach(10)
    # The controller writes down some seconds after a change what it knows of a job: killed before, it takes one that
    # had just begun to run for one that waits.
    changed = time.time()
    slurm.command("scontrol", "update", f"jobid={job.job}", "comment=begun")
    job.until(lambda: (slurm.root / "state/job_state").stat().st_mtime > changed)
    os.kill(slurm.pid("slurmctld"), signal.SIGKILL)
    killed, at = time.time(), job.steps()
    slurm.heal()
    assert slurm.state(job.job) == "RUNNING"
    measured("test_a_signal_behind_a_restart_of_slurmctld[slurmctld]", back=time.time() - killed)
    job.reach(at + 5)
    told = time.time()
    slurm.command("scancel", "--signal=USR2", job.job)
    job.until(lambda: STOPPED_LINE in job.said())
    assert f"{STOPPED_LINE}job {job.job} is requeued, restart 1 of at most 100" in job.said()
    stopped_at = job.steps()
    assert "SIGUSR2: stops after step" in job.said()
    job.waits_again()
    ended = time.time() - told
    job.goes_on(whole, resumed_at=stopped_at)
    assert job.logged() == list(range(1, STEPS + 1))  # no step was done twice
    measured("test_a_signal_behind_a_restart_of_slurmctld", ended=ended, back=job.back(told, stopped_at))


@pytest.mark.slurm(2)
def test_a_time_limit(slurm: Slurm, tiny_shards: Path, tmp_path: Path, whole: dict[int, float]) -> None:
    """Nobody tells the job but SLURM's own clock, which may be a minute early."""
    options = ("--time=2", "--signal=USR2@30")
    job = Running(slurm, tiny_shards, tmp_path, fault="slow 0 1", options=options)
    job.until(lambda: STOPPED_LINE in job.said())
    said, stopped_at, told = job.said(), job.steps(), time.time()
    assert f"job {job.job} is requeued, restart 1 of at most 100" in said
    if stopped_at:  # else the machine is so slow that there was no step in a minute
        assert "SIGUSR2: stops after step" in said, said
        # Before the signal came.
        told = next((row["time"] for row in job.rows() if row["step"] == stopped_at - 2), told)
    else:
        assert f"{STOPPED_LINE}SIGUSR2, with nothing to save; " in said, said
    job.until(lambda: slurm.state(job.job) == "PENDING")
    # The second run is to end by itself.
    slurm.command("scontrol", "update", f"jobid={job.job}", "TimeLimit=10")
    job.waits_again()
    ended = time.time() - told
    # Requeued before its first step, it may have done some until SLURM ended it, and has saved them.
    stopped_at = stopped_at or max(whole_steps(job.run), default=0)
    job.goes_on(whole, resumed_at=stopped_at)
    assert job.logged() == list(range(1, STEPS + 1))
    assert "CANCELLED DUE TO TIME LIMIT" not in job.said()
    measured("test_a_time_limit", ended=ended, back=job.back(told, stopped_at))


@pytest.mark.slurm(3)
def test_a_signal_in_the_first_step(
    slurm: Slurm, tiny_shards: Path, tmp_path: Path, whole: dict[int, float]
) -> None:
    """No step ends in which the ranks could agree, and there is nothing to save: the job is requeued at once."""
    job = Running(slurm, tiny_shards, tmp_path, fault="hang 0 1")
    job.until((tmp_path / "fault.json").exists)
    told = time.time()
    slurm.command("scancel", "--signal=USR2", job.job)
    line = f"{STOPPED_LINE}SIGUSR2, with nothing to save; job {job.job} is requeued, restart 1 of at most 100"
    job.until(lambda: line in job.said())
    job.waits_again()
    ended = time.time() - told
    job.goes_on(whole, resumed_at=0)
    measured("test_a_signal_in_the_first_step", ended=ended, back=job.back(told, 0))


@pytest.mark.slurm(2)
def test_a_job_that_is_cancelled_stays_away(slurm: Slurm, tiny_shards: Path, tmp_path: Path) -> None:
    """`scancel` sends SIGTERM, as a preemption does, but a person wants the job to end."""
    job = Running(slurm, tiny_shards, tmp_path)
    job.reach(10)
    told = time.time()
    slurm.command("scancel", job.job)
    job.until(lambda: slurm.state(job.job) != "RUNNING")
    job.until(lambda: not job.left())
    measured("test_a_job_that_is_cancelled_stays_away", ended=time.time() - told)
    assert slurm.wait(job.job) == "CANCELLED"
    assert whole_steps(job.run)[-1] == job.steps()
    assert "restart 1" not in job.said()
    if STOPPED_LINE in job.said():  # else SLURM was faster
        assert f"{STOPPED_LINE}job {job.job} was cancelled" in job.said()


@pytest.mark.slurm(3)
def test_a_preemption(slurm: Slurm, tiny_shards: Path, tmp_path: Path, whole: dict[int, float]) -> None:
    """SIGTERM alone, and SLURM itself requeues no job that ends by itself on it."""
    job = Running(slurm, tiny_shards, tmp_path)
    job.reach(10)
    nodes = slurm.command("squeue", "--noheader", f"--jobs={job.job}", "--format=%N").stdout.strip()
    told = time.time()
    urgent = slurm.sbatch(
        "--partition=urgent", f"--nodelist={nodes}", "--nodes=2", "--exclusive", "--output=/dev/null",
        "--wrap=sleep 1", cwd=tmp_path,
    )  # fmt: skip
    job.until(lambda: STOPPED_LINE in job.said())
    stopped_at = job.steps()
    assert "SIGTERM: stops after step" in job.said()
    slurm.completed(urgent)
    job.waits_again()
    ended = time.time() - told
    job.goes_on(whole, resumed_at=stopped_at)
    assert job.logged() == list(range(1, STEPS + 1))
    measured("test_a_preemption", ended=ended, back=job.back(told, stopped_at))


@pytest.mark.slurm(2)
def test_the_slurmd_of_a_node_is_killed(
    slurm: Slurm, tiny_shards: Path, tmp_path: Path, whole: dict[int, float]
) -> None:
    """SLURM takes the node for dead, and requeues the job by itself; nobody could save, and steps are done again."""
    job = Running(slurm, tiny_shards, tmp_path, fault="slow 0 2")
    job.reach(13)
    node = slurm.command("squeue", "--noheader", f"--jobs={job.job}", "--format=%B").stdout.strip()
    os.kill(slurm.pid(f"slurmd-{node}"), signal.SIGKILL)
    killed, at = time.time(), job.steps()
    job.waits_again()
    ended = time.time() - killed
    resumed_at = whole_steps(job.run)[-1]
    slurm.heal()
    job.goes_on(whole, resumed_at=resumed_at)
    measured("test_the_slurmd_of_a_node_is_killed", ended=ended, back=job.back(killed, max(at, resumed_at)))


@pytest.mark.slurm(3)
def test_a_hung_rank(slurm: Slurm, tiny_shards: Path, tmp_path: Path, whole: dict[int, float]) -> None:
    """A rank that does not react at all: another one requeues the job, and SLURM ends the frozen one."""
    job = Running(slurm, tiny_shards, tmp_path, "--train.hang-timeout-s", "5", fault="freeze 0 20")
    job.until(lambda: STOPPED_LINE in job.said())
    said = job.said()
    assert "stacks of 1 of 2 ranks in" in said
    assert "none of rank 0, which does not react" in said
    assert f"hung after step 19; job {job.job} is requeued, restart 1 of at most 100" in said
    job.waits_again()
    frozen = json.loads((tmp_path / "fault.json").read_text())["time"]
    ended = time.time() - frozen
    job.goes_on(whole, resumed_at=12)
    measured("test_a_hung_rank", ended=ended, back=job.back(frozen, 19))


@pytest.mark.slurm(3)
def test_an_evaluator_that_follows(slurm: Slurm, tiny_shards: Path, tmp_path: Path) -> None:
    """A training takes longer than its evaluator may: told by the clock, it is queued again; cancelled, it is not."""
    write_job(tiny_shards, tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "recipe.yaml").rename(tmp_path / "run" / "config.yaml")
    line = f'"{sys.executable}" -m wsol_dist.cli evaluate run --follow --final-split test'
    words = ("--nodes=1", "--ntasks=1", "--requeue", "--open-mode=append", "--output=job.log")
    job = slurm.sbatch(
        *words, f"--wrap=echo restart $SLURM_RESTART_COUNT; srun {line}", cwd=tmp_path, PYTHONPATH=str(ROOT)
    )
    lock = tmp_path / "run" / "follow.lock"

    def said() -> str:
        return slurm.told(tmp_path)

    waited(lock.exists, said)
    told = time.time()
    slurm.command("scancel", "--signal=USR2", job)
    stopped = f"{STOPPED_LINE}SIGUSR2; job {job} is requeued, restart 1 of at most 100"
    waited(lambda: stopped in said(), said)
    ended = time.time() - told
    lock.unlink()
    waited(lambda: "restart 1" in said().split(stopped)[1], said)
    waited(lock.exists, said)
    measured("test_an_evaluator_that_follows", ended=ended, back=time.time() - told)
    slurm.command("scancel", job)
    assert slurm.wait(job) == "CANCELLED"
    assert "restart 2" not in said()
    if f"{STOPPED_LINE}SIGTERM" in said():  # else SLURM was faster
        assert f"{STOPPED_LINE}SIGTERM; job {job} was cancelled" in said()


@pytest.mark.parametrize("script", ["molt_64gpu.sh", "weight_map_8gpu.sh", "evaluate.sh"])
def test_the_job_scripts_ask_for_what_this_needs(script: str) -> None:
    lines = (ROOT / "slurm" / script).read_text().splitlines()
    assert "#SBATCH --signal=USR2@120" in lines
    assert "#SBATCH --requeue" in lines
