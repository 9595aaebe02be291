"""Runs that are killed, started twice, short of something, or continued with other shards."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.faults.process import finish, message, start
from tests.e2e.faults.table import fault
from tests.forkserver import FRESH
from wsol_dist.cli import main
from wsol_dist.runs import checkpoint
from wsol_dist.runs.lock import LOCK_FILE

TRAIN = ("train", "recipe.yaml", "--out")


@pytest.mark.slow
def test_a_second_training_is_refused_until_the_first_is_killed(prepared: Path) -> None:
    run = prepared / "run"
    long = (*TRAIN, str(run), "--train.epochs", "2000")
    first = start(prepared, *long, python=FRESH)  # killed from outside, and alone
    while first.poll() is None and not (run / "checkpoints").is_dir():
        time.sleep(0.2)
    second, said = finish(start(prepared, *long))
    assert second == 2
    assert fault("two trainings in one run folder").pattern(prepared).fullmatch(message(said)), said
    assert first.poll() is None
    # Killed, and only the training itself: its loader processes notice later.
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert fault("a training was killed").message == ""
    left = run / "checkpoints" / ".unfinished-00099999"
    left.mkdir()
    newest = checkpoint.complete_checkpoints(run)[-1].name
    third = start(prepared, *long)
    line = next(line for line in third.stdout or () if "continues after step" in line)
    third.kill()
    third.communicate()
    assert f"step {int(newest.removeprefix('step-'))}" in line
    assert not left.exists()


@pytest.mark.slow
def test_a_run_goes_on_with_its_own_shards_only(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, run, shards = prepared / "recipe.yaml", prepared / "run", prepared / "shards"
    words = ["train", str(recipe), "--out", str(run)]
    assert main(words) == 0
    before = sorted(path.name for path in (run / "checkpoints").rglob("*"))
    shutil.rmtree(shards)
    counts = ["--num-train", "96", "--num-val", "24", "--num-test", "40", "--image-px", "32", "--seed", "1"]
    assert main(["shards", "pack", "collage", "--out", str(shards), "--workers", "1", *counts]) == 0
    capsys.readouterr()
    assert main(words) == 2
    said = message(capsys.readouterr().err)
    assert fault("continue on other shards").pattern(prepared).fullmatch(said), said
    assert sorted(path.name for path in (run / "checkpoints").rglob("*")) == before


@pytest.mark.slow
def test_a_port_in_use(prepared: Path) -> None:
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))  # noqa: S104 - the port is to be taken everywhere
        other.listen()
        port = other.getsockname()[1]
        code, text = finish(start(prepared, *TRAIN, "run", environment={"MASTER_PORT": str(port)}))
    assert code == 2, text
    said = message(text)
    assert fault("port in use").pattern(prepared, port=port).fullmatch(said), said
    assert not (prepared / "run").exists()


def test_ranks_without_an_address(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "recipe.yaml", "--out", "run"]) == 2
    assert fault("ranks without an address").pattern(prepared).fullmatch(message(capsys.readouterr().err))


@pytest.mark.slow
def test_training_without_a_compiler(prepared: Path) -> None:
    assert fault("no compiler").message == ""
    assert not any(shutil.which(name) for name in ("gcc", "g++", "cc", "c++", "clang", "ninja"))
    names = {name: "" for name in ("CC", "CXX")}
    code, said = finish(
        start(prepared, *TRAIN, "run", environment=names | {"PATH": str(prepared)}, python=FRESH)
    )
    assert code == 0, said
    assert "train 6/6" in said


@pytest.mark.slow
def test_too_little_shared_memory(prepared: Path) -> None:
    unshare = shutil.which("unshare", path="/usr/bin:/bin")
    own = (str(unshare), "--mount", "--propagation", "private", "--")
    if unshare is None or subprocess.run([*own, "/bin/true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount: not here")
    mount = '/bin/mount -t tmpfs -o size=256k none /dev/shm && exec "$@"'
    wrapper = (*own, "/bin/sh", "-c", mount, "sh")
    scoring = ("--val.every-epochs", "1", "--evaluate.workers", "8")
    code, said = finish(start(prepared, *TRAIN, "run", *scoring, wrapper=wrapper))
    assert code == 2, said
    assert fault("shared memory too small").pattern(prepared).fullmatch(message(said)), said


def test_the_lock_of_a_process_that_ended_is_free(prepared: Path) -> None:
    assert fault("two trainings in one run folder").then.startswith("exit 2")
    from wsol_dist.runs.lock import RunLock

    (prepared / LOCK_FILE).write_text("process 1 on a machine that is no more\n")
    lock = RunLock()
    lock.take(prepared)
    assert str(os.getpid()) in (prepared / LOCK_FILE).read_text()
    lock.release()
