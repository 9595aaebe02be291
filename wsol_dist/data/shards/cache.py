"""The folder of this machine that remote shards are kept in, shared by all its processes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsol_dist.errors import UserError

CACHE_VARIABLE, CACHE_GIB_VARIABLE = "WSOL_CACHE", "WSOL_CACHE_GIB"
"""Environment: folder of the cache, and its largest size in GiB (without it nothing is ever removed)."""
MAX_OPEN_BOUNDED = 16
"""Tars that a process holds open in a cache of limited size: what is open is not removed."""


def cache_root() -> Path:
    """The folder of the cache: WSOL_CACHE, else `wsol_dist` in the user's cache folder."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wsol_dist"


def cache_limit() -> int | None:
    """Bytes that the tars in the cache may take together; None is no limit.

    Raises:
        UserError: WSOL_CACHE_GIB is no positive number.
    """
    given = os.environ.get(CACHE_GIB_VARIABLE)
    if not given:
        return None
    try:
        limit = float(given)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise UserError(
            f"{CACHE_GIB_VARIABLE}: {given!r} given; a number of GiB above 0 is needed, or leave it out"
        )
    return int(limit * 2**30)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process and thread of this machine at a time; on a file system without locks several, which is slower."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield
            return
        try:
            yield
        finally:
            fcntl.flock(
                file, fcntl.LOCK_UN
            )  # said, since a process forked meanwhile holds the descriptor too


def make_room(*, keep: Path | None = None) -> None:
    """Remove tars from the cache, the least recently used first, until it fits its limit; none that is open."""
    limit = cache_limit()
    if limit is None:
        return
    found = []
    for path in cache_root().glob("*/*.tar"):
        try:
            found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        except FileNotFoundError:
            continue
    too_much = sum(size for _, size, _ in found) - limit
    for _, size, path in sorted(found):
        if too_much <= 0:
            return
        if path != keep and _removed(path):
            too_much -= size


def _removed(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except OSError:
        return False
    return True
