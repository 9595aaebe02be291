"""What a person at a terminal sees of a folder of shards: all of it, one sample, one sample's bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc

from wsol_dist.data.shards.index import Index
from wsol_dist.data.shards.sample import IGNORE, Sample
from wsol_dist.data.shards.shard import CRC32, StoredSample, changed, read_sample, to_sample
from wsol_dist.errors import UserError

Member = Literal["image", "json", "mask"]
MAX_CLASSES, MAX_BOXES = 20, 20
"""How many are shown."""


def size_text(num_bytes: int) -> str:
    """Bytes as a person reads them."""
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if num_bytes >= 2**power:
            return f"{num_bytes / 2**power:.{2 if power == 30 else 1}f} {unit}"
    return f"{num_bytes} bytes"


def folder_lines(index: Index) -> Iterator[str]:
    """Splits, shards, counts, sizes and classes."""
    yield (
        f"{index.place}: {index.name}, {len(index.classes)} classes, columns {', '.join(index.columns)}, "
        f"seed {index.seed}"
    )
    heads = ("samples", "shards", "size", "a shard", "boxes", "masks")
    yield f"{'split':<8}" + "".join(f"{head:>12}" for head in heads) + "   images per class"
    for name, split in index.splits.items():
        num_bytes = [shard.bytes for shard in index.shards if shard.split == name]
        rows = index.rows(name)
        counts = split.num_images_per_class
        cells = (
            split.num_samples,
            len(num_bytes),
            size_text(sum(num_bytes)),
            size_text(round(float(np.mean(num_bytes)))),
            int(rows.num_boxes.sum()),
            int(rows.has_mask.sum()),
        )
        yield f"{name:<8}" + "".join(f"{cell:>12}" for cell in cells) + f"   {min(counts)} to {max(counts)}"
    more = len(index.classes) - MAX_CLASSES
    yield f"classes: {'; '.join(index.classes[:MAX_CLASSES])}" + (f"; and {more} more" if more > 0 else "")


def find_sample(index: Index, name: str) -> tuple[dict[str, Any], StoredSample]:
    """Row and stored bytes of one sample.

    Args:
        index: of the folder.
        name: an id; or, where it is none, the number of a row of `samples.parquet`, from 0.

    Raises:
        UserError: neither, with ids that look like it; its bytes are damaged.
    """
    table = index.table()
    found = table.filter(pc.equal(table["id"], name))
    if len(found) == 0 and name.isascii() and name.isdigit():
        found = table.slice(int(name[:18]), 1)
    if len(found) == 0:
        similar = pc.filter(table["id"], pc.match_substring(table["id"], name))[:3].to_pylist()
        some = similar or table["id"][:3].to_pylist()
        raise UserError(
            f"{index.place}: no sample {name!r}; ids look like {', '.join(some)}; rows count from 0 to {len(table) - 1}"
        )
    row = found.to_pylist()[0]
    file = index.open(row["shard"])
    try:
        return row, read_sample(os.pread(file, row["bytes"], row["offset"]))
    except ValueError as error:
        where = f"{index.place}/{index.shards[row['shard']].file}: {row['id']}"
        raise UserError(f"{where}: {error}; `wsol shards verify {index.place}` lists all damage") from error
    finally:
        os.close(file)


def member(stored: StoredSample, which: Member) -> bytes:
    """One member's bytes as the tar holds them.

    Raises:
        UserError: there is no mask.
    """
    if which == "image":
        return stored.image
    if which == "json":
        return json.dumps(stored.record, ensure_ascii=False).encode() + b"\n"
    if stored.mask_png is None:
        raise UserError(f"{stored.record['id']}: has no mask; image and json are there")
    return stored.mask_png


def sample_lines(index: Index, row: dict[str, Any], stored: StoredSample) -> Iterator[str]:
    """One sample: where it is, its picture, its classes, its boxes, its mask."""
    classes = ", ".join(f"{label} {index.classes[label]}" for label in row["labels"])
    size = (
        f"{row['width']} x {row['height']} px" if row["width"] else "of a size that its header does not say"
    )
    yield f"id      {row['id']}"
    yield f"split   {row['split']}"
    yield f"class   {classes}"
    yield f"image   {stored.extension}, {size}, {size_text(len(stored.image))}"
    shard = index.shards[row["shard"]].file
    yield f"place   {shard}, {row['bytes']} bytes from byte {row['offset']} on"
    yield from (f"damage  {line}" for name in CRC32 if (line := changed(stored, name, row[name])))
    try:
        sample = to_sample(stored)
    except (ValueError, TypeError) as error:
        yield f"damage  {error}"
        return
    yield from _box_lines(index, sample)
    yield from _mask_lines(index, sample)


def _box_lines(index: Index, sample: Sample) -> Iterator[str]:
    if sample.boxes_xyxy is None:
        yield "boxes   not annotated"
        return
    boxes, frame = sample.boxes_xyxy, sample.box_frame_wh
    yield f"boxes   {len(boxes)}" + (f" in a frame of {frame[0]} x {frame[1]} px" if frame else "")
    for number, (x0, y0, x1, y1) in enumerate(boxes[:MAX_BOXES].tolist()):
        share = (x1 - x0) * (y1 - y0) / (frame[0] * frame[1]) if frame else 0.0
        label = f", {index.classes[sample.box_labels[number]]}" if sample.box_labels else ""
        yield f"        x0 {x0:g}  y0 {y0:g}  x1 {x1:g}  y1 {y1:g}  {share:.0%} of the image{label}"
    if len(boxes) > MAX_BOXES:
        yield f"        and {len(boxes) - MAX_BOXES} more"


def _mask_lines(index: Index, sample: Sample) -> Iterator[str]:
    if sample.mask is None:
        yield "mask    none"
        return
    height, width = sample.mask.shape
    values, counts = np.unique(sample.mask, return_counts=True)
    names = {0: "background", IGNORE: "ignore"} | ({} if sample.semantic else {1: "object"})
    parts = (
        f"{names.get(value) or index.classes[value - 1]} {count / sample.mask.size:.1%}"
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
    )
    yield f"mask    {width} x {height} px: {', '.join(parts)}"
