"""Data sets as they are downloaded: a folder, a zip or a tar looks the same, and nothing is unpacked to disk.

A member of an archive has the part of `pathlib.Path` that sources use, so a source reads folders and archives with
the same lines. Archives are picklable and are opened again in every process.
"""

from __future__ import annotations

import bisect
import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from wsol_dist.errors import UserError

ZIP, TAR, GZIP = (".zip",), (".tar",), (".tgz", ".tar.gz")
MAX_MEMBER_BYTES = 2**31
"""Of one member when it is decompressed: the largest annotation file of any data set here has a quarter of it."""
IN_MEMORY_BYTES = 2**28
"""A compressed tar of at most this size, decompressed, is kept in memory: lists and annotations are read at random."""


class Member:
    """A file or a folder in an archive."""

    def __init__(self, archive: Archive, relative: str = "") -> None:
        self.archive, self.relative = archive, relative

    def __truediv__(self, name: str) -> Member:
        parts = [part for part in f"{self.relative}/{name}".split("/") if part not in ("", ".")]
        return Member(self.archive, "/".join(parts))

    def __str__(self) -> str:
        return f"{self.archive.path}:{self.relative}"

    @property
    def name(self) -> str:
        return PurePosixPath(self.relative).name or self.archive.path.name

    def is_file(self) -> bool:
        return self.relative in self.archive.files

    def is_dir(self) -> bool:
        return self.relative in self.archive.folders

    def iterdir(self) -> Iterator[Member]:
        """Direct children, in no promised order."""
        return (self / name for name in self.archive.folders.get(self.relative, ()))

    def read_bytes(self) -> bytes:
        """
        Raises:
            FileNotFoundError: no such file in the archive.
            OSError: it is damaged.
        """
        if not self.is_file():
            raise FileNotFoundError(2, "not in the archive", str(self))
        return self.archive.read(self.relative)

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)


Place = Path | Member
"""A file or a folder, on disk or in an archive."""


class Archive:
    """The regular files of an archive by name; a name never leaves the archive's root."""

    def __init__(self, path: Place) -> None:
        self.path = path
        self._handle: Any = None
        try:
            self.files: dict[str, Any] = dict(self._index())
        except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path}: cannot read this archive: {error}; is the download complete?"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "files": self.files, "_handle": None}

    @cached_property
    def folders(self) -> dict[str, list[str]]:
        """Names of the direct children of every folder; the root is the empty name."""
        children: dict[str, dict[str, None]] = {"": {}}
        for file in self.files:
            path = file
            while path:
                folder, _, name = path.rpartition("/")
                known = folder in children
                children.setdefault(folder, {})[name] = None
                path = "" if known else folder
        return {folder: list(names) for folder, names in children.items()}

    def read(self, name: str) -> bytes:
        """One member's bytes.

        Raises:
            OSError: damaged, or larger than `MAX_MEMBER_BYTES`.
        """
        try:
            return self._read(name)
        except (EOFError, ValueError, zlib.error, NotImplementedError, zipfile.BadZipFile) as error:
            raise OSError(5, f"damaged: {error}", f"{self.path}:{name}") from error

    def _index(self) -> Iterable[tuple[str, Any]]:
        raise NotImplementedError

    def _read(self, name: str) -> bytes:
        raise NotImplementedError

    def _checked(self, name: str, *, link: bool) -> str:
        parts = name.split("/")
        if name.startswith(("/", "\\")) or ".." in parts or "\\" in name or "\0" in name:
            raise UserError(f"{self.path}: refused: its member {name!r} has a path that leaves the archive")
        if link:
            raise UserError(f"{self.path}: refused: its member {name!r} is a link or a device, not a file")
        return "/".join(part for part in parts if part not in ("", "."))


