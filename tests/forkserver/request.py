"""What a client of the fork server wants to be, and how a forked process becomes it."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import importlib
import marshal  # noqa: TID251  between processes of one test session
import os
import random
import resource
import runpy
import signal
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType, TracebackType
from typing import Any, NoReturn

ROOT = Path(__file__).parents[2]
LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
HIGH = 1000
"""File descriptors from here on are free while files are put in their places."""


@dataclass(frozen=True)
class Request:
    """A process that a client was started as."""

    words: list[str]
    """Arguments of Python."""
    environment: dict[str, str]
    cwd: str
    umask: int
    numbers: list[int]
    """Which descriptors the client's open files had."""
    ignored: list[int]
    blocked: list[int]
    files: list[int]
    """The same files here."""
    pid: int
    """Of the client."""

    @classmethod
    def parse(cls, data: bytes, files: list[int], pid: int) -> Request:
        """As the client wrote it."""
        words, environment, cwd, umask, numbers, ignored, blocked = marshal.loads(data)  # noqa: S302
        if len(numbers) != len(files):
            raise ValueError(f"{len(numbers)} open files, {len(files)} arrived")
        return cls(words, environment, cwd, umask, numbers, ignored, blocked, files, pid)

    def close(self) -> None:
        """The server itself has no use for the client's files."""
        for file in self.files:
            os.close(file)

    def become(self, main: ModuleType, folders: list[TemporaryDirectory[str]]) -> None:
        """Take on everything but the code.

        Args:
            main: an empty module.
            folders: temporary ones that the server's imports made.
        """
        os.setsid()
        self._enter_namespaces()
        os.chdir(self.cwd)
        os.environ.clear()
        os.environ.update(self.environment)
        os.umask(self.umask)
        self._place_files()
        os.sched_setaffinity(0, os.sched_getaffinity(self.pid))
        self._forget()
        _renew(folders)
        sys.modules["__main__"] = main
        main.__dict__.update(__builtins__=sys.modules["builtins"])
        for limit in LIMITS:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(limit, resource.prlimit(self.pid, limit))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in self.ignored:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.blocked)

    def _enter_namespaces(self) -> None:
        """Mounts and host name, where the client's are others: a virtual node of SLURM, a disk of its own."""
        libc = ctypes.CDLL(None, use_errno=True)
        kinds = [
            kind
            for kind in ("uts", "mnt")
            if os.readlink(f"/proc/{self.pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
        ]
        files = [os.open(f"/proc/{self.pid}/ns/{kind}", os.O_RDONLY) for kind in kinds]
        for file in files:
            if libc.setns(file, 0):
                raise OSError(ctypes.get_errno(), "setns")
            os.close(file)

    def _place_files(self) -> None:
        high = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, HIGH) for file in self.files]
        self.close()
        for file, number in zip(high, self.numbers, strict=True):
            os.dup2(file, number, inheritable=True)
            os.close(file)
        for number in {0, 1, 2} - set(self.numbers):
            os.close(number)

    def _forget(self) -> None:
        """What the server knows and a new process would not."""
        random.seed()
        sys.modules["numpy"].random.seed()
        tempfile.tempdir = tempfile._name_sequence = None  # type: ignore[attr-defined]
        time.tzset()
        sys.executable = str(Path(sys.argv[1]) / "bin" / "python")
        importlib.import_module("multiprocessing").set_executable(sys.executable)
        threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(self.pid)))
        if threads != 1:
            sys.modules["torch"].set_num_threads(threads)
        sys.argv = list(self.words)
        flags = set()
        while sys.argv[0] in ("-u", "-B"):
            flags.add(sys.argv.pop(0))
        sys.dont_write_bytecode = "-B" in flags or bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
        unbuffered = "-u" in flags or bool(os.environ.get("PYTHONUNBUFFERED"))
        sys.stdout.reconfigure(line_buffering=sys.stdout.isatty(), write_through=unbuffered)  # type: ignore[union-attr]
        self._set_path()

    def _set_path(self) -> None:
        """Search modules where Python would, and forget this project's where another copy of it comes first."""
        first = {"-m": os.getcwd(), "-c": ""}.get(sys.argv[0], str(Path(sys.argv[0]).resolve().parent))
        named = [path for path in os.environ.get("PYTHONPATH", "").split(":") if path]
        own = [path for path in sys.path if path not in ("", str(ROOT))]
        sys.path[:] = [first, *named, *own]
        importlib.invalidate_caches()
        copy = next((path for path in sys.path if Path(path or ".", "wsol_dist/__init__.py").exists()), None)
        if copy is not None and Path(copy or ".").resolve() != ROOT:
            for name in [name for name in sys.modules if name.split(".")[0] in ("wsol_dist", "tests")]:
                del sys.modules[name]

    def run(self) -> None:
        """Run the module, the code or the script as `__main__`."""
        kind, globals_ = sys.argv[0], sys.modules["__main__"].__dict__
        if kind == "-m":
            del sys.argv[0]
            sys.modules.pop(sys.argv[0], None)  # else it would be there twice
            runpy._run_module_as_main(sys.argv[0])  # type: ignore[attr-defined]
        elif kind == "-c":
            code = sys.argv[1]
            sys.argv[:2] = ["-c"]
            exec(compile(code, "<string>", "exec", dont_inherit=True), globals_)  # noqa: S102  what Python does
        else:
            globals_ |= {"__file__": kind}
            exec(compile(Path(kind).read_bytes(), kind, "exec", dont_inherit=True), globals_)  # noqa: S102


def _renew(folders: list[TemporaryDirectory[str]]) -> None:
    """Give the process temporary folders of its own: at its end it would remove those of the server, for all."""
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    for folder in folders:
        folder.__init__()  # type: ignore[misc]


def end(run: Callable[[], None]) -> NoReturn:
    """Run and end as Python does, but leave the interpreter whole: taking so many modules apart takes 2 CPU-seconds."""
    code: Any = 0
    try:
        run()
    except SystemExit as error:
        code = error.code
    except BaseException as error:
        error.__traceback__ = _own_part(error.__traceback__)
        sys.excepthook(type(error), error, error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 120
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit((code or 0) & 0xFF)


def _own_part(trace: TracebackType | None) -> TracebackType | None:
    """Without the frames of this file."""
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace
