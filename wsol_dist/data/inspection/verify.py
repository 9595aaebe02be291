"""Does a folder of shards hold what its index says? Every problem becomes one line."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsol_dist.data.images.decode import DecodeError, decode_rgb
from wsol_dist.data.packing.parallel import in_order, num_cores
from wsol_dist.data.shards.check import frame_problem, mask_problem
from wsol_dist.data.shards.index import Index, Shard, tar_problem
from wsol_dist.data.shards.remote import Remote, Wanted
from wsol_dist.data.shards.shard import (
    CRC32,
    END_OF_TAR,
    StoredSample,
    changed,
    image_size,
    read_sample,
    to_sample,
)
from wsol_dist.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One tar and the rows that point into it."""

    shard: Shard
    wanted: Wanted
    rows: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Checker:
    """What all shards are checked against."""

    folder: Path
    remote: Remote | None
    num_classes: int
    deep: bool


def verify(
    place: str | Path,
    *,
    deep: bool = False,
    workers: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """The problems of a folder, an empty list if there are none.

    Args:
        place: folder of the shards, or its address; what comes from there is checked as it comes.
        deep: also decode every image and mask.
        workers: processes; 0 for one a core.
        progress: told the number of samples after every shard.

    Raises:
        UserError: no folder of shards, so there is nothing to verify.
    """
    index = Index.load(place, check_files=False)
    folder = index.folder
    samples = folder / index.samples.file
    if not samples.is_file():
        return [f"{samples}: missing"]
    if hashlib.sha256(samples.read_bytes()).hexdigest() != index.samples.sha256:
        return [f"{samples}: sha256 differs from the index"]
    rows = index.table().to_pylist()
    problems = list(_check_counts(index, rows))
    by_shard: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_shard.setdefault(row["shard"], []).append(row)
    tasks = [
        ShardTask(shard=shard, wanted=index.wanted(number), rows=by_shard.get(number, []))
        for number, shard in enumerate(index.shards)
    ]
    checker = Checker(folder=folder, remote=index.remote, num_classes=len(index.classes), deep=deep)
    for task, found in zip(
        tasks, in_order(_check_shard, tasks, shared=checker, num_workers=workers or num_cores()), strict=True
    ):
        problems += found
        progress(len(task.rows))
    return problems


def _check_counts(index: Index, rows: list[dict[str, Any]]) -> Iterator[str]:
    repeated = [name for name, count in Counter(row["id"] for row in rows).items() if count > 1]
    yield from (f"{name}: this id has more than one row" for name in repeated)
    known = set(range(len(index.shards)))
    yield from (
        f"{row['id']}: row points to shard {row['shard']}, which is not listed"
        for row in rows
        if row["shard"] not in known
    )
    for split, expected in index.splits.items():
        labels = [row["labels"] for row in rows if row["split"] == split]
        if len(labels) != expected.num_samples:
            yield f"split {split}: {expected.num_samples} samples in the index, {len(labels)} rows"
        counts = Counter(label for some in labels for label in some)
        if tuple(counts[label] for label in range(len(index.classes))) != expected.num_images_per_class:
            yield f"split {split}: images per class differ between index and rows"


def _check_shard(checker: Checker, task: ShardTask) -> list[str]:
    try:
        if checker.remote:
            checker.remote.fetch(task.wanted)
    except UserError as error:
        return [str(error)]
    problem = tar_problem(checker.folder, task.shard)
    if problem:
        return [problem]
    path = checker.folder / task.shard.file
    data = path.read_bytes()
    problems = []
    if hashlib.sha256(data).hexdigest() != task.shard.sha256:
        problems.append(f"{path}: sha256 differs from the index")
    if len(task.rows) != task.shard.num_samples:
        problems.append(f"{path}: {task.shard.num_samples} samples in the index, {len(task.rows)} rows")
    position = 0
    for row in task.rows:
        where = f"{path}: {row['id']}"
        if row["offset"] != position:
            problems.append(
                f"{where}: row starts at byte {row['offset']}, the sample before ends at {position}"
            )
        position = row["offset"] + row["bytes"]
        problems += [
            f"{where}: {line}" for line in _check_sample(checker, row, data[row["offset"] : position])
        ]
    if data[position:] != END_OF_TAR:
        problems.append(f"{path}: bytes after the last sample")
    return problems


def _check_sample(checker: Checker, row: dict[str, Any], blob: bytes) -> Iterator[str]:
    try:
        stored = read_sample(blob)
    except ValueError as error:
        yield str(error)
        return
    yield from (line for name in CRC32 if (line := changed(stored, name, row[name])))
    boxes = stored.record.get("boxes_xyxy") or []
    width, height = image_size(stored.image)
    actual = {
        "id": stored.record["id"],
        "labels": stored.record["labels"],
        "num_boxes": len(boxes),
        "has_mask": stored.mask_png is not None,
        "width": width,
        "height": height,
    }
    yield from (
        f"{name} {row[name]!r} in the row, {value!r} in the tar"
        for name, value in actual.items()
        if row[name] != value
    )
    if any(not 0 <= label < checker.num_classes for label in row["labels"]):
        yield f"labels {row['labels']} outside 0 to {checker.num_classes - 1}"
    frame = stored.record.get("box_frame_wh")
    if boxes and frame is None:
        yield "boxes without a frame"
    elif boxes and (problem := frame_problem(np.asarray(boxes, np.float64).reshape(-1, 4), frame)):
        yield problem
    if checker.deep:
        yield from _check_decoding(stored, (width, height), checker.num_classes)


def _check_decoding(stored: StoredSample, size_wh: tuple[int, int], num_classes: int) -> Iterator[str]:
    """By the functions that training and evaluation decode with, so that both always agree."""
    try:
        rgb_HWC = decode_rgb(stored.image)
    except DecodeError as error:
        yield f"the image does not decode: {error}"
    else:
        if rgb_HWC.shape[1::-1] != size_wh:
            yield f"the image decodes to {rgb_HWC.shape[1::-1]}, its header says {size_wh}"
    try:
        sample = to_sample(stored)
    except (ValueError, TypeError) as error:
        yield str(error)
        return
    if sample.mask is None:
        return
    if problem := mask_problem(sample.mask, semantic=sample.semantic, num_classes=num_classes):
        yield problem
