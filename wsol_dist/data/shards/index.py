"""The index of a folder of shards: `index.json` (what is there) and `samples.parquet` (where each sample is).

`index.json` is written last, so its presence means that packing finished. Neither file holds a time, a path
or a machine's name: the same data packed with the same arguments gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wsol_dist.data.shards.cache import cache_root
from wsol_dist.data.shards.remote import Remote, Wanted, is_url, read_remote
from wsol_dist.data.shards.shard import CRC32, Row
from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.files import write_atomically
from wsol_dist.version import __version__

SCHEMA = 1
INDEX_FILE = "index.json"
SAMPLES_FILE = "samples.parquet"
CREATED_BY = f"wsol_dist {__version__}"
COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("shard", pa.int32()),
        ("offset", pa.int64()),
        ("bytes", pa.int64()),
        ("labels", pa.list_(pa.int32())),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("num_boxes", pa.int32()),
        ("has_mask", pa.bool_()),
        ("image_crc32", pa.uint32()),
        ("truth_crc32", pa.uint32()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One tar of the folder."""

    file: str
    split: str
    num_samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Split:
    """Counts of one split."""

    num_samples: int
    num_images_per_class: tuple[int, ...]
    """By class number; an image of several labels counts for each."""


@dataclass(frozen=True, kw_only=True)
class SamplesFile:
    """The table of all samples."""

    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class IndexFile:
    """`index.json`, key by key."""

    schema: int
    name: str
    """Of the source, e.g. `caltech-101`."""
    options: dict[str, Any]
    """How it was packed: the source's options and the packing's, without paths."""
    seed: int
    classes: tuple[str, ...]
    splits: dict[str, Split]
    shards: tuple[Shard, ...]
    """In the order of the rows; `Rows.shard` counts in this list."""
    columns: tuple[str, ...]
    """What samples have: `image`, `labels`, and `boxes_xyxy`, `mask` where at least one sample has it."""
    items_sha256: str
    """Of the list of (id, split, labels) that was packed."""
    samples: SamplesFile
    created_by: str


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of one split as arrays, in the order (shard, position)."""

    ids: pa.StringArray
    """`ids[i].as_py()` is one; `ids.to_pylist()` all."""
    shard: np.ndarray
    """(n,) int32: position in `Index.shards`."""
    offset: np.ndarray
    """(n,) int64, bytes."""
    bytes: np.ndarray
    """(n,) int64."""
    label: np.ndarray
    """(n,) int64: the first label; -1 where there is none."""
    label_values: np.ndarray
    """All labels of all rows, one after another."""
    label_starts: np.ndarray
    """(n + 1,): row i has `label_values[label_starts[i] : label_starts[i + 1]]`."""
    width: np.ndarray
    """(n,) int32: of the stored image in pixels; 0 where its header was unreadable."""
    height: np.ndarray
    num_boxes: np.ndarray
    has_mask: np.ndarray
    image_crc32: np.ndarray
    """(n,) int64: as in `Row`; -1 in shards that were packed without."""
    truth_crc32: np.ndarray

    def __len__(self) -> int:
        return len(self.shard)

    def labels(self, position: int) -> tuple[int, ...]:
        """All class numbers of one row."""
        start, stop = self.label_starts[position], self.label_starts[position + 1]
        return tuple(self.label_values[start:stop].tolist())


@dataclass(frozen=True, kw_only=True)
class Index(IndexFile):
    """A checked folder of shards."""

    folder: Path
    """That holds the files; of a remote one its folder in the cache."""
    sha256: str
    """Of index.json's bytes: the identity of the packed data set."""
    remote: Remote | None = None
    """Where the files come from that are not in `folder` yet."""

    @classmethod
    def load(cls, folder: str | Path, *, check_files: bool = True) -> Index:
        """Read the index and check that every file it lists is there in full length.

        Args:
            folder: of the shards, or a URL of one: its files are checked as they are fetched, at their first use.
            check_files: False is for those who look at the files themselves.

        Raises:
            UserError: no such folder; no index; another schema; a file missing, truncated or changed; a remote index
                that stays away.
        """
        url = str(folder).rstrip("/") if is_url(folder) else None
        data = read_remote(url, INDEX_FILE) if url else _read_index_file(Path(folder))
        contents, sha256 = (
            _parse(data, f"{url or Path(folder)}/{INDEX_FILE}"),
            hashlib.sha256(data).hexdigest(),
        )
        remote = None
        if url:
            # Named by the index's hash: what is packed anew under the same address is another folder of the cache.
            name = re.sub(r"[^a-z0-9_-]+", "-", contents.name.lower())[:40]
            remote = Remote(url=url, folder=cache_root() / f"{name}-{sha256[:16]}")
        index = cls(
            **{name: getattr(contents, name) for name in IndexFile.__dataclass_fields__},
            folder=remote.folder if remote else Path(folder),
            sha256=sha256,
            remote=remote,
        )
        _check_names(index)
        if remote:
            remote.fetch(Wanted(file=index.samples.file, sha256=index.samples.sha256))
        elif check_files:
            _check_files(index)
        return index

    @property
    def place(self) -> str:
        """The folder or URL, as it was given."""
        return self.remote.url if self.remote else str(self.folder)

    @property
    def multi_label(self) -> bool:
        """Whether some image of some split has several labels."""
        return any(sum(split.num_images_per_class) > split.num_samples for split in self.splits.values())

    def path(self, shard: int) -> Path:
        """The tar of a shard number; of a remote folder it is fetched first.

        Raises:
            UserError: it stays away.
        """
        return self.remote.fetch(self.wanted(shard)) if self.remote else self.folder / self.shards[shard].file

    def open(self, shard: int) -> int:
        """A descriptor of a shard's tar, to be closed by the caller; of a remote folder it is fetched first.

        Raises:
            UserError: it stays away; it is gone.
        """
        if self.remote:
            return self.remote.open(self.wanted(shard))
        path = self.folder / self.shards[shard].file
        try:
            return os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise UserError(
                f"{path}: gone, it was there at the start; copy it back, and the same command goes on"
            ) from error

    def wanted(self, shard: int) -> Wanted:
        """A shard as the index describes it, for fetching."""
        one = self.shards[shard]
        return Wanted(file=one.file, sha256=one.sha256, bytes=one.bytes)

    def check_splits(self, splits: Iterable[str], *, option: str = "--split") -> None:
        """Refuse names of splits that there are not.

        Raises:
            UserError: the first of them, called what `option` says.
        """
        for split in splits:
            if split not in self.splits:
                allowed = did_you_mean(split, list(self.splits))
                raise UserError(f"{option}: no split {split!r} in {self.place}; {allowed}")

    def chosen_splits(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """What `--split` names; all splits where it names none.

        Raises:
            UserError: there is no such split.
        """
        splits = names or tuple(self.splits)
        self.check_splits(splits)
        return splits

    def table(self, split: str | None = None) -> pa.Table:
        """`samples.parquet`, of one split or whole; a column that older shards lack is null.

        Raises:
            UserError: no such split.
        """
        if split is not None and split not in self.splits:
            raise UserError(f"{self.place}: no split {split!r}; {did_you_mean(split, list(self.splits))}")
        table = pq.read_table(self.folder / self.samples.file, schema=COLUMNS, memory_map=False)
        return table if split is None else table.filter(pc.equal(table["split"], split))

    def rows(self, split: str) -> Rows:
        """The rows of one split.

        Raises:
            UserError: no such split; a sample outside its shard.
        """
        rows = _to_rows(self.table(split))
        _check_places(self, rows)
        return rows


def rows_table(rows: Sequence[Row]) -> pa.Table:
    """Rows as a table with the columns of `samples.parquet`."""
    return pa.table({name: [getattr(row, name) for row in rows] for name in COLUMNS.names}, schema=COLUMNS)


def write_samples(folder: Path, table: pa.Table) -> SamplesFile:
    """Write `samples.parquet` from rows in (split, shard, position) order."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    write_atomically(folder / SAMPLES_FILE, data)
    return SamplesFile(file=SAMPLES_FILE, sha256=hashlib.sha256(data).hexdigest())


def write_index(folder: Path, contents: IndexFile) -> None:
    """Write `index.json`; the last act of packing."""
    text = json.dumps(asdict(contents), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / INDEX_FILE, text.encode() + b"\n")


def _read_index_file(folder: Path) -> bytes:
    path = folder / INDEX_FILE
    if folder.is_file():
        raise UserError(f"{folder}: a file; give the folder of shards that holds {INDEX_FILE}")
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder of shards; make one with `python shards/pack.py SOURCE --out {folder}`"
        )
    if not path.is_file():
        raise UserError(
            f"{folder}: no {INDEX_FILE} in it: packing did not finish, or this is no folder of shards; "
            f"run `python shards/pack.py SOURCE --out {folder}`"
        )
    return path.read_bytes()


def _parse(data: bytes, path: str) -> IndexFile:
    from pydantic import TypeAdapter

    try:
        raw = json.loads(data)
        schema = raw.get("schema") if isinstance(raw, dict) else None
        if schema != SCHEMA:
            raise UserError(
                f"{path}: schema version {schema!r} given, {SCHEMA} supported; pack again with this version"
                + (", or update wsol_dist" if isinstance(schema, int) and schema > SCHEMA else "")
            )
        return TypeAdapter(IndexFile).validate_python(raw)
    except ValueError as error:
        reason = str(error).splitlines()
        raise UserError(
            f"{path}: damaged: {' '.join(line.strip() for line in reason[:3])}; pack again"
        ) from error


def _check_names(index: Index) -> None:
    names = [shard.file for shard in index.shards] + [index.samples.file]
    for name in names:
        if Path(name).name != name or name in ("", ".", ".."):
            raise UserError(
                f"{index.place}/{INDEX_FILE}: refused file name {name!r}: shards lie beside the index"
            )


def _check_places(index: Index, rows: Rows) -> None:
    """The table may be anybody's: none of its numbers may ask for bytes that no shard has."""
    sizes = np.array([*(shard.bytes for shard in index.shards), 0])
    known = (rows.shard >= 0) & (rows.shard < len(index.shards))
    room = sizes[np.where(known, rows.shard, -1)] - rows.offset
    wrong = ~known | (rows.offset < 0) | (rows.bytes < 0) | (rows.bytes > room)
    if wrong.any():
        name = rows.ids[int(wrong.argmax())].as_py()
        raise UserError(
            f"{index.place}/{index.samples.file}: refused: {name!r} lies outside the shards; pack again"
        )


def _check_files(index: Index) -> None:
    problems = [problem for shard in index.shards if (problem := tar_problem(index.folder, shard))]
    if problems:
        more = f"; and {len(problems) - 1} more such tars" if len(problems) > 1 else ""
        raise UserError(f"{problems[0]}{more}; pack again, or copy the folder again")
    samples = index.folder / index.samples.file
    if not samples.is_file():
        raise UserError(
            f"{samples}: missing, but {INDEX_FILE} names it; pack again, or copy the folder again"
        )
    if hashlib.sha256(samples.read_bytes()).hexdigest() != index.samples.sha256:
        raise UserError(f"{samples}: not the file that {INDEX_FILE} names (sha256 differs); pack again")


def tar_problem(folder: Path, shard: Shard) -> str | None:
    """One line on a tar that is missing or of another length, None for one that is there in full."""
    path = folder / shard.file
    try:
        num_bytes = path.stat().st_size
    except FileNotFoundError:
        return f"{path}: missing, but {INDEX_FILE} names it"
    if num_bytes == shard.bytes:
        return None
    word = "truncated" if num_bytes < shard.bytes else "longer than written"
    return f"{path}: {word}: {shard.bytes} bytes expected, {num_bytes} found"


def _to_rows(table: pa.Table) -> Rows:
    table = table.combine_chunks()
    labels = (
        pa.concat_arrays(table["labels"].chunks)
        if table["labels"].num_chunks
        else pa.array([], COLUMNS.field("labels").type)
    )
    lengths = pc.fill_null(pc.list_value_length(labels), 0).to_numpy(zero_copy_only=False)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = labels.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    first = np.full(len(lengths), -1, np.int64)
    first[lengths > 0] = values[starts[:-1][lengths > 0]]
    arrays = {
        name: table[name].to_numpy()
        for name in ("shard", "offset", "bytes", "width", "height", "num_boxes", "has_mask")
    }
    crc32 = {name: pc.fill_null(table[name].cast(pa.int64()), -1).to_numpy() for name in CRC32}
    ids = table["id"]
    return Rows(
        ids=pa.concat_arrays(ids.chunks) if ids.num_chunks else pa.array([], pa.string()),
        label=first,
        label_values=values,
        label_starts=starts,
        **arrays,
        **crc32,
    )
