"""Files that are whole or absent, and what they hold in one number."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def write_atomically(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Put bytes under a name in one step: a reader sees all of them or none, two writers do not mix.

    Without `sync` that also holds after a kill, but not after a power failure.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error  # a failed write names no file


def sha256_of(path: Path) -> str:
    """The hexadecimal SHA-256 of a file of any length, in little memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
