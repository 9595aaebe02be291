"""Shards behind a URL: each file is fetched whole into a local cache at its first use, checked, and kept there.

fsspec knows the protocols (`https://`, `s3://`, `gs://`, `hf://`, `file://`, ...). All processes of a machine share
the cache: whoever wants a file first fetches it under a lock, the others wait and find it.
"""

from __future__ import annotations

import fcntl
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsol_dist.data.shards.cache import CACHE_GIB_VARIABLE, CACHE_VARIABLE, cache_limit, locked, make_room
from wsol_dist.errors import DISK_FULL, NOT_WRITABLE, UserError
from wsol_dist.files import sha256_of

TRIES = 6
FIRST_WAIT_S = 1.0
"""Before the second try; doubled before each further one, give or take a half, so that ranks do not come in step."""
STALL_S = 60.0
"""An http(s) connection on which nothing arrives for so long counts as failed; other protocols have their own."""
PROTOCOL = re.compile(r"([a-z][a-z0-9+.\-]*)://", re.IGNORECASE)


def is_url(place: str | Path) -> bool:
    """Whether it names a protocol; everything else is a folder."""
    return isinstance(place, str) and PROTOCOL.match(place) is not None


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A file of the remote folder, as its index names it."""

    file: str
    sha256: str
    bytes: int | None = None
    """None where the index does not say."""

    def problem(self, path: Path) -> str | None:
        """What is wrong with what came, None if it is this file."""
        size = path.stat().st_size
        if self.bytes is not None and size != self.bytes:
            return f"{size} of {self.bytes} bytes came"
        return (
            None
            if sha256_of(path) == self.sha256
            else "what came is not what the index names (sha256 differs)"
        )


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A folder behind a URL, and the folder of the cache that holds what was fetched of it."""

    url: str
    folder: Path

    def fetch(self, wanted: Wanted) -> Path:
        """The file in the cache; fetched unless it is there.

        Raises:
            UserError: it stays away, or is another one than the index says, after all tries; the disk is full; the
                cache's limit is no number.
        """
        path = self.folder / wanted.file
        if path.exists():
            return path
        cache_limit()  # a mistake in it is told before anything is fetched
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(path.with_name(f".{wanted.file}.lock")):
                if not path.exists():
                    self._fetch(wanted, path)
        except OSError as error:
            if error.errno in DISK_FULL + NOT_WRITABLE:
                raise UserError(
                    f"{path}: cannot be written ({error.strerror}); free space there, or set {CACHE_VARIABLE} to "
                    f"another folder, {CACHE_GIB_VARIABLE} to keep it small"
                ) from error
            raise
        make_room(keep=path)
        return path

    def open(self, wanted: Wanted) -> int:
        """A descriptor of the file in the cache, which stays there at least until the descriptor is closed."""
        while True:
            path = self.fetch(wanted)
            try:
                file = os.open(path, os.O_RDONLY)
            except FileNotFoundError:  # another process made room in between
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                now = time.time_ns()  # the kernel's own time for this is some milliseconds coarse
                os.utime(path, ns=(now, now))
            except OSError:
                # Being removed at this moment, or a file system without locks; what is open can be read all the same.
                pass
            return file

    def has(self, file: str) -> bool:
        """Whether it lies in the cache."""
        return (self.folder / file).exists()

    def _fetch(self, wanted: Wanted, path: Path) -> None:
        for stale in self.folder.glob(f".{wanted.file}.*.tmp"):  # of killed processes: the lock is ours
            stale.unlink(missing_ok=True)
        part = path.with_name(f".{wanted.file}.{os.getpid()}-{threading.get_ident()}.tmp")

        def once(filesystem: Any, root: str) -> None:
            filesystem.get_file(f"{root}/{wanted.file}", str(part))
            problem = wanted.problem(part)
            if problem is not None:
                raise _CameWrongError(problem)

        try:
            part.touch()  # a cache that is not writable shows here, and not as a refusal of the other side
            with_retries(self.url, wanted.file, once)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


class _CameWrongError(Exception):
    """A transfer that ended well and is not the file."""


def read_remote(url: str, file: str) -> bytes:
    """A small file of a remote folder, not cached.

    Raises:
        UserError: it stays away; no such protocol; a package is missing for it.
    """
    return with_retries(url, file, lambda filesystem, root: filesystem.cat_file(f"{root}/{file}"))


def with_retries(url: str, file: str, work: Callable[[Any, str], Any]) -> Any:
    """Call `work(filesystem, root)` until it goes through, with growing pauses; each failure is a line on stderr.

    Raises:
        UserError: it never did; file, tries and the last failure are named.
    """
    filesystem, root = _filesystem(url)
    start = time.monotonic()
    for tried in range(1, TRIES + 1):
        try:
            return work(filesystem, root)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            what = "refused" if isinstance(error, PermissionError) else "not there"
            raise UserError(
                f"{url}/{file}: {what} ({_words(error)}); check the address and what it holds"
            ) from error
        except Exception as error:  # every protocol's library has its own failures
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise
            if tried == TRIES:
                raise UserError(
                    f"{url}/{file}: stays away: {tried} tries in {time.monotonic() - start:.0f} s, the last: "
                    f"{_words(error)}; once that is mended, the same command goes on"
                ) from error
            wait_s = FIRST_WAIT_S * 2 ** (tried - 1) * random.uniform(0.5, 1.5)  # noqa: S311 - spreads retries
            print(
                f"{url}/{file}: try {tried} of {TRIES} failed: {_words(error)}; again in {wait_s:.1f} s",
                file=sys.stderr,
                flush=True,
            )
            time.sleep(wait_s)
    raise AssertionError("the last try returns or raises")


def _filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system for the URL, made in this process, and the folder's path in it."""
    import fsspec

    protocol = PROTOCOL.match(url)
    assert protocol is not None
    if "::" in url:
        raise UserError(f"{url}: chained addresses (::) are not read; give the address of the folder itself")
    try:
        filesystem = fsspec.filesystem(protocol[1].lower(), **_options(protocol[1].lower()))
        return filesystem, str(filesystem._strip_protocol(url)).rstrip("/")
    except ImportError as error:
        raise UserError(
            f"{url}: a package is missing for {protocol[0]} ({_words(error)}); install it with pip"
        ) from error
    except ValueError as error:
        raise UserError(
            f"{url}: {_words(error)}; give a folder, or an address such as https://, s3://, gs://, hf:// or file://"
        ) from error


def _options(protocol: str) -> dict[str, Any]:
    if protocol not in ("http", "https"):
        return {}
    import aiohttp

    # aiohttp's own limit is five minutes for a whole file, however fast it comes.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=STALL_S, sock_read=STALL_S)
    return {"client_kwargs": {"timeout": timeout}}


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:300] if isinstance(error, _CameWrongError) else f"{type(error).__name__}: {text[:300]}"
