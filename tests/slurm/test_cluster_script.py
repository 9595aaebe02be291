"""slurm/cluster.sh: up, status, env, down, and what it refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.slurm.conftest import CLUSTER, Slurm

pytestmark = pytest.mark.slurm


def cluster(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([CLUSTER, *words], capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["upp"], "unknown action 'upp'"),
        (["up", "--nodes", "none"], "--nodes: 'none' given; a number from 1 to 64"),
        (["up", "--gpus", "17"], "--gpus: '17' given; a number from 1 to 16"),
        (["up", "--gpu", "1"], "unknown option '--gpu'"),
        (["up", "--nodes"], "--nodes: a value is missing"),
        (["up", "--root", "/tmp/$(touch x)"], "--root: '/tmp/$(touch x)' given"),  # noqa: S108 - refused
    ],
)
def test_mistakes_cost_one_line_and_code_2(words: list[str], said: str) -> None:
    run = cluster(*words)
    assert run.returncode == 2
    assert said in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    down = cluster("down", "--root", tmp_path)
    assert (down.returncode, "no folder of a cluster" in down.stderr) == (2, True)
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_up_again_is_fine_and_another_size_is_refused(slurm: Slurm) -> None:
    before = slurm.pid("slurmctld")
    slurm.heal()
    assert slurm.pid("slurmctld") == before
    other = cluster("up", "--nodes", "2", "--root", slurm.root)
    assert (other.returncode, "8 x 8" in other.stderr) == (2, True)


def test_a_killed_controller_and_node_are_started_again(slurm: Slurm) -> None:
    for daemon in ("slurmctld", "slurmd-n3"):
        os.kill(slurm.pid(daemon), signal.SIGKILL)
    until = time.monotonic() + 60
    while cluster("status", "--root", slurm.root).returncode != 1:
        assert time.monotonic() < until, "status still says that all is well"
        time.sleep(0.2)
    slurm.heal()
    status = cluster("status", "--root", slurm.root)
    assert status.returncode == 0
    assert "n8" in status.stdout


def test_down_ends_a_running_job_and_leaves_nothing(short_root: Path) -> None:
    assert cluster("up", "--nodes", "1", "--gpus", "1", "--root", short_root).returncode == 0
    beside = Slurm(short_root)
    mark = f"{short_root}/mark"
    job = beside.sbatch("--wrap", f"setsid sleep 987 & echo $! >{mark}; wait", "--output=/dev/null")
    beside.wait(job, "RUNNING")
    until = time.monotonic() + 60
    while not (Path(mark).exists() and Path(mark).read_text().strip()) and time.monotonic() < until:
        time.sleep(0.1)
    sleeper = int(Path(mark).read_text())
    pids = [int(file.read_text()) for file in (short_root / "run").glob("*.pid")]
    assert cluster("down", "--root", short_root).returncode == 0
    assert not short_root.exists()
    assert not [pid for pid in [sleeper, *pids] if runs(pid)]


def runs(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
