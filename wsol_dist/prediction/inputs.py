"""What to predict: images, folders, globs, or folders of shards -> a list of items, and the bytes of each."""

from __future__ import annotations

import glob
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from wsol_dist.data.images.decode import DecodeError
from wsol_dist.data.raw.files import extension_of, inside
from wsol_dist.data.shards.index import INDEX_FILE, Index
from wsol_dist.data.shards.remote import is_url
from wsol_dist.data.stream.stream import ShardReader
from wsol_dist.errors import UserError
from wsol_dist.options import names_of

EXTENSIONS = ("jpg", "png", "webp", "bmp", "gif", "tif", "tiff")
"""Of images in folders; a file that is named itself may have any."""


@dataclass(frozen=True, kw_only=True)
class ImageItem:
    """One image, not read yet."""

    id: str
    """Unique: the path below `Inputs.root`, or the sample's id."""
    given: int | None = None
    """Class that its folder or shard says it has."""
    shard: int = -1
    """Position in `Inputs.shards`; -1 for a file."""
    row: int = -1


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """Tells whether an image is still the one that was predicted."""

    num_bytes: int
    modified_ns: int


@dataclass(kw_only=True)
class Inputs:
    """The images in their order; picklable, every process opens its own files."""

    items: list[ImageItem]
    root: Path | None = None
    """Absolute folder that ids are below; None for shards."""
    shards: list[tuple[str, str]] = field(default_factory=list)
    """(index folder, split)."""

    def __post_init__(self) -> None:
        self._readers: dict[int, ShardReader] = {}
        self._lock = threading.Lock()

    def read(self, item: ImageItem) -> tuple[bytes, Stamp]:
        """The encoded image; may be called by several threads.

        Raises:
            DecodeError: it is gone, cannot be read, or its shard is damaged there.
        """
        if item.shard >= 0:
            with self._lock:
                data = self.reader(item.shard).image(item.row)
            return data, Stamp(num_bytes=len(data), modified_ns=0)
        assert self.root is not None
        try:
            with (self.root / item.id).open("rb") as file:
                about = os.fstat(file.fileno())
                return file.read(), Stamp(num_bytes=about.st_size, modified_ns=about.st_mtime_ns)
        except OSError as error:
            raise DecodeError(f"cannot be read: {error.strerror}") from error

    def stamp(self, item: ImageItem) -> Stamp | None:
        """What `read` would give beside the bytes; None for shards, which do not change, and where a file is gone."""
        if item.shard >= 0:
            return None
        assert self.root is not None
        try:
            about = os.stat(self.root / item.id)
        except OSError:
            return None
        return Stamp(num_bytes=about.st_size, modified_ns=about.st_mtime_ns)

    def reader(self, shard: int) -> ShardReader:
        """Of one of the shards' splits."""
        if shard not in self._readers:
            folder, split = self.shards[shard]
            self._readers[shard] = ShardReader(Index.load(folder), split)
        return self._readers[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {"items": self.items, "root": self.root, "shards": self.shards}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def find_inputs(
    paths: Sequence[str], *, classes: Sequence[str], split: str | None = None, leave_out: Path | None = None
) -> Inputs:
    """The images that paths name.

    Args:
        paths: files, folders (searched with all below them), globs that the shell left as they are, or folders of
            shards (or their URLs).
        classes: of the model; an image in a folder of such a name has that class given.
        split: of shards, one or several, joined by commas; None for all.
        leave_out: a folder that is not searched: what is written lies there.

    Raises:
        UserError: a path that names no image; files and shards at once; two images of one id.
    """
    are_shards = [is_url(one) or (Path(one) / INDEX_FILE).is_file() for one in paths]
    if any(are_shards):
        if not all(are_shards):
            other = next(path for path, shards in zip(paths, are_shards, strict=True) if not shards)
            raise UserError(
                f"{other}: no folder of shards, as other paths are; predict files and shards apart"
            )
        return _from_shards(paths, classes=classes, split=split)
    if split is not None:
        raise UserError("--split: chooses splits of shards; the paths name files")
    files: dict[str, None] = {}
    for path in paths:
        found = list(_files_of(path, leave_out))
        if not found:
            raise UserError(f"{path}: no images in it; images end in {', '.join(EXTENSIONS)}")
        files.update(dict.fromkeys(found))
    root = _root(paths, list(files))
    number_of = {name: number for number, name in enumerate(classes)}
    items = []
    for file in files:
        id_ = PurePosixPath(Path(file).relative_to(root)).as_posix()
        items.append(ImageItem(id=id_, given=number_of.get(os.path.basename(os.path.dirname(file)))))
    return Inputs(items=items, root=root)


def _files_of(path: str, leave_out: Path | None) -> Iterator[str]:
    """Absolute paths of the images of an argument, sorted within each folder."""
    absolute = os.path.abspath(path)
    if os.path.isfile(absolute):
        yield absolute
    elif os.path.isdir(absolute):
        yield from _files_below(absolute, leave_out)
    elif glob.has_magic(path):
        for one in sorted(glob.glob(absolute, recursive=True)):
            if os.path.isdir(one):
                yield from _files_below(one, leave_out)
            elif extension_of(one) in EXTENSIONS:
                yield one
    else:
        raise UserError(f"{path}: no such file or folder")


def _files_below(folder: str, leave_out: Path | None) -> Iterator[str]:
    skipped = None if leave_out is None else os.path.abspath(leave_out)
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and os.path.join(parent, name) != skipped
        )
        for name in sorted(names):
            if extension_of(name) in EXTENSIONS and not name.startswith("."):
                yield os.path.join(parent, name)


def _root(paths: Sequence[str], files: Sequence[str]) -> Path:
    """The folder that was given, or the lowest that holds all files."""
    if len(paths) == 1 and os.path.isdir(paths[0]):
        return Path(os.path.abspath(paths[0]))
    return Path(os.path.commonpath([os.path.dirname(file) for file in files]))


def _from_shards(paths: Sequence[str], *, classes: Sequence[str], split: str | None) -> Inputs:
    number_of = {name: number for number, name in enumerate(classes)}
    items: list[ImageItem] = []
    shards: list[tuple[str, str]] = []
    for path in paths:
        index = Index.load(path)
        splits = index.chosen_splits(names_of(split))
        numbers = [number_of.get(name) for name in index.classes]
        for one in splits:
            rows = index.rows(one)
            place = len(shards)
            shards.append((path if is_url(path) else os.path.abspath(path), one))
            for row, (id_, label) in enumerate(zip(rows.ids.to_pylist(), rows.label.tolist(), strict=True)):
                given = numbers[label] if label >= 0 else None
                items.append(ImageItem(id=id_, given=given, shard=place, row=row))
    check_ids(items)
    return Inputs(items=items, shards=shards)


def check_ids(items: Iterable[ImageItem]) -> None:
    """Ids name files that are written, and each image once.

    Raises:
        UserError: an id that is no path below a folder; two images of one id.
    """
    seen: set[str] = set()
    for item in items:
        inside(Path(), item.id)
        if item.id in seen:
            raise UserError(
                f"{item.id}: two images have this id; predict the splits or data sets apart (--split)"
            )
        seen.add(item.id)
