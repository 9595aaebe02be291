"""Derived columns: what was computed for each image of a packed data set, beside its shards.

Label maps, score maps, embeddings, pseudo labels: a column is a folder of tars that mirror the image shards
sample by sample, of the same names and with the same webdataset keys, one member `KEY.NAME.EXTENSION` a sample.
A member of no bytes says that there is no value, since the image does not decode. `column.json` is written last;
it names the source's index by sha256, and the command.

Writing can be cut off and started again: a tar has its name only when it is whole. Several processes may write
different shards of one column.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wsol_dist.data.images.arrays import Extension, decode
from wsol_dist.data.shards.index import CREATED_BY, Index, Rows, Shard, tar_problem
from wsol_dist.data.shards.shard import BLOCK, END_OF_TAR, tar_member
from wsol_dist.errors import UserError
from wsol_dist.files import sha256_of, whole_or_absent, write_atomically

SCHEMA = 1
COLUMN_FILE = "column.json"
"""Its presence means that the column is whole."""
BEGUN_FILE = "begun.json"
"""What the tars of an unfinished column are, so that nothing else is mixed in."""
ROWS_FILE = "rows.parquet"
_SPLITS_ROWS = pa.schema(
    [("split", pa.string()), ("shard", pa.int32()), ("offset", pa.int64()), ("bytes", pa.int64())]
)


@dataclass(frozen=True, kw_only=True)
class About:
    """What a column is; two writers of one column agree in all of it but the command."""

    name: str
    """Of the column, a webdataset suffix: `map`, `clusters`."""
    extension: Extension
    """png: (H, W) uint8. npy: any array without objects."""
    splits: tuple[str, ...]
    source: str
    """sha256 of the source's index.json."""
    settings: dict[str, Any]
    """Plain JSON: everything that decides the values."""
    command: str
    """How it was made, for people."""

    @property
    def identity(self) -> dict[str, Any]:
        """Everything but the command, as JSON gives it back."""
        plain = json.loads(json.dumps(asdict(self)))
        return {key: value for key, value in plain.items() if key != "command"}


class ColumnWriter:
    """Writes the missing shards of a column: `for number in writer.todo(): with writer.shard(number) ...`."""

    def __init__(self, folder: Path, index: Index, about: About) -> None:
        """Begin a column, or go on with it.

        Raises:
            UserError: the folder holds another column, or cannot be written.
        """
        assert about.source == index.sha256
        self.folder, self.index, self.about = folder, index, about
        self.numbers = [number for number, shard in enumerate(index.shards) if shard.split in about.splits]
        self._rows: dict[str, tuple[Rows, dict[int, range]]] = {}
        self.finished = (folder / COLUMN_FILE).is_file()
        stored = folder / (COLUMN_FILE if self.finished else BEGUN_FILE)
        if stored.is_file():
            _check_same(stored, about)
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(stored, _json(asdict(about)))
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written: {error.strerror}; choose another folder"
            ) from error

    def todo(self) -> list[int]:
        """Shard numbers of which no whole tar is there, ascending."""
        return [] if self.finished else [number for number in self.numbers if not self._path(number).exists()]

    def positions(self, number: int) -> range:
        """Of a shard's samples among the rows of its split, where they lie together."""
        return self._split_rows(number)[1][number]

    def id(self, number: int, row: int) -> str:
        """The id of a sample of a shard, by its row of the split."""
        return self._split_rows(number)[0].ids[row].as_py()

    def shard(self, number: int) -> ShardOfColumn:
        """One shard, to be filled with a value for each of its samples in the order of `positions`."""
        rows, positions = self._split_rows(number)[0], self.positions(number)
        offsets = rows.offset[positions.start : positions.stop].tolist()
        return ShardOfColumn(self._path(number), keys_of(self.index.path(number), offsets), about=self.about)

    def _split_rows(self, number: int) -> tuple[Rows, dict[int, range]]:
        split = self.index.shards[number].split
        if split not in self._rows:
            rows = self.index.rows(split)
            self._rows[split] = (rows, _positions(rows))
        return self._rows[split]

    def finish(self) -> None:
        """Write the index of a column whose tars are all there; one process calls it.

        Raises:
            UserError: a tar holds other samples than the source's shard.
        """
        if self.finished:
            return
        assert not self.todo()
        shards, fields = [], {name: [] for name in _SPLITS_ROWS.names}  # type: list[Shard], dict[str, list[Any]]
        for place, number in enumerate(self.numbers):
            shard, members = _scan(self._path(number), split=self.index.shards[number].split)
            if shard.num_samples != self.index.shards[number].num_samples:
                raise UserError(f"{self._path(number)}: not of this data set; remove it and start again")
            shards.append(shard)
            for offset, size in members:
                values = (shard.split, place, offset, size)
                for name, value in zip(_SPLITS_ROWS.names, values, strict=True):
                    fields[name].append(value)
        table = pa.table({name: fields[name] for name in _SPLITS_ROWS.names}, schema=_SPLITS_ROWS)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        data = sink.getvalue().to_pybytes()
        write_atomically(self.folder / ROWS_FILE, data)
        contents = {"schema": SCHEMA, **asdict(self.about), "shards": [asdict(shard) for shard in shards]}
        contents |= {"rows_sha256": hashlib.sha256(data).hexdigest(), "created_by": CREATED_BY}
        write_atomically(self.folder / COLUMN_FILE, _json(contents))
        for leftover in (self.folder / BEGUN_FILE, *self.folder.glob("*.tmp")):
            leftover.unlink(missing_ok=True)
        self.finished = True

    def _path(self, number: int) -> Path:
        return self.folder / self.index.shards[number].file


