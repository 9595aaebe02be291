"""Files that are whole or absent, and the checksum of what they hold."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_or_absent(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """A file to write, which gets its name when the block ends; after an error nothing of it is left.

    A reader sees all of it or none, and two writers do not mix. Without `sync` that also holds after a kill, but not
    after a power failure.

    Raises:
        OSError: it cannot be written; `filename` is the path.
    """
    part = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        # A failed write names no file, and a failed start the part, which no user knows.
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(part)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_atomically(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Put bytes under a name in one step, as `whole_or_absent`."""
    with whole_or_absent(path, sync=sync) as file:
        file.write(data)


def remove_stale(path: Path) -> None:
    """Remove what killed processes of this machine left of `whole_or_absent(path)`."""
    for part in path.parent.glob(f"{path.name}.{socket.gethostname()}.*.tmp"):
        process = part.name.rpartition(".tmp")[0].rpartition(".")[2]
        if not Path("/proc", process).exists():
            part.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """The hexadecimal SHA-256 of a file of any length, in little memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
