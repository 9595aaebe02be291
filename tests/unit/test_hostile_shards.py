"""Shards that somebody made to harm: no name in them becomes a path, a command or an address, whoever reads them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wsol_dist.data.images.decode import DecodeError
from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.stream import ShardReader
from wsol_dist.errors import UserError

ELSEWHERE = ["/etc/passwd", "../secret", "a/../../secret", "pipe:touch pwned", "http://127.0.0.1:9/x.tar"]
REFUSED = r"refused member name|no regular file|unknown member|two samples"
Change = Callable[[dict[str, Any]], None]


def rewrite(folder: Path, change: Change, table: pa.Table | None = None) -> None:
    """Change `index.json`, and the table with its sum, as their maker can."""
    raw = json.loads((folder / "index.json").read_text())
    if table is not None:
        pq.write_table(table, folder / "samples.parquet")
        raw["samples"]["sha256"] = hashlib.sha256((folder / "samples.parquet").read_bytes()).hexdigest()
    change(raw)
    (folder / "index.json").write_text(json.dumps(raw))


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize("of", ["shard", "table"])
def test_files_lie_beside_the_index_alone(
    own_shards: Path, name: str, of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own_shards)
    (own_shards.parent / "secret").write_bytes(b"x")

    def change(raw: dict[str, Any]) -> None:
        (raw["shards"][0] if of == "shard" else raw["samples"])["file"] = name

    rewrite(own_shards, change)
    # A name without a folder is looked for in the folder, whatever else it could mean.
    words = "missing, but index.json names it" if name.startswith("pipe:") else "refused file name"
    with pytest.raises(UserError, match=words):
        Index.load(own_shards)
    assert not (own_shards / "pwned").exists()


def member(name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    return info


def with_member(folder: Path, info: tarfile.TarInfo, data: bytes = b"") -> ShardReader:
    """The first test sample, with one member more in front of its own, in a tar that tarfile wrote."""
    index = Index.load(folder)
    rows = index.rows("test")
    path = index.path(int(rows.shard[0]))
    start, end = int(rows.offset[0]), int(rows.offset[0] + rows.bytes[0])
    sample = path.read_bytes()[start:end]
    bad = io.BytesIO()
    with tarfile.open(fileobj=bad, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(data))
        blob = bad.getvalue()[: tar.offset] + sample
    path.write_bytes(blob + bytes(1024))
    table = pq.read_table(folder / "samples.parquet")
    columns = table.to_pydict()
    for row, shard in enumerate(columns["shard"]):
        if shard == rows.shard[0]:
            columns["offset"][row], columns["bytes"][row] = 0, len(blob)

    def change(raw: dict[str, Any]) -> None:
        raw["shards"][int(rows.shard[0])]["bytes"] = path.stat().st_size

    rewrite(folder, change, pa.table(columns, schema=table.schema))
    return ShardReader(Index.load(folder), "test")


def test_a_tar_of_stock_tarfile_is_read(own_shards: Path) -> None:
    """What the refusals below are worth: with a harmless member the same bytes are fine up to that member's name."""
    reader = ShardReader(Index.load(own_shards), "test")
    image = reader.image(0)
    with tarfile.open(reader.index.path(int(reader.rows.shard[0]))) as tar:
        name = tar.getnames()[0]
    assert with_member(own_shards, member(name, image), image).image(0) == image


@pytest.mark.parametrize(
    "info",
    [
        *(member(name, b"x") for name in (*ELSEWHERE, "/tmp/pwned.jpg", "..\\pwned.jpg")),  # noqa: S108 - refused
        member("000000000.jpg", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        member("000000000.jpg", kind=tarfile.LNKTYPE, link="/etc/passwd"),
        member("000000000.jpg", kind=tarfile.FIFOTYPE),
        member("000000000.jpg", kind=tarfile.CHRTYPE),
        member("000000000", kind=tarfile.DIRTYPE),
    ],
    ids=lambda info: f"{info.name} {info.type!r}",
)
def test_a_member_that_is_no_plain_file_of_the_sample_is_refused(
    own_shards: Path, info: tarfile.TarInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own_shards)
    reader = with_member(own_shards, info, b"x" * info.size)
    before = sorted(own_shards.parent.rglob("*"))
    with pytest.raises(DecodeError, match=REFUSED):
        reader.image(0)
    assert sorted(own_shards.parent.rglob("*")) == before
    assert reader.image(len(reader) - 1)  # of another shard


@pytest.mark.parametrize(
    ("column", "value"),
    [("offset", -1), ("offset", 2**62), ("bytes", 2**62), ("bytes", -5), ("shard", 10_000), ("shard", -1)],
)
def test_places_outside_the_shards_are_refused(own_shards: Path, column: str, value: int) -> None:
    table = pq.read_table(own_shards / "samples.parquet")
    row = table["split"].to_pylist().index("test") + 3
    values = table[column].to_pylist()
    name, values[row] = table["id"].to_pylist()[row], value
    field = table.schema.field(column)
    number = table.schema.get_field_index(column)
    rewrite(own_shards, lambda raw: None, table.set_column(number, field, pa.array(values, field.type)))
    with pytest.raises(UserError, match=f"refused: '{name}' lies outside the shards"):
        Index.load(own_shards).rows("test")
    assert len(Index.load(own_shards).rows("train")) == 96
