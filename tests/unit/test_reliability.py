"""The page of reliability is what its rows and measurements give; the watchdog's and the requeue's quiet sides."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.reliability.rows import ROWS
from tests.e2e.reliability.table import PAGE, render
from wsol_dist.config.train import TrainConfig
from wsol_dist.errors import UserError
from wsol_dist.launching.requeue import BY_HAND, requeue
from wsol_dist.processes.stop import STOPPED
from wsol_dist.validation import validated

TESTS = Path(__file__).parents[1]
WATCHED = """
import sys, time
from pathlib import Path
from wsol_dist.processes.watchdog import Watchdog
from wsol_dist.processes.ranks import Ranks
with Watchdog(Path(sys.argv[1]), Ranks(), timeout_s=2, then=lambda: "then") as watchdog:
    time.sleep(3)  # the first step
    watchdog.beat(1)
    with watchdog.paused():
        time.sleep(3)
    for step in range(2, 6):
        time.sleep(0.5)
        watchdog.beat(step)
    print("quiet", flush=True)
    if sys.argv[2] == "hangs":
        time.sleep(60)
time.sleep(3)
print("through")
"""


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == render()


def test_every_row_names_a_test_that_is_there() -> None:
    for row in ROWS:
        file, _, name = row.test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (TESTS / file).read_text(), row.test


@pytest.mark.slow
@pytest.mark.parametrize("how", ["hangs", "ends"])
def test_the_watchdog_ends_what_hangs_and_nothing_else(tmp_path: Path, how: str) -> None:
    words = [sys.executable, "-c", WATCHED, str(tmp_path), how]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    if how == "ends":
        assert (done.returncode, done.stdout) == (0, "quiet\nthrough\n"), done.stderr
        assert not (tmp_path / "logs").exists()
        return
    assert done.returncode == STOPPED, done.stderr
    assert done.stdout.startswith("quiet\nALERT hang: no step for 2 s (train.hang_timeout_s 2) after step 5;")
    assert done.stdout.endswith("stopped: hung after step 5; then\n")
    (stack,) = (tmp_path / "logs").glob("hang-*/rank-00000.txt")
    assert 'File "<string>", line 16 in <module>' in stack.read_text()


def test_outside_slurm_a_person_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert requeue(limit=3) == BY_HAND


def test_a_job_is_not_requeued_for_ever(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert requeue(limit=3) == f"job 12 was started again 3 times (train.max_requeues 3); {BY_HAND}"
    assert requeue(limit=4).startswith("job 12 is not requeued (")


@pytest.mark.parametrize("state", ["RUNNING None", "COMPLETING TimeLimit", "COMPLETING None"])
def test_a_job_that_a_person_cancelled_stays_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str
) -> None:
    (tmp_path / "squeue").write_text(f"#!/bin/sh\necho {state}\n")
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\n')
    for name in ("squeue", "scontrol"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    said = requeue(limit=3)
    if state == "COMPLETING None":
        assert said.startswith("job 12 was cancelled")
        assert not (tmp_path / "asked").exists()
    else:
        assert said == "job 12 is requeued, restart 1 of at most 3"
        assert (tmp_path / "asked").read_text() == "requeue 12\n"


@pytest.mark.parametrize("wrong", [{"hang_timeout_s": -1}, {"max_requeues": -1}])
def test_limits_are_not_negative(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=f"^{next(iter(wrong))}: given -1; allowed: 0 or more$"):
        validated(TrainConfig, wrong)
