"""A forked process is to whoever started it what a new Python would be."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.forkserver import FRESH

pytestmark = pytest.mark.skipif(
    sys.executable == FRESH, reason="processes are not forked where there is a GPU"
)
SHOW = "import os, sys; print(os.getcwd(), sys.argv[1:], os.environ['WORD'], 'torch' in sys.modules, sys.stdin.read())"
HEAR = """
import os, signal, sys, time
signal.signal(signal.SIGUSR2, lambda *_: (print("heard", flush=True), os._exit(5)))
print(os.getpid(), flush=True)
time.sleep(100)
"""
FOLDER = """
import os
from wandb.sdk.data_types._private import MEDIA_TMP
print(MEDIA_TMP.name, os.path.isdir(MEDIA_TMP.name))
"""


def run(code: str, *words: str, **how: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, **how)


def test_arguments_environment_folder_and_input_are_those_it_was_given(tmp_path: Path) -> None:
    done = run(SHOW, "a b", "", cwd=tmp_path, env=os.environ | {"WORD": "ü"}, input="in")
    assert done.stdout == f"{tmp_path} ['a b', ''] ü True in\n", done.stderr


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("import sys; sys.exit(3)", 3),
        ("import sys; sys.exit('why')", 1),
        ("1 / 0", 1),
        ("import os; os.abort()", -signal.SIGABRT),
        ("raise KeyboardInterrupt", -signal.SIGINT),
    ],
)
def test_it_ends_as_python_does(code: str, wanted: int) -> None:
    forked, fresh = run(code), subprocess.run([FRESH, "-c", code], capture_output=True, text=True)
    assert forked.returncode == fresh.returncode == wanted
    assert forked.stderr == fresh.stderr


def test_signals_reach_it_and_a_kill_ends_it() -> None:
    for number, code in ((signal.SIGUSR2, 5), (signal.SIGKILL, -signal.SIGKILL)):
        process = subprocess.Popen([sys.executable, "-c", HEAR], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        own = int(process.stdout.readline())
        process.send_signal(number)
        assert process.wait(60) == code
        until = time.monotonic() + 60
        while Path(f"/proc/{own}").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        process.stdout.close()


def test_limits_hold_for_it() -> None:
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_FSIZE))"
    done = run(code, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)))
    assert done.stdout == "(4096, 4096)\n", done.stderr


def test_each_has_temporary_folders_of_its_own() -> None:
    """Also after another one ended, which removes its own."""
    said = {run(FOLDER).stdout for _ in range(3)}
    assert len(said) == 3
    assert all(one.endswith(" True\n") for one in said)