class ZipArchive(Archive):
    """A zip; its members are read at random as they are."""

    def _open(self) -> zipfile.ZipFile:
        if self._handle is None:
            self._handle = zipfile.ZipFile(_open_bytes(self.path))
        return cast(zipfile.ZipFile, self._handle)

    def _index(self) -> Iterator[tuple[str, str]]:
        for info in self._open().infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            name = self._checked(info.filename, link=kind not in (0, stat.S_IFREG, stat.S_IFDIR))
            if not info.is_dir():
                yield name, info.filename

    def _read(self, name: str) -> bytes:
        info = self._open().getinfo(self.files[name])
        if info.flag_bits & 1:
            raise OSError(1, "encrypted", f"{self.path}:{name}")
        _check_size(info.file_size, f"{self.path}:{name}")
        return self._open().read(info)


class TarArchive(Archive):
    """A tar, also gzipped. Headers are read once; a member is then read at its offset.

    `nested`: members `NAME.tar` are looked into and appear as folders NAME, as in ImageNet's training tar.
    """

    def __init__(self, path: Place, *, nested: bool = False) -> None:
        self.gzipped, self.nested = path.name.endswith(GZIP), nested
        super().__init__(path)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "gzipped": self.gzipped, "nested": self.nested}

    def _open(self) -> BinaryIO:
        if self._handle is None:
            file = _open_bytes(self.path)
            self._handle = SeekableGzip(file) if self.gzipped else file
        return cast(BinaryIO, self._handle)

    def _index(self) -> Iterator[tuple[str, tuple[int, int]]]:
        yield from self._index_of(self._open(), prefix="", start=0, nested=self.nested)

    def _index_of(
        self, file: Any, *, prefix: str, start: int, nested: bool
    ) -> Iterator[tuple[str, tuple[int, int]]]:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                tar.members = []  # type: ignore[attr-defined]  # or a million headers stay in memory
                regular = info.isreg() and not info.issparse()
                name = self._checked(prefix + info.name, link=not regular and not info.isdir())
                if regular and nested and name.endswith(".tar"):
                    inner = tar.extractfile(info)
                    yield from self._index_of(
                        inner, prefix=name.removesuffix(".tar") + "/", start=info.offset_data, nested=False
                    )
                elif regular:
                    yield name, (start + info.offset_data, info.size)

    def _read(self, name: str) -> bytes:
        offset, size = self.files[name]
        _check_size(size, f"{self.path}:{name}")
        file = self._open()
        file.seek(offset)
        data = file.read(size)
        if len(data) != size:
            raise EOFError(f"ends after {len(data)} of {size} bytes")
        return data


class SeekableGzip(io.RawIOBase):
    """A gzip file read at random: the decoder's state is kept every few MiB, so a seek decodes no more than that."""

    SPACING, CHUNK = 2**21, 2**16

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = zlib.decompressobj(wbits=31)
        self._fresh = True
        """Whether the decoder has seen nothing of its stream yet."""
        self._start, self._buffer = 0, b""
        self._offsets = [0]
        self._states = [(0, self._decoder.copy())]
        self._position = 0
        self._kept: bytearray | None = bytearray()
        """Everything decoded from the start on, while that is little."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        assert whence in (io.SEEK_SET, io.SEEK_CUR), "the end is not known"
        self._position = offset + (self._position if whence == io.SEEK_CUR else 0)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, fewer only at the end."""
        assert size >= 0, "a whole archive does not belong in memory"
        first, last = self._position, self._position + size
        if self._kept is not None and last <= len(self._kept):
            self._position = last
            return bytes(self._kept[first:last])
        self._go_to(first)
        pieces, missing = [], size
        while missing:
            piece = self._buffer[self._position - self._start :][:missing]
            pieces.append(piece)
            self._position += len(piece)
            missing -= len(piece)
            if missing and not self._decode():
                break
        return b"".join(pieces)

    def _go_to(self, position: int) -> None:
        nearest = bisect.bisect_right(self._offsets, position) - 1
        if position < self._start or self._offsets[nearest] > self._start + len(self._buffer):
            compressed, decoder = self._states[nearest]
            self._file.seek(compressed)
            self._decoder, self._fresh = decoder.copy(), compressed == 0
            self._start, self._buffer = self._offsets[nearest], b""
        while position > self._start + len(self._buffer):
            if not self._decode():
                break
        self._position = min(position, self._start + len(self._buffer))

    def _decode(self) -> bool:
        """Replace the buffer by the next piece; False at the end."""
        data = self._file.read(self.CHUNK)
        if self._fresh and not data.strip(b"\0"):  # the end, perhaps padded
            return False
        if not data:
            raise EOFError("the gzip stream ends early")
        piece = self._decoder.decompress(data)
        self._fresh = self._decoder.eof
        if self._fresh:  # gzip files may be several streams, one after the other
            self._file.seek(-len(self._decoder.unused_data), io.SEEK_CUR)
            self._decoder = zlib.decompressobj(wbits=31)
        self._start, self._buffer = self._start + len(self._buffer), piece
        self._remember()
        return True

    def _remember(self) -> None:
        end = self._start + len(self._buffer)
        if self._kept is not None and self._start == len(self._kept):
            self._kept += self._buffer
            if len(self._kept) > IN_MEMORY_BYTES:
                self._kept = None
        if end >= self._offsets[-1] + self.SPACING and not self._fresh:
            self._offsets.append(end)
            self._states.append((self._file.tell(), self._decoder.copy()))

    def close(self) -> None:
        self._file.close()
        super().close()