class ShardOfColumn:
    """One tar being written; use it with `with`. An error, or too few values, leaves no tar."""

    def __init__(self, path: Path, keys: Sequence[str], *, about: About) -> None:
        self.path, self.keys, self.about = path, keys, about
        self.num_added = 0
        self._writing = ExitStack()
        self._file = self._writing.enter_context(whole_or_absent(path))

    def add(self, data: bytes | None) -> None:
        """The next sample's value, encoded; None where there is none."""
        name = f"{self.keys[self.num_added]}.{self.about.name}.{self.about.extension}"
        self._file.write(tar_member(name, data or b""))
        self.num_added += 1

    def close(self) -> None:
        """Give the tar its name."""
        with self._writing:
            assert self.num_added == len(self.keys), (
                f"{self.path}: {self.num_added} of {len(self.keys)} values"
            )
            self._file.write(END_OF_TAR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._writing.__exit__(kind, error, trace)


class Column:
    """A whole column, read by the position of a sample among its split's rows."""

    def __init__(self, folder: Path, about: About, shards: list[Shard], table: pa.Table) -> None:
        self.folder, self.about, self.shards = folder, about, shards
        split = table["split"].to_numpy(zero_copy_only=False)
        self._places = {
            name: [table[part].to_numpy()[split == name] for part in ("shard", "offset", "bytes")]
            for name in about.splits
        }

    @classmethod
    def open(cls, folder: Path, index: Index) -> Column:
        """A column of this very data set.

        Raises:
            UserError: unfinished, damaged, or of another data set.
        """
        path = folder / COLUMN_FILE
        if not path.is_file():
            why = (
                "its writing did not finish; start it again"
                if (folder / BEGUN_FILE).is_file()
                else "no column"
            )
            raise UserError(f"{folder}: no {COLUMN_FILE} in it: {why}")
        try:
            raw = json.loads(path.read_bytes())
            if raw["schema"] != SCHEMA:
                raise UserError(
                    f"{path}: schema version {raw['schema']!r} given, {SCHEMA} supported; make it again"
                )
            about = About(
                **{name: raw[name] for name in About.__dataclass_fields__} | {"splits": tuple(raw["splits"])}
            )
            shards = [Shard(**shard) for shard in raw["shards"]]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: damaged: {' '.join(str(error).split())}; make the column again"
            ) from error
        if about.source != index.sha256:
            raise UserError(
                f"{folder}: a column of other shards (their index has sha256 {about.source[:12]}) than those in "
                f"{index.place} ({index.sha256[:12]}); give the shards it was made from, or make it again"
            )
        return cls(folder, about, shards, _checked_rows(folder, shards, raw.get("rows_sha256"), index))

    def data(self, split: str, row: int) -> bytes | None:
        """The encoded value of a sample; None where it has none.

        Raises:
            UserError: the column does not cover the split; the tar is shorter than its index says.
        """
        if split not in self._places:
            raise UserError(f"{self.folder}: does not cover split {split!r}, only {', '.join(self._places)}")
        shard_N, offset_N, bytes_N = self._places[split]
        path, size = self.folder / self.shards[shard_N[row]].file, int(bytes_N[row])
        # Opened for each value: nothing to share with forked loaders, and cheap beside decoding.
        with path.open("rb") as file:
            file.seek(int(offset_N[row]))
            data = file.read(size)
        if len(data) != size:
            raise UserError(f"{path}: truncated; make the column again")
        return data or None

    def value(self, split: str, row: int) -> np.ndarray | None:
        """The value of a sample as an array; None where it has none."""
        data = self.data(split, row)
        return None if data is None else decode(data, self.about.extension)


