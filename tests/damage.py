"""Damage to shards, as disks and copies do it, and shards as older versions made them."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from wsol_dist.data.images.decode import DecodeError, decode_rgb
from wsol_dist.data.shards.index import Index
from wsol_dist.data.shards.shard import CRC32, read_sample


def break_image(folder: Path, split: str, *, row: int = 2) -> str:
    """Overwrite the start of a sample's image, with the tar as long and as readable as before; returns its id."""
    index = Index.load(folder)
    rows = index.rows(split)
    with index.path(int(rows.shard[row])).open("r+b") as tar:
        tar.seek(int(rows.offset[row]) + 512)
        tar.write(b"\0" * 64)
    return rows.ids[row].as_py()


def flip_bit(folder: Path, split: str, *, row: int = 2) -> str:
    """Change one bit in a sample's image, which then decodes to other pixels without a word; returns its id."""
    index = Index.load(folder)
    rows = index.rows(split)
    with index.path(int(rows.shard[row])).open("r+b") as tar:
        tar.seek(int(rows.offset[row]))
        image = read_sample(tar.read(int(rows.bytes[row]))).image
        flipped = _still_decodes(image)
        tar.seek(int(rows.offset[row]) + 512)
        tar.write(flipped)
    with Image.open(io.BytesIO(flipped)) as shown:
        shown.load()
    return rows.ids[row].as_py()


def _still_decodes(image: bytes) -> bytes:
    """The image with one of its later bits changed: entropy-coded data, where no header says what is allowed."""
    for at in range(len(image) // 2, len(image) - 2):
        flipped = image[:at] + bytes([image[at] ^ 1]) + image[at + 1 :]
        try:
            if (decode_rgb(flipped) != decode_rgb(image)).any():
                return flipped
        except DecodeError:
            continue
    raise AssertionError("every bit of this image is noticed")


def flip_behind(folder: Path, split: str, text: bytes, *, row: int = 2) -> str:
    """Change the lowest bit of the byte behind some text of a sample's record or mask; returns its id."""
    index = Index.load(folder)
    rows = index.rows(split)
    start, num_bytes = int(rows.offset[row]), int(rows.bytes[row])
    with index.path(int(rows.shard[row])).open("r+b") as tar:
        tar.seek(start)
        blob = tar.read(num_bytes)
        at = blob.index(text, 512 + len(read_sample(blob).image)) + len(text)
        tar.seek(start + at)
        tar.write(bytes([blob[at] ^ 1]))
    return rows.ids[row].as_py()


def drop_checksums(folder: Path) -> None:
    """Shards as they were packed when the table of samples had no checksums."""
    path = folder / "samples.parquet"
    pq.write_table(pq.read_table(path).drop_columns(list(CRC32)), path, compression="zstd")
    raw = json.loads((folder / "index.json").read_text())
    raw["samples"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "index.json").write_text(json.dumps(raw))
    assert (Index.load(folder).rows("train").image_crc32 == np.int64(-1)).all()
