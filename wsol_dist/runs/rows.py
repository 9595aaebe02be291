"""Per-image results as a parquet file, so that two runs can be compared image by image."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wsol_dist.files import remove_stale, whole_or_absent

_KNOWN = {
    "id": pa.string(),
    "label": pa.int32(),
    "decoded": pa.bool_(),
    "gt_boxes": pa.list_(pa.list_(pa.int32())),
    "predicted": pa.list_(pa.int32()),
    "predicted_prob": pa.list_(pa.float32()),
    "box": pa.list_(pa.int32()),
    "iou": pa.float32(),
    "gt_known": pa.bool_(),
    "top1_loc": pa.bool_(),
    "top5_loc": pa.bool_(),
    "error_kind": pa.string(),
    "cls_top1": pa.bool_(),
    "cls_top5": pa.bool_(),
    "max_box_iou": pa.float32(),
}
"""Types of the usual columns, which empty ones would not tell; those of other metrics are inferred."""


ROWS_AT_ONCE = 4096
"""Rows that are in memory at a time."""


def write_rows(path: Path, rows: Iterable[dict[str, Any]], *, about: dict[str, str]) -> None:
    """Write one row an image; the file appears under its name only when it is whole.

    Args:
        path: of the parquet file.
        rows: of equal keys, may be read several times; boxes are pixels of the square whose side `about` names.
        about: strings kept beside the schema.
    """
    schema = _schema(rows).with_metadata(about)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(path)
    with whole_or_absent(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for chunk in _chunks(rows):
            writer.write_table(pa.Table.from_pylist(chunk, schema=schema))


def read_rows(path: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The rows of `write_rows`, and what they are about."""
    table = pq.read_table(path)
    metadata = table.schema.metadata or {}
    return table.to_pylist(), {key.decode(): value.decode() for key, value in metadata.items()}


def read_numbers(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Columns of numbers and truth values, (n,) float64 each, nan where an image has none; without those that
    are not there. Lists, such as boxes, are not read: fifty thousand images cost milliseconds."""
    there = set(pq.read_schema(path).names)
    table = pq.read_table(path, columns=[name for name in names if name in there])
    return {
        name: table[name].cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
        for name in table.column_names
    }


def read_column(path: Path, name: str) -> list[Any]:
    """One column as plain values."""
    return pq.read_table(path, columns=[name])[name].to_pylist()


def read_some(path: Path, positions: Sequence[int]) -> list[dict[str, Any]]:
    """The rows at some positions, in that order."""
    return pq.read_table(path).take(pa.array(positions, pa.int64())).to_pylist()


def _chunks(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    left = iter(rows)
    while chunk := list(itertools.islice(left, ROWS_AT_ONCE)):
        yield chunk


def _schema(rows: Iterable[dict[str, Any]]) -> pa.Schema:
    """Of the known columns as above, of the others as all of their values tell."""
    names = list(next(iter(rows), _KNOWN))
    unknown = [name for name in names if name not in _KNOWN]
    inferred: dict[str, pa.DataType] = {}
    if unknown:
        parts = [
            pa.table({name: [row[name] for row in chunk] for name in unknown}).schema
            for chunk in _chunks(rows)
        ]
        inferred = {field.name: field.type for field in pa.unify_schemas(parts, promote_options="permissive")}
    return pa.schema([(name, _KNOWN.get(name) or inferred[name]) for name in names])
