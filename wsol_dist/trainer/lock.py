"""One training in a run folder at a time: two would overwrite each other's checkpoints."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import TextIO

from wsol_dist.errors import UserError

LOCK_FILE = "train.lock"


class RunLock:
    """A lock on a run folder, held until it is released or the process ends, however it ends."""

    def __init__(self) -> None:
        self._file: TextIO | None = None

    def take(self, folder: Path) -> None:
        """Take the lock of a folder that exists.

        Raises:
            UserError: another process holds it.
        """
        file = (folder / LOCK_FILE).open("a+", encoding="utf-8")
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
                    f"{folder}: another training runs in this folder ({holder}); wait for its end or end it, "
                    "or choose another --out"
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
