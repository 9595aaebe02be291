"""Ranks as processes of this machine: whatever ends one of them comes out here, once, and ends the others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tyro

from wsol_dist import cli
from wsol_dist.errors import RankError, UserError
from wsol_dist.processes.ranks import Ranks
from wsol_dist.processes.spawn import Failure, cause, spawn, was_killed


def write_sum(own: Ranks, folder: Path) -> None:
    total = own.all_sum(np.array([own.rank + 1]))
    (folder / str(own.rank)).write_text(f"{own.world} {total[0]}")


def fail(own: Ranks, how: str, *, failing: int = 1) -> None:
    """One rank fails; the others wait for it, as in training."""
    if own.rank != failing:
        own.barrier()
        time.sleep(600)
    if how == "user":
        raise UserError("the cup is empty; fill it")
    if how == "exit":
        raise SystemExit(2)
    if how == "signal":
        os.kill(os.getpid(), signal.SIGKILL)
    _divide(0)


def _divide(number: int) -> float:
    return 1 / number


def fail_everywhere(own: Ranks) -> None:
    raise UserError("the cup is empty; fill it")


@dataclass
class Options:
    """Of a command that `cli.run` can call."""

    how: tyro.conf.Positional[str]
    """How it fails."""


def run(options: Options) -> int:
    spawn(fail, 2, options.how)
    return 0


@pytest.fixture(autouse=True)
def no_rank_is_left() -> object:
    start = time.monotonic()
    others = {process.pid for process in multiprocessing.active_children()}  # the session's pool of ranks
    yield
    assert {process.pid for process in multiprocessing.active_children()} <= others
    assert time.monotonic() - start < 300  # on a busy machine starting them takes most of it


class Unreadable:
    """An argument that a rank cannot read: what a missing module or a broken file looks like there."""

    def __reduce__(self) -> tuple[object, ...]:
        return _divide, (0,)


@pytest.mark.parametrize("procs", [1, 2])
def test_ranks_work_together(tmp_path: Path, procs: int) -> None:
    spawn(write_sum, procs, tmp_path)
    total = procs * (procs + 1) // 2
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == [f"{procs} {total}"] * procs


def test_a_users_mistake_comes_out_as_one_line_and_code_2(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run("tests.dist.test_spawn", ["user"], prog="spawn") == 2
    assert capfd.readouterr().err == "error: the cup is empty; fill it\n"


@pytest.mark.slow
def test_a_mistake_that_every_rank_finds_comes_out_once() -> None:
    with pytest.raises(UserError, match=r"^the cup is empty; fill it$"):
        spawn(fail_everywhere, 2)


@pytest.mark.slow
def test_an_exit_code_comes_out() -> None:
    with pytest.raises(SystemExit) as stop:
        spawn(fail, 2, "exit")
    assert stop.value.code == 2


def test_an_exception_comes_out_once_with_its_traceback_and_rank(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run("tests.dist.test_spawn", ["divide"], prog="spawn") == 1
    text = capfd.readouterr().err
    assert text.startswith("rank 1 of 2 raised an exception:\nTraceback")
    assert text.endswith("ZeroDivisionError: division by zero\n")
    assert text.count("in _divide") == text.count("Traceback") == 1


def test_what_a_rank_cannot_import_comes_out_with_its_traceback() -> None:
    with pytest.raises(
        RankError, match=r"^rank . of 2 raised an exception:\nTraceback(.|\n)*ZeroDivisionError"
    ):
        spawn(write_sum, 2, Unreadable())


def test_the_cause_is_told_not_what_followed_from_it() -> None:
    followed = Failure(rank=0, text="raised an exception:\n...")
    aborted = Failure(rank=1, text="was ended by signal SIGABRT", killed=was_killed("SIGABRT"))
    killed = Failure(rank=2, text="was ended by signal SIGKILL", killed=was_killed("SIGKILL"))
    mistake = Failure(rank=3, error=UserError("the cup is empty; fill it"))
    assert cause([followed, aborted]) is followed  # a library aborts where it loses its peer
    assert cause([followed, aborted, killed]) is killed
    assert cause([followed, killed, mistake]) is mistake


def test_a_killed_rank_is_named_with_its_signal() -> None:
    with pytest.raises(RankError, match=r"^rank 1 of 2 was ended by signal SIGKILL; .*memory$"):
        spawn(fail, 2, "signal")
