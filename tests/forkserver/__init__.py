"""Processes under test, forked from one that has done the heavy imports.

Starting `wsol` or a rank costs 4 to 11 CPU-seconds of imports (torch, timm, DeepSpeed), and the tests start hundreds
of them. A program in `bin` behaves as Python does, and lets a server fork instead: see `client.py` for what is
carried over from the process that was started, `server.py` for the imports.

The tests' own `sys.executable` is that program, so whatever starts Python by that name is fast: tests,
`multiprocessing`, submitit, torchrun. The product is not changed for it. A test about the start itself (imports,
environment variables that are read at import, a signal in the first moment, SIGKILL from outside) uses `FRESH`.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER_VARIABLE = "WSOL_TEST_FORKSERVER"
FRESH = os.environ.get("WSOL_TEST_PYTHON") or sys.executable
"""The real Python of this environment: a process of its own from the first instruction on."""
PROGRAMS = {"python": "", "python3": "", "wsol": "wsol", "torchrun": "torchrun"}
"""Name of a program in `bin` -> the script of the environment that it runs."""


def prepare() -> Path:
    """Make the programs, whose first call starts the server; returns its folder.

    One server serves a test session and all its workers, and ends with the process that called this first.
    """
    if FOLDER_VARIABLE in os.environ:  # a worker of a session that has one
        return Path(os.environ[FOLDER_VARIABLE])
    folder = Path(tempfile.mkdtemp(prefix="forked-", dir="/tmp"))  # short: a socket is in it
    _write_programs(folder)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    listener.listen(512)
    environment = dict(os.environ)
    threading.Thread(target=_start_late, args=(listener, folder, environment), daemon=True).start()
    os.environ |= {FOLDER_VARIABLE: str(folder), "WSOL_TEST_PYTHON": FRESH}
    return folder


def _start_late(listener: socket.socket, folder: Path, environment: dict[str, str]) -> None:
    """Start the server when the first client knocks: most small test sessions need none."""
    select.select([listener], [], [])
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = [str(folder), str(listener.fileno()), str(os.getpid())]
    with listener, (folder / "log").open("wb") as log:
        subprocess.Popen(
            [FRESH, "-m", "tests.forkserver.server", *words],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            pass_fds=[listener.fileno()], env=environment,
        )  # fmt: skip


def use(folder: Path) -> None:
    """Let everything that this process starts as Python be forked, where that is safe."""
    if Path("/dev/nvidia0").exists() or not hasattr(os, "pidfd_open"):
        return  # a forked process cannot use a GPU that its parent has looked at
    sys.executable = str(folder / "bin" / "python")
    multiprocessing.set_executable(sys.executable)


def remove(folder: Path) -> None:
    """Forget the server, which ends with this process."""
    os.environ.pop(FOLDER_VARIABLE, None)
    sys.executable = FRESH
    shutil.rmtree(folder, ignore_errors=True)


def _write_programs(folder: Path) -> None:
    (folder / "bin").mkdir()
    code = Path(__file__).with_name("client.py").read_text(encoding="utf-8")
    for name, script in PROGRAMS.items():
        path = folder / "bin" / name
        prefix = [str(Path(FRESH).parent / script)] if script else []
        about = f"FOLDER, REAL, PREFIX = {str(folder)!r}, {FRESH!r}, {prefix!r}"
        path.write_text(f"#!{FRESH} -IS\n{code.replace('FOLDER = REAL = PREFIX = None', about)}")
        path.chmod(0o755)
