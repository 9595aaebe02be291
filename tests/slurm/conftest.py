"""A SLURM of virtual nodes for the session, brought up by slurm/cluster.sh; what tests wait for ends in time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "slurm" / "cluster.sh"
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")
ACCOUNTED_S = 120.0


@dataclass(frozen=True)
class Slurm:
    """The commands of the session's SLURM; every one ends by itself, with or without an answer."""

    root: Path
    """Its folder: etc/slurm.conf, log/*.log, run/NAME.pid of slurmctld, slurmdbd, munged, mariadbd, slurmd-n1 ..."""

    def command(
        self, *words: str | Path, check: bool = True, cwd: Path = ROOT, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command that sees this SLURM, with more environment variables if given."""
        own = os.environ | {"SLURM_CONF": str(self.root / "etc" / "slurm.conf")} | environment
        run = subprocess.run(
            [str(word) for word in words], cwd=cwd, env=own, capture_output=True, text=True, timeout=120, check=False
        )  # fmt: skip
        assert run.returncode == 0 or not check, f"{words}:\n{run.stdout}\n{run.stderr}"
        return run

    def sbatch(self, *words: str | Path, cwd: Path = ROOT, **environment: str) -> str:
        """Submit; returns the job's id."""
        return self.command("sbatch", "--parsable", *words, cwd=cwd, **environment).stdout.strip()

    def state(self, job: str) -> str:
        """What the controller says of a job now: PENDING, RUNNING, COMPLETED, ... (of an array the last one that is not
        through)."""
        said = self.command(
            "squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T"
        ).stdout.split()
        return next((state for state in said if not state.startswith(ENDED)), said[0] if said else "UNKNOWN")

    def wait(self, job: str, *states: str, timeout_s: float = 150, logs: Path | None = None) -> str:
        """Wait for a job to be in one of these states, by default to end; fails with a folder's logs if it does not."""
        until = time.monotonic() + timeout_s
        state = self.state(job)
        while state not in states and not state.startswith(ENDED):
            if time.monotonic() > until:
                pytest.fail(f"job {job} is {state} after {timeout_s} s\n{self.told(logs)}")
            time.sleep(0.5)
            state = self.state(job)
        return state

    def completed(self, job: str, *, timeout_s: float = 150, logs: Path | None = None) -> None:
        """Wait for a job to end well; fails with the logs of a folder."""
        state = self.wait(job, timeout_s=timeout_s, logs=logs)
        assert state == "COMPLETED", f"job {job}: {state}\n{self.told(logs)}"

    def told(self, logs: Path | None) -> str:
        """The ends of a folder's logs, and the queue, for a failing test."""
        files = sorted(logs.rglob("*.log")) + sorted(logs.rglob("*.out")) if logs else []
        ends = [f"---- {file}\n{file.read_text(errors='replace')[-3000:]}" for file in files]
        return "\n".join([*ends, self.command("squeue", check=False).stdout])

    def accounted(self, job: str, *, fields: str = "State", rows: int = 1) -> list[list[str]]:
        """What `sacct` has of a job that has ended: a row for each run of it, or for each part of an array.

        Accounting lags: so many rows are waited for, all of what has ended; fails with those that came instead.

        Args:
            fields: the first is State.
            rows: how many there must be at least.
        """
        words = [f"--jobs={job}", "-X", "--duplicates", "--noheader", "--parsable2", f"--format={fields}"]
        until = time.monotonic() + ACCOUNTED_S
        while True:
            said = [line.split("|") for line in self.command("sacct", *words).stdout.splitlines()]
            if len(said) >= rows and all(
                row[0].startswith((*ENDED, "REQUEUED", "PREEMPTED")) for row in said
            ):
                return said
            if time.monotonic() > until:
                wanted = f"{rows} rows of what has ended"
                pytest.fail(
                    f"sacct has {said} of job {job} after {ACCOUNTED_S:g} s, not {wanted}\n{self.told(None)}"
                )
            time.sleep(0.5)

    def pid(self, daemon: str) -> int:
        """Process id of slurmctld, slurmdbd, slurmd-n1, ..."""
        return int((self.root / "run" / f"{daemon}.pid").read_text())

    def heal(self) -> None:
        """Start again whatever daemon was ended, and wait until all nodes are there."""
        self.command(CLUSTER, "up", *size(), "--root", self.root)

    def cancel_all(self) -> None:
        """End every job: no test finds what another left."""
        self.command("scancel", "--user=root", check=False)


def size() -> tuple[str, ...]:
    """Eight nodes of eight pretend GPUs."""
    return "--nodes", "8", "--gpus", "8"


@pytest.fixture(scope="session")
def slurm_session() -> Iterator[Slurm]:
    """A SLURM of 8 x 8 for the session; skipped where there is no root, or no package."""
    if os.geteuid() != 0:
        pytest.skip("SLURM of virtual nodes: needs root")
    folder = Path(tempfile.mkdtemp(prefix="wsol-", dir="/tmp"))  # short: sockets are in it
    root = folder / "slurm"
    up = subprocess.run(
        [CLUSTER, "up", *size(), "--root", root], capture_output=True, text=True, timeout=280, check=False
    )
    if up.returncode:
        ends = [(file.name, file.read_text(errors="replace")[-2000:]) for file in (root / "log").glob("*")]
        subprocess.run([CLUSTER, "down", "--root", root], capture_output=True, timeout=60, check=False)
        shutil.rmtree(folder)
        if up.returncode == 3 or "apt-get" in up.stderr:  # what the machine does not allow, or does not have
            pytest.skip(f"SLURM of virtual nodes: {up.stderr.strip().splitlines()[-1]}")
        pytest.fail("\n".join([up.stderr, *(f"---- {name}\n{end}" for name, end in ends)]))
    yield Slurm(root)
    subprocess.run([CLUSTER, "down", "--root", root], check=True, timeout=120)
    shutil.rmtree(folder)


@pytest.fixture
def slurm(slurm_session: Slurm) -> Iterator[Slurm]:
    """The session's SLURM without jobs, and with all its daemons behind a test that ended one."""
    yield slurm_session
    slurm_session.cancel_all()
    slurm_session.heal()


@pytest.fixture
def short_root(slurm_session: Slurm) -> Iterator[Path]:
    """A folder for a second cluster, with a name short enough for sockets."""
    folder = slurm_session.root.parent / "beside"
    yield folder
    subprocess.run([CLUSTER, "down", "--root", folder], capture_output=True, timeout=60, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder to submit from, as if it were the project's: logs of jobs land here."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("slurm", ".venv"):
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)
    return folder


def fork_in(project: Path) -> None:
    """Let the programs of a project's `.venv` be those that fork: starting four ranks takes a minute otherwise."""
    (project / ".venv").unlink()
    (project / ".venv").mkdir()
    (project / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
