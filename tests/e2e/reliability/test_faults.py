"""Ranks are killed or hang, are told to stop, lose disk or W&B: the job ends in time, and goes on as if nothing was."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.dist.runs import losses
from tests.e2e.reliability.job import (
    ROOT,
    START,
    STEPS,
    TIMEOUT_S,
    Job,
    environment,
    whole_steps,
    write_recipe,
)
from tests.e2e.reliability.rows import measured
from tests.forkserver import FRESH
from wsol_dist.log.jsonl import read_metrics
from wsol_dist.processes.stop import STOPPED, STOPPED_LINE
from wsol_dist.runs.run_state import finished_step

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
HANG_S = 5.0


@pytest.fixture
def place(tiny_shards: Path, tmp_path: Path) -> Path:
    """A folder with a recipe."""
    write_recipe(tiny_shards, tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The losses of a run on two ranks to which nothing happens."""
    folder = tmp_path_factory.mktemp("whole")
    write_recipe(tiny_shards, folder)
    job = Job(folder)
    assert job.wait() == [0, 0], job.said()
    assert len(losses(folder / "run")) == STEPS
    return losses(folder / "run")


def goes_on(place: Path, whole: dict[int, float]) -> Job:
    """The same command once more: it trains to the end, and its losses are those of the undisturbed run, to the bit."""
    job = Job(place)
    assert job.wait() == [0, 0], job.said()
    assert losses(place / "run") == whole
    assert finished_step(place / "run") == STEPS
    assert not list((place / "run" / "checkpoints").glob(".*"))
    return job


def test_a_rank_is_killed_at_a_random_step(place: Path, whole: dict[int, float]) -> None:
    rank, step = random.randrange(2), random.randint(2, STEPS)  # noqa: S311 - any will do
    print(f"rank {rank} is killed in step {step}")
    job = Job(place, fault=("kill", rank, step))
    codes = job.wait()
    assert codes[rank] == -signal.SIGKILL, job.said()
    assert codes[1 - rank] not in (0, STOPPED)
    assert job.ended_s < 60
    assert max(whole_steps(place / "run"), default=0) == (step - 1) // 3 * 3
    again = goes_on(place, whole)
    measured("test_a_rank_is_killed_at_a_random_step", ended=job.ended_s, back=again.back_s())


@pytest.mark.parametrize("when", [0, 1, 2], ids=["half the weights", "before its name", "behind its name"])
def test_rank_0_is_killed_while_it_writes_a_checkpoint(
    place: Path, whole: dict[int, float], when: int
) -> None:
    job = Job(place, fault=("kill-writing", 0, when))
    assert job.wait()[0] == -signal.SIGKILL, job.said()
    assert job.ended_s < 60
    assert whole_steps(place / "run") == ([3, 6] if when == 2 else [3])
    again = goes_on(place, whole)
    if when == 0:
        name = "test_rank_0_is_killed_while_it_writes_a_checkpoint"
        measured(name, ended=job.ended_s, back=again.back_s())


@pytest.mark.parametrize("how", ["hang", "hang-holding"])
def test_a_rank_hangs(
    place: Path, whole: dict[int, float], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = ("--train.hang-timeout-s", str(HANG_S))
    job = Job(place, *limits, fault=(how, 1, 8))
    codes = job.wait()
    said = job.said()
    stacks = sorted((place / "run" / "logs").glob("hang-*/rank-*.txt"))
    assert f"after step 7; stacks of {len(stacks)} of 2 ranks in " in said, said
    assert f"{STOPPED_LINE}hung after step 7; the same command goes on" in said
    if how == "hang":
        assert codes == [STOPPED, STOPPED]
        assert len(stacks) == 2
        assert "in hang" in stacks[1].read_text()
    else:
        assert codes == [STOPPED, 1]
        assert "none of rank 1, which does not react" in said
        assert "in hang_holding" in said  # faulthandler tells what no thread could
    assert "begin_max" in stacks[0].read_text() or "step" in stacks[0].read_text()
    assert job.ended_s < HANG_S + 90
    assert whole_steps(place / "run")[-1] == 6
    again = goes_on(place, whole)
    name = "test_a_rank_hangs" if how == "hang" else "test_a_rank_hangs[hang-holding]"
    measured(name, ended=job.ended_s, back=again.back_s())


class Command:
    """A command that starts ranks, in a session of its own, which does not outlive the test."""

    def __init__(self, place: Path, *words: str) -> None:
        self.place, self.log = place, place / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                words, cwd=place, env=environment(), stdout=log, stderr=log, start_new_session=True
            )

    def __enter__(self) -> Command:
        until = time.monotonic() + TIMEOUT_S
        run = self.place / "run"
        while not (run / "metrics.jsonl").exists() or len(losses(run)) < 2:
            if self.process.poll() is not None or time.monotonic() > until:
                self.__exit__()
                pytest.fail(self.said())
            time.sleep(0.05)
        self.trained = time.time()
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def ended(self) -> tuple[int, float]:
        """Exit code, and the seconds since it had trained two steps."""
        return self.process.wait(120), time.time() - self.trained

    def said(self) -> str:
        """Its log."""
        return self.log.read_text()


