"""Damage to shards, as disks and copies do it."""

from __future__ import annotations

from pathlib import Path

from wsol_dist.data.index import Index


def break_image(folder: Path, split: str, *, row: int = 2) -> str:
    """Overwrite the start of a sample's image, with the tar as long and as readable as before; returns its id."""
    index = Index.load(folder)
    rows = index.rows(split)
    with index.path(int(rows.shard[row])).open("r+b") as tar:
        tar.seek(int(rows.offset[row]) + 512)
        tar.write(b"\0" * 64)
    return rows.ids[row].as_py()
