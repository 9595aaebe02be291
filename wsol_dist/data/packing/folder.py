"""A folder while it is packed: whose plan it follows, and which shards are finished.

`packing.started` holds the identity of the plan. Beside each finished tar lies `NAME.tar.done`, an Arrow file with
the tar's rows, its length and checksum and the plan they belong to: it is written after the tar, so that a tar with
one is whole. The last step of packing makes the index of these files and removes them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from wsol_dist.data.packing.plan import Plan, ShardTask, read_promised
from wsol_dist.data.shards.index import COLUMNS, INDEX_FILE, rows_table
from wsol_dist.data.shards.sample import Source
from wsol_dist.data.shards.shard import WrittenShard, encode_sample, write_shard
from wsol_dist.errors import UserError
from wsol_dist.files import write_atomically

STARTED_FILE = "packing.started"
"""Marks a folder that packing made and did not finish, so that nobody else's files are ever overwritten."""
DONE = ".done"
SHARD_NAME = re.compile(r"[a-z0-9_]+-\d{6}\.tar")
FACTS = b"finished_shard"
IDENTITY_NAMES = {
    "items_sha256": "list of samples",
    "shards_sha256": "sizes of the samples",
    "created_by": "version of this program",
}
"""How parts of a plan's identity are called where they are not called by their names."""


@dataclass(frozen=True, kw_only=True)
class FinishedShard:
    """A whole tar of the plan."""

    written: WrittenShard
    """Without its rows."""
    table: pa.Table
    """Its rows, with the columns of `samples.parquet`."""


@dataclass(frozen=True, kw_only=True)
class Packer:
    """What every process that writes shards needs."""

    source: Source
    plan_sha256: str


def write_or_keep(packer: Packer, task: ShardTask) -> WrittenShard:
    """Write one shard, or leave the finished one of the same plan; returned without its rows.

    Raises:
        UserError: as `write_shard`; files of the data set changed since the finished one was written.
    """
    done = finished_shard(task, packer.plan_sha256)
    if done is not None and not done.written.broken:  # what did not decode may be repaired by now
        _check_kept(packer.source, task, done)
        return done.written
    samples = (
        (task.first_ordinal + number, read_promised(packer.source, item))
        for number, item in enumerate(task.items)
    )
    written = write_shard(task.path, samples, split=task.split, shard=task.shard)
    _write_done(task, written, packer.plan_sha256)
    return dataclasses.replace(written, rows=())


def finished_shard(task: ShardTask, plan_sha256: str) -> FinishedShard | None:
    """What is known of a tar that was written for this very plan and is there in full length; None for any other."""
    try:
        with pa.OSFile(str(_done_file(task.path))) as file, pa.ipc.open_file(file) as reader:
            table = reader.read_all()
        facts = json.loads(table.schema.metadata[FACTS])
        if facts.pop("plan_sha256") != plan_sha256 or task.path.stat().st_size != facts["bytes"]:
            return None
        if not table.schema.equals(COLUMNS):  # of a version that wrote other columns
            return None
        written = WrittenShard(**facts | {"rows": (), "reaching_out": tuple(facts["reaching_out"])})
    except (OSError, ValueError, KeyError, TypeError):  # absent, or cut off by a power failure
        return None
    return FinishedShard(written=written, table=table.replace_schema_metadata(None))


def identity_sha256(plan: Plan) -> str:
    """Of the plan's identity."""
    return hashlib.sha256(json.dumps(plan.identity(), sort_keys=True).encode()).hexdigest()


def prepare_folder(plan: Plan, *, out: Path, force: bool, alone: bool) -> int:
    """Make the folder ready for this plan's shards; returns how many are finished already.

    Args:
        force: remove what was packed before.
        alone: whether no other part is packed into it at this time; what killed processes left is then removed.

    Raises:
        UserError: a file; somebody else's folder; finished shards of another plan.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file, not a folder; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    present = {path.name for path in out.iterdir()}
    ours = STARTED_FILE in present or INDEX_FILE in present
    if not ours and any(not _started_by_another_part(name) for name in present):
        raise UserError(f"{out}: not empty and no folder of shards; give another --out")
    files = {task.file for task in plan.shards}
    done = sum(file in present and _done_file(Path(file)).name in present for file in files)
    if not force:
        _check_same_plan(plan, out, any(name.endswith(DONE) for name in present))
    if started_as(out) != plan.identity():
        text = json.dumps(plan.identity(), indent=1, ensure_ascii=False)
        write_atomically(out / STARTED_FILE, text.encode() + b"\n")
    (out / INDEX_FILE).unlink(missing_ok=True)
    for path in out.iterdir() if alone else ():
        whole = SHARD_NAME.fullmatch(path.name.removesuffix(DONE))
        if path.suffix == ".tmp" or (whole and (force or path.name.removesuffix(DONE) not in files)):
            path.unlink(missing_ok=True)
    return 0 if force else done


def started_as(out: Path) -> dict[str, Any] | None:
    """The identity of the plan that was begun in a folder; None where there is none that can be read."""
    try:
        found = json.loads((out / STARTED_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def sweep(out: Path) -> None:
    """Remove what belongs to packing and not to the finished folder."""
    for path in out.iterdir():
        if path.name.endswith((DONE, ".tmp")):
            path.unlink(missing_ok=True)
    (out / STARTED_FILE).unlink(missing_ok=True)


def differing(mine: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """What two identities differ in, in words."""
    return [IDENTITY_NAMES.get(name, name) for name in mine if mine[name] != theirs.get(name)]


def _check_same_plan(plan: Plan, out: Path, anything_done: bool) -> None:
    started = started_as(out)
    if not anything_done or started == plan.identity():
        return
    what = ", ".join(differing(plan.identity(), started)) if started else "an older version's"
    raise UserError(
        f"{out}: has finished shards of a packing with other arguments or data ({what}) that was not finished; "
        "give another --out, or --force to pack over it"
    )


def _started_by_another_part(name: str) -> bool:
    return name.startswith(STARTED_FILE) and name.endswith(".tmp")


def _check_kept(source: Source, task: ShardTask, done: FinishedShard) -> None:
    """The first and the last sample's files give the bytes that are there, so that no change goes unnoticed easily."""
    for number in sorted({0, len(task.items) - 1}):
        row = done.table.slice(number, 1).to_pylist()[0]
        blob = encode_sample(task.first_ordinal + number, read_promised(source, task.items[number]))
        if read_range(task.path, row["offset"], row["bytes"]) != blob:
            raise UserError(
                f"{task.path}: the files of {row['id']} changed since this shard was packed; "
                "--force packs all of them again"
            )


def read_range(path: Path, offset: int, num_bytes: int) -> bytes:
    """Some bytes of a file."""
    with path.open("rb") as file:
        return os.pread(file.fileno(), num_bytes, offset)


def _write_done(task: ShardTask, written: WrittenShard, plan_sha256: str) -> None:
    names = [field.name for field in dataclasses.fields(written) if field.name != "rows"]
    facts = {name: getattr(written, name) for name in names} | {"plan_sha256": plan_sha256}
    table = rows_table(written.rows).replace_schema_metadata({FACTS: json.dumps(facts).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    # Not synced, which takes as long as syncing the tar: what a power failure leaves of it is not taken for whole.
    write_atomically(_done_file(task.path), sink.getvalue().to_pybytes(), sync=False)


def _done_file(path: Path) -> Path:
    return path.with_name(path.name + DONE)
