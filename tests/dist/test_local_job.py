"""Jobs of submitit on this machine: what they say is shown, and why they failed is the last thing said."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import submitit

from wsol_dist.launching.job import WsolJob
from wsol_dist.launching.local_job import wait_and_show


def submit(folder: Path, job: Callable[[], Any]) -> Any:
    executor = submitit.AutoExecutor(folder=folder, cluster="local")
    executor.update_parameters(tasks_per_node=2, timeout_min=2, stderr_to_stdout=True)
    return executor.submit(job)


def one_task_fails(how: str) -> None:
    print("at work", flush=True)
    if submitit.JobEnvironment().global_rank == 0:
        return
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("the cup is empty")


class OneFails:
    """Picklable: `one_task_fails` with its argument."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __call__(self) -> None:
        one_task_fails(self.how)


def test_a_job_that_ends_well_is_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert wait_and_show(submit(tmp_path, WsolJob(("--help",)))) == 0
    said = capfd.readouterr()
    assert "usage: wsol" in said.out
    assert "submitit INFO" not in said.out
    assert said.err == ""


def test_a_users_mistake_is_said_last_and_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job = submit(tmp_path, WsolJob(("show", "quikstart")))
    assert wait_and_show(job) == 2
    first, last = capfd.readouterr().err.splitlines()
    assert first == f"job {job.job_id} failed; its log: {job.paths.stdout}"
    assert last.startswith("error: unknown recipe 'quikstart'; did you mean 'quickstart'?")


def test_a_failing_task_is_named_with_its_exception(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = submit(tmp_path, OneFails("raises"))
    assert wait_and_show(job) == 1
    said = capfd.readouterr()
    assert "at work" in said.out
    first, last = said.err.splitlines()
    assert first.endswith(str(job.task(1).paths.stdout))
    assert last == "error: task 1: ValueError: the cup is empty"


def test_a_killed_task_is_named_with_its_last_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert wait_and_show(submit(tmp_path, OneFails("killed"))) == 1
    assert capfd.readouterr().err.splitlines()[-1] == "error: task 1: at work"


def sleep_long() -> None:
    time.sleep(1000)


def test_the_job_ends_with_whoever_waits_for_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job = submit(tmp_path, sleep_long)
    before = signal.getsignal(signal.SIGTERM)

    def tell_to_stop() -> None:
        while signal.getsignal(signal.SIGTERM) is before:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=tell_to_stop, daemon=True).start()
    start = time.monotonic()
    assert wait_and_show(job) == 130
    job.wait()
    assert time.monotonic() - start < 240
    assert "the same command goes on from the newest checkpoint" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before