def _open_bytes(path: Place) -> BinaryIO:
    """A file to read; one that lies in an archive is held in memory."""
    return path.open("rb") if isinstance(path, Path) else io.BytesIO(path.read_bytes())


def _check_size(size: int, where: str) -> None:
    if size > MAX_MEMBER_BYTES:
        raise OSError(27, f"{size} bytes, at most {MAX_MEMBER_BYTES} are read", where)


def open_place(path: Place, *, nested: bool = False) -> Place:
    """A folder as it is, an archive as its root.

    Raises:
        UserError: neither; or an archive that is damaged, or that holds links or paths that leave it.
    """
    if path.is_dir():
        return path
    if path.is_file() and path.name.endswith(ZIP):
        return Member(ZipArchive(path))
    if path.is_file() and path.name.endswith(TAR + GZIP):
        return Member(TarArchive(path, nested=nested))
    what = "neither a folder nor an archive" if path.is_file() else "no such folder or archive"
    raise UserError(f"{path}: {what}; expected a folder, {', '.join(ZIP + TAR + GZIP)}")


def find_place(root: Path, marker: str, *, archives: Iterable[str] = (), what: str, depth: int = 1) -> Place:
    """The folder that holds `marker`: the root, one up to `depth` below it, or the same in an archive in the root.

    Raises:
        UserError: there is none; `what` says what was expected.
    """
    if not root.exists():
        raise UserError(f"{root}: no such folder or archive; expected {what}")
    for start in _starts(root, archives):
        found = holding(open_place(start), marker, depth=depth)
        if found is not None:
            return found
    raise UserError(f"{root}: no {marker} in it; expected {what}")


def first_place(root: Place, *names: str) -> Place | None:
    """The first of some folders and archives below the root that is there, opened; None where none is."""
    for name in names:
        if (root / name).is_dir() or (root / name).is_file():
            return open_place(root / name)
    return None


def holding(place: Place, marker: str, *, depth: int = 1) -> Place | None:
    """The folder with an entry `marker`: the place itself or one up to `depth` below it; None where none has it."""
    if (place / marker).is_file() or (place / marker).is_dir():
        return place
    below: list[Place] = [entry for entry in place.iterdir() if entry.is_dir()] if depth else []
    candidates = (
        holding(folder, marker, depth=depth - 1) for folder in sorted(below, key=lambda one: one.name)
    )
    return next((found for found in candidates if found is not None), None)


def _starts(root: Path, archives: Iterable[str]) -> Iterator[Path]:
    yield root
    if root.is_dir():
        yield from (root / name for name in archives if (root / name).is_file())
