"""Ranks as processes of their own, as srun, torchrun and submitit start them: the first error is told, and once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.test_track import finished_records
from wsol_dist.launching.job import MAIN_LOG
from wsol_dist.processes.ports import free_port

WORLD = 3
LIMIT_S = 120


def run_ranks(
    folder: Path, how: str, *words: str, own_logs: bool = False, world: int = WORLD
) -> tuple[str, set[int]]:
    """The main log, and the exit codes of the ranks that ended by themselves.

    As srun with --kill-on-bad-exit does: with the first bad exit all others get SIGTERM.
    """
    port = str(free_port())
    logs = [folder.parent / (f"log-{rank}" if own_logs else "log-0") for rank in range(world)]
    processes = []
    for rank in range(world):
        environment = os.environ | {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": "1",
        }
        if own_logs:
            environment[MAIN_LOG] = str(logs[0])
        with logs[rank].open("ab") as log:
            command = [sys.executable, "-m", "tests.dist.failing_rank", how, str(folder), *words]
            processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
    until = time.monotonic() + LIMIT_S
    try:
        while all((process.poll() or 0) == 0 for process in processes) and time.monotonic() < until:
            time.sleep(0.1)
        # As torchrun and srun without that flag: the others find out by themselves.
        while how.endswith("killed") and any(process.poll() is None for process in processes):
            assert time.monotonic() < until, logs[0].read_text()
            time.sleep(0.1)
    finally:
        for process in processes:
            process.terminate()
        codes = {process.wait(timeout=60) for process in processes}
    return logs[0].read_text(), codes - {-signal.SIGTERM, -signal.SIGKILL}


def test_an_exception_is_told_once_with_its_place_and_in_wandb(tmp_path: Path) -> None:
    text, codes = run_ranks(tmp_path / "run", "exception", "--wandb", "offline")
    assert codes == {1}
    assert text.count("Traceback (most recent call last)") == 1
    assert text.count("the cup is empty") == 2  # the line that raises it, and the exception
    header = f"first error: rank 1 of {WORLD}, node {socket.gethostname()}, CPU (process "
    assert text.count("first error: ") == text.count(header) == 1
    assert text.rstrip().endswith("ValueError: the cup is empty")
    records = finished_records(next((tmp_path / "run/wandb").glob("offline-run-*/*.wandb")))
    (alert,) = [record.alert for record in records if record.WhichOneof("record_type") == "alert"]
    assert alert.title == "ValueError: the cup is empty"
    assert alert.text.startswith(header)
    (end,) = [record.exit for record in records if record.WhichOneof("record_type") == "exit"]
    assert end.exit_code == 1


def test_a_mistake_that_every_rank_finds_is_told_once(tmp_path: Path) -> None:
    text, codes = run_ranks(tmp_path / "run", "mistake")
    assert codes == {2}
    assert text.count("error: the cup is empty; fill it\n") == 1
    assert "Traceback" not in text


@pytest.mark.slow
def test_ranks_of_a_command_that_starts_none_itself_tell_it_once(tmp_path: Path) -> None:
    """As `srun wsol evaluate` does."""
    text, codes = run_ranks(tmp_path / "run", "spawned")
    assert codes == {1}
    assert text.count("Traceback (most recent call last)") == text.count("first error: rank 1 of 3") == 1
    assert text.rstrip().endswith("ValueError: the cup is empty")


@pytest.mark.slow
def test_where_the_run_folder_takes_nothing_it_is_still_told_once(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/logs").write_text("no folder")
    text, codes = run_ranks(tmp_path / "run", "exception")
    assert codes == {1}
    assert text.count("Traceback (most recent call last)") == text.count("first error: rank 1") == 1


@pytest.mark.slow
def test_a_killed_rank_is_named_by_those_that_lost_it(tmp_path: Path) -> None:
    text, codes = run_ranks(tmp_path / "run", "rank 1 killed")
    assert codes == {1}
    assert text.count("first error: ") == text.count("Traceback (most recent call last)") == 1
    assert "it lost a peer. Without a word, killed (out of memory?) or still waiting: rank 1 of 3" in text


@pytest.mark.slow
def test_without_rank_0_another_one_tells_it_in_the_main_log(tmp_path: Path) -> None:
    text, codes = run_ranks(tmp_path / "run", "rank 0 killed", own_logs=True)
    assert codes == {1}
    assert text.count("first error: ") == text.count("Traceback (most recent call last)") == 1
    assert "Without a word, killed (out of memory?) or still waiting: rank 0 of 3" in text
    for rank in (1, 2):
        assert "Traceback" not in (tmp_path / f"log-{rank}").read_text()