def test_torchrun_is_told_to_end(place: Path, whole: dict[int, float]) -> None:
    """SIGTERM to all processes of torchrun's session, its ranks' loader processes among them."""
    # Forked ones have sessions of their own.
    torchrun = (FRESH, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    train = (*START[2:], "train", "recipe.yaml", "--out", "run", "--data.workers", "1")
    with Command(place, *torchrun, "-m", *train) as command:
        os.killpg(command.process.pid, signal.SIGTERM)
        _, ended = command.ended()
    said = command.said()
    assert f"{STOPPED_LINE}the same command goes on" in said, said
    assert whole_steps(place / "run")[-1] == max(losses(place / "run")) < STEPS
    again = goes_on(place, whole)
    measured("test_torchrun_is_told_to_end", ended=ended, back=again.back_s())


def test_a_job_of_submitit_is_told_to_stop(place: Path, whole: dict[int, float]) -> None:
    """SIGUSR2, which submitit would take for itself, to one rank of a job that `launch/submit.py` runs here."""
    submit = (sys.executable, str(ROOT / "launch" / "submit.py"), "recipe.yaml", "--cluster", "local")
    words = ("--procs-per-node", "2", "--out", "run", "--splits", "val")
    with Command(place, *submit, *words) as command:
        holder = (place / "run" / "train.lock").read_text().split()
        os.kill(int(holder[1]), signal.SIGUSR2)
        code, ended = command.ended()
    said = command.said()
    assert code == STOPPED, said
    assert f"\n{STOPPED_LINE}the same command goes on from the newest checkpoint" in said, said
    assert whole_steps(place / "run")[-1] == max(losses(place / "run")) < STEPS
    again = goes_on(place, whole)
    measured("test_a_job_of_submitit_is_told_to_stop", ended=ended, back=again.back_s())


def test_a_disk_that_is_full_and_then_read_only(place: Path) -> None:
    """On a disk of its own: full behind some checkpoints, larger, read-only, writable again."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "--mount", "true"]).returncode:
        pytest.skip("needs the right to mount: not here")
    (place / "run").mkdir()
    train = f"{' '.join(START)} train recipe.yaml --out run --train.keep-checkpoints 9"
    train += " --train.checkpoint-every-epochs"
    script = f"""
    mount -t tmpfs -o size=2m none run
    {train} 0.5; echo "full $?"; ls -A run/checkpoints; date +%s.%N
    mount -o remount,size=100m run
    mount -o remount,ro run
    {train} 0.5; echo "read-only $?"
    mount -o remount,rw run
    date +%s.%N; {train} 4 --train.keep-checkpoints 1; echo "on $?"
    cp -r run kept
    """
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "bash", "-uc", script],
        cwd=place, env=environment(), capture_output=True, text=True, timeout=2 * TIMEOUT_S,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert [line for line in said.splitlines() if line in ("full 2", "read-only 2", "on 0")] == [
        "full 2",
        "read-only 2",
        "on 0",
    ], said
    assert "this checkpoint cannot be written" in said or "No space left" in said, said
    assert "--out run: cannot be written: Read-only file system; choose another folder" in said, said
    names = done.stdout.split("full 2")[1].split("read-only")[0].split()
    assert not [name for name in names if name.startswith(".unfinished")], said
    (place / "run").rmdir()
    (place / "kept").rename(place / "run")
    assert whole_steps(place / "run")
    assert finished_step(place / "run") == STEPS
    assert [row["step"] for row in read_metrics(place / "run" / "metrics.jsonl")] == list(range(1, STEPS + 1))


def test_wandb_cannot_be_reached(place: Path) -> None:
    """Not at the start, with a key and an address where nobody answers; training goes on and ends well."""
    nobody = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40, "WANDB_MODE": "online"}
    job = Job(place, "--track.wandb", "auto", world=1, **nobody)
    assert job.wait() == [0], job.said()
    assert "does not answer; going on offline" in job.said()
    assert "0" * 40 not in job.said()
    assert len(losses(place / "run")) == STEPS
    measured("test_wandb_cannot_be_reached", back=job.back_s())


def test_a_loss_that_is_not_a_number(place: Path) -> None:
    job = Job(place, "--train.lr", "1e30", "--train.clip", "0", "--train.schedule", "constant", world=1)
    assert job.wait() == [2], job.said()
    assert "error: training diverged: the loss is nan at step" in job.said()
    assert all(step < 5 for step in whole_steps(place / "run"))
    assert finished_step(place / "run") is None
