"""What a data set is made of, seen by reading every shard once: sizes, boxes, masks, damage, and what looks alike."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from wsol_dist.data.images.decode import DecodeError, decode_rgb
from wsol_dist.data.packing.parallel import in_order, num_cores
from wsol_dist.data.shards.index import Index
from wsol_dist.data.shards.sample import IGNORE, Sample
from wsol_dist.data.shards.shard import StoredSample, read_sample, to_sample
from wsol_dist.errors import UserError

GRID = 32
"""Cells a side of the map of where boxes are."""
THUMB_PX = 8
_HASH_PX = 32


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Every sample of a data set, in the order of `Index.table()`."""

    ids: list[str]
    split: np.ndarray
    """(n,) str."""
    labels: list[tuple[int, ...]]
    width: np.ndarray
    """(n,) int32, pixels; 0 where the header was unreadable."""
    height: np.ndarray
    has_mask: np.ndarray
    """(n,) bool."""
    digest: np.ndarray
    """(n,) S16: the first half of the sha256 of the image's bytes; empty where there is no image."""
    looks: np.ndarray
    """(n,) uint64: the perceptual hash; see `appearance`."""
    thumb: np.ndarray
    """(n, 192) uint8: 8 x 8 RGB."""
    broken: dict[int, str]
    """Samples that cannot be shown, and why."""
    box_row: np.ndarray
    """(b,) int64: the sample of each box."""
    box_label: np.ndarray
    """(b,) int64: its class; -1 where it is not known."""
    box_share: np.ndarray
    """(b,) float32: its area over that of the image, in [0, 1]."""
    box_grid: np.ndarray
    """(GRID, GRID) float64: the mean over all boxes of the part of a cell that they cover."""
    mask_share: np.ndarray
    """(n,) float32: object pixels over those that are not ignored; nan without a mask."""
    damaged: list[str]
    """A line for each tar that is missing or is not the one that the index names."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def readable(self) -> np.ndarray:
        """(n,) bool."""
        found = np.ones(len(self), bool)
        found[list(self.broken)] = False
        return found


@dataclass(frozen=True, kw_only=True)
class _Task:
    shard: int
    first: int
    """Row of its first sample."""
    ids: list[str]
    offset: np.ndarray
    bytes: np.ndarray


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What a shard's samples gave, in their order."""

    digest: np.ndarray
    looks: np.ndarray
    thumb: np.ndarray
    mask_share: np.ndarray
    broken: dict[int, str]
    boxes: list[tuple[int, int, float]]
    """Sample, class, share."""
    box_grid: np.ndarray
    """The sum over the boxes."""
    damage: str | None


def survey(index: Index, *, workers: int = 0, progress: Callable[[int], None] = lambda _: None) -> Survey:
    """Read every shard once.

    Args:
        index: loaded with or without a check of its files.
        workers: processes; 0 for one a core.
        progress: told the number of samples after every shard.

    Raises:
        UserError: a remote shard stays away.
    """
    table = index.table().combine_chunks()
    shard, ids = table["shard"].to_numpy(), table["id"].to_pylist()
    offset, size = table["offset"].to_numpy(), table["bytes"].to_numpy()
    starts = np.flatnonzero(np.diff(shard, prepend=-1))
    tasks = [
        _Task(shard=int(shard[at]), first=int(at), ids=ids[at:end], offset=offset[at:end], bytes=size[at:end])
        for at, end in zip(starts.tolist(), [*starts[1:].tolist(), len(ids)], strict=True)
    ]
    seen: list[_Seen] = []
    for task, one in zip(
        tasks, in_order(_see_shard, tasks, shared=index, num_workers=workers or num_cores()), strict=True
    ):
        seen.append(one)
        progress(len(task.ids))
    labels = [tuple(some) for some in table["labels"].to_pylist()]
    boxes = [
        (task.first + at, label if label >= 0 else _only(labels[task.first + at]), share)
        for task, one in zip(tasks, seen, strict=True)
        for at, label, share in one.boxes
    ]
    return Survey(
        ids=ids,
        split=np.array(table["split"].to_pylist(), dtype=str),
        labels=labels,
        width=table["width"].to_numpy(),
        height=table["height"].to_numpy(),
        has_mask=table["has_mask"].to_numpy(),
        digest=np.concatenate([one.digest for one in seen]),
        looks=np.concatenate([one.looks for one in seen]),
        thumb=np.concatenate([one.thumb for one in seen]),
        broken={
            task.first + at: why
            for task, one in zip(tasks, seen, strict=True)
            for at, why in one.broken.items()
        },
        box_row=np.array([row for row, _, _ in boxes], np.int64),
        box_label=np.array([label for _, label, _ in boxes], np.int64),
        box_share=np.array([share for _, _, share in boxes], np.float32),
        box_grid=sum((one.box_grid for one in seen), np.zeros((GRID, GRID))) / max(1, len(boxes)),
        mask_share=np.concatenate([one.mask_share for one in seen]),
        damaged=[one.damage for one in seen if one.damage],
    )


