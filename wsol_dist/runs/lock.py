"""One training in a run folder at a time, and one evaluator that follows it: two would overwrite each other's files."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from wsol_dist.errors import UserError

LOCK_FILE = "train.lock"


@dataclass(frozen=True, kw_only=True)
class Lock:
    """What is locked."""

    file: str
    """In the run folder."""
    job: str
    """What holds it, as a message says it behind `another`."""
    cure: str


TRAINING = Lock(
    file=LOCK_FILE,
    job="training runs in this folder",
    cure="wait for its end or end it, or choose another --out",
)
FOLLOWING = Lock(file="follow.lock", job="evaluator follows this run", cure="wait for its end or end it")


class RunLock:
    """A lock on a run folder, held until it is released or the process ends, however it ends."""

    def __init__(self, lock: Lock = TRAINING) -> None:
        self._lock = lock
        self._file: TextIO | None = None

    def take(self, folder: Path) -> None:
        """Take the lock of a folder that exists.

        Raises:
            UserError: another process holds it.
        """
        file = (folder / self._lock.file).open("a+", encoding="utf-8")
        try:
            # A record lock, which belongs to the process: loader processes forked from it do not inherit it, so
            # none of them holds it when the training itself was killed.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                holder = file.read().strip() or "another process"
                file.close()
                raise UserError(
                    f"{folder}: another {self._lock.job} ({holder}); {self._lock.cure}"
                ) from error
            # A file system without locks: then there is none.
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None
