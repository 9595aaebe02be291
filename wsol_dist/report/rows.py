"""Per-image results as a parquet file, so that two runs can be compared image by image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

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


def write_rows(path: Path, rows: list[dict[str, Any]], *, about: dict[str, str]) -> None:
    """Write one row an image; the file appears under its name only when it is whole.

    Args:
        path: of the parquet file.
        rows: of equal keys; boxes are pixels of the square whose side `about` names.
        about: strings kept beside the schema.
    """
    names = list(rows[0]) if rows else list(_KNOWN)
    columns = {name: pa.array([row[name] for row in rows], _KNOWN.get(name)) for name in names}
    table = pa.table(columns).replace_schema_metadata(about)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".tmp")
    pq.write_table(table, part, compression="zstd")
    os.replace(part, path)


def read_rows(path: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The rows of `write_rows`, and what they are about."""
    table = pq.read_table(path)
    metadata = table.schema.metadata or {}
    return table.to_pylist(), {key.decode(): value.decode() for key, value in metadata.items()}