def appearance(rgb_HWC: np.ndarray) -> tuple[int, np.ndarray]:
    """How an image looks, whatever its size and compression.

    Returns:
        64 bits: which of the 8 x 8 lowest frequencies of the grey image, without the mean, are above their median
        (the DCT hash that is commonly called pHash); and (192,) uint8, the image as 8 x 8 RGB.
    """
    small = cv2.resize(rgb_HWC, (_HASH_PX, _HASH_PX), interpolation=cv2.INTER_AREA)
    thumb = cv2.resize(small, (THUMB_PX, THUMB_PX), interpolation=cv2.INTER_AREA)
    waves = cv2.dct(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32))[:8, :8].ravel()
    bits = waves > np.median(waves[1:])
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big"), thumb.reshape(-1)


def stored_samples(index: Index, rows: Sequence[int]) -> dict[int, Sample]:
    """Some samples by their row in `Index.table()`, masks decoded, images not; missing and damaged ones left out."""
    table = index.table().select(["shard", "offset", "bytes"]).take(sorted(set(rows)))
    found = {}
    for row, place in zip(sorted(set(rows)), table.to_pylist(), strict=True):
        try:
            file = index.open(place["shard"])
            try:
                found[row] = to_sample(read_sample(os.pread(file, place["bytes"], place["offset"])))
            finally:
                os.close(file)
        except (UserError, OSError, ValueError, KeyError, TypeError):
            continue
    return found


def _see_shard(index: Index, task: _Task) -> _Seen:
    num = len(task.ids)
    seen = _Seen(
        digest=np.zeros(num, "S16"),
        looks=np.zeros(num, np.uint64),
        thumb=np.zeros((num, THUMB_PX * THUMB_PX * 3), np.uint8),
        mask_share=np.full(num, np.nan, np.float32),
        broken={},
        boxes=[],
        box_grid=np.zeros((GRID, GRID)),
        damage=None,
    )
    shard = index.shards[task.shard]
    try:
        data = index.path(task.shard).read_bytes()
    except OSError as error:
        seen.broken.update(dict.fromkeys(range(num), "its tar is missing"))
        return replace(seen, damage=f"{shard.file}: cannot be read ({error.strerror})")
    for at, (name, offset, size) in enumerate(
        zip(task.ids, task.offset.tolist(), task.bytes.tolist(), strict=True)
    ):
        try:
            _see(seen, at, name, read_sample(data[offset : offset + size]))
        except (ValueError, KeyError, TypeError, DecodeError) as error:
            seen.broken[at] = str(error)
    if len(data) != shard.bytes:
        return replace(seen, damage=f"{shard.file}: {len(data)} of {shard.bytes} bytes are there")
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        return replace(seen, damage=f"{shard.file}: sha256 differs from the index")
    return seen


def _see(seen: _Seen, at: int, name: str, stored: StoredSample) -> None:
    if stored.record["id"] != name:
        raise ValueError(f"holds {stored.record['id']!r} in its place")
    seen.digest[at] = hashlib.sha256(stored.image).digest()[:16]
    sample = to_sample(stored)
    seen.looks[at], seen.thumb[at] = appearance(decode_rgb(stored.image, cover_px=2 * _HASH_PX))
    if sample.boxes_xyxy is not None and sample.box_frame_wh is not None:
        labels = sample.box_labels or (-1,) * len(sample.boxes_xyxy)
        for box, label in zip(sample.boxes_xyxy / np.tile(sample.box_frame_wh, 2), labels, strict=True):
            x0, y0, x1, y1 = np.clip(box, 0, 1).tolist()
            seen.boxes.append((at, label, max(0.0, x1 - x0) * max(0.0, y1 - y0)))
            seen.box_grid[:] += np.outer(_covered(y0, y1), _covered(x0, x1))
    if sample.mask is not None:
        known = sample.mask[sample.mask != IGNORE]
        seen.mask_share[at] = np.count_nonzero(known) / max(1, known.size)


def _covered(start: float, end: float) -> np.ndarray:
    """The part of each of GRID equal cells of [0, 1] that an interval covers."""
    edges = np.arange(GRID + 1)
    return np.clip(np.minimum(edges[1:], end * GRID) - np.maximum(edges[:-1], start * GRID), 0, 1)


def _only(labels: tuple[int, ...]) -> int:
    return labels[0] if len(labels) == 1 else -1


def spread_out(survey: Survey, num: int) -> list[int]:
    """Rows for looking at: equally many of each split and, there, of each class, always the same ones."""
    splits = list(dict.fromkeys(survey.split.tolist()))
    chosen: list[int] = []
    for place, split in enumerate(splits):
        rows = np.flatnonzero(survey.split == split).tolist()
        rows.sort(key=lambda row: hashlib.blake2b(survey.ids[row].encode(), digest_size=8).digest())
        count: dict[int, int] = {}
        turn = {}
        for row in rows:
            label = survey.labels[row][0] if survey.labels[row] else -1
            turn[row] = count[label] = count.get(label, 0) + 1
        rows.sort(key=lambda row: turn[row])
        chosen += rows[: (num - len(chosen)) // (len(splits) - place)]
    return chosen