def keys_of(tar: Path, offsets: Sequence[int]) -> list[str]:
    """The webdataset keys of the samples at these offsets; `unreadable-N` where the N-th header is damaged."""
    keys = []
    with tar.open("rb") as file:
        for place, offset in enumerate(offsets):
            file.seek(offset)
            key = file.read(BLOCK)[:100].partition(b".")[0]
            keys.append(key.decode() if key.isdigit() and len(key) <= 20 else f"unreadable-{place:09d}")
    return keys


def _positions(rows: Rows) -> dict[int, range]:
    shards, starts, counts = np.unique(rows.shard, return_index=True, return_counts=True)
    return {
        int(shard): range(int(start), int(start + count))
        for shard, start, count in zip(shards, starts, counts, strict=True)
    }


def _check_same(stored: Path, about: About) -> None:
    try:
        raw = json.loads(stored.read_bytes())
        differing = [name for name, value in about.identity.items() if raw[name] != value]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{stored}: damaged: {error}; remove the folder, or choose another") from error
    if differing:
        raise UserError(
            f"{stored.parent}: holds another column ({', '.join(differing)} differ); remove it, "
            "or choose another folder"
        )


def _scan(path: Path, *, split: str) -> tuple[Shard, list[tuple[int, int]]]:
    """A finished tar's entry, and where each member's bytes lie: (offset, size)."""
    with tarfile.open(path, "r:") as tar:
        members = [(member.offset_data, member.size) for member in tar]
    shard = Shard(
        file=path.name,
        split=split,
        num_samples=len(members),
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
    )
    return shard, members


def _checked_rows(folder: Path, shards: Iterable[Shard], sha256: Any, index: Index) -> pa.Table:
    known = {shard.file for shard in index.shards}
    for shard in shards:
        if shard.file not in known:
            raise UserError(
                f"{folder / COLUMN_FILE}: refused file name {shard.file!r}: no shard of {index.place}"
            )
        if problem := tar_problem(folder, shard):
            raise UserError(f"{problem}; make the column again, or copy the folder again")
    path = folder / ROWS_FILE
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise UserError(f"{path}: not the file that {COLUMN_FILE} names; make the column again")
    return pq.read_table(path, schema=_SPLITS_ROWS, memory_map=False)


def _json(contents: dict[str, Any]) -> bytes:
    return (json.dumps(contents, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
