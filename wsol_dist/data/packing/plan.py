"""What packing will write, known before it begins: splits, their order, where it is cut into shards."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from wsol_dist.data.packing.holdout import hold_out_val
from wsol_dist.data.packing.totals import CLASSES, difference
from wsol_dist.data.shards.check import check_labels, check_mask
from wsol_dist.data.shards.index import CREATED_BY
from wsol_dist.data.shards.sample import Item, Sample, Source
from wsol_dist.data.shards.shard import encode_sample, image_size, in_box_frame
from wsol_dist.errors import UserError
from wsol_dist.options import part_of
from wsol_dist.validation import validated

MIN_SHARDS, MIN_SAMPLES, MAX_SAMPLES = 64, 16, 1000
"""A split has 64 shards as soon as they hold 16 samples each; a shard never has more than 1000 by itself."""
NUM_WEIGHED = 256
"""Samples of a split by which `shard_mib` knows how large its samples are."""


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """How any source is packed."""

    out: Path
    """Folder of the shards; made if it is not there."""
    workers: NonNegativeInt = 0
    """Processes that read and write; 0 for one a core."""
    seed: NonNegativeInt = 0
    """Seed of the order of the samples and of the held-out val split."""
    samples_per_shard: PositiveInt | None = None
    """At most this many samples a shard; default 1000, fewer where a split would have under 64 shards."""
    shard_mib: Annotated[float | None, Field(gt=0, lt=2**20)] = None
    """Size of a shard in MiB to aim at, instead of a number of samples: known from 256 samples of each split."""
    part: str | None = None
    """`I/N`, from 1/N to N/N: write only this part of the shards and no index, so that N jobs share the work. A last
    packing without this option writes the index, and what is missing. The result is the same byte for byte."""
    val_from: str | None = None
    """Split out of which a val split is held; by default train. Only for sources without a val split."""
    val_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Part that is held out, by a hash of id and seed; 0 for no val split."""
    max_bad: Annotated[float, Field(ge=0, le=1)] = 0.001
    """Share of the images that may fail to decode before packing ends with their names; at least one unless 0."""
    force: bool = False
    """Pack again over a folder of shards, finished or not."""
    complete: bool = False
    """End with an error where the data set has fewer or more images than is known; otherwise that is one line."""


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard to write."""

    folder: Path
    file: str
    split: str
    shard: int
    first_ordinal: int
    items: list[Item]

    @property
    def path(self) -> Path:
        return self.folder / self.file


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be written."""

    name: str
    options: dict[str, Any]
    seed: int
    classes: tuple[str, ...]
    items: dict[str, list[Item]]
    """By split, in the order in which they are written."""
    shards: list[ShardTask]
    items_sha256: str
    incomplete: str = ""
    """One line where the number of images is not the known one."""
    num_unlabelled: int = 0
    """Images that are left out, since nothing of any class is in them."""

    @property
    def num_samples(self) -> int:
        return sum(map(len, self.items.values()))

    def part(self, options: PackOptions) -> list[ShardTask]:
        """The shards of `options.part`; all of them without one."""
        number, count = part_of(options.part)
        return self.shards[number::count]

    def identity(self) -> dict[str, Any]:
        """What makes two plans the same: equal plans of equal files give equal bytes."""
        cuts = json.dumps([(task.file, len(task.items)) for task in self.shards])
        named = {name: getattr(self, name) for name in ("name", "options", "seed", "classes", "items_sha256")}
        cuts_sha256 = hashlib.sha256(cuts.encode()).hexdigest()
        identity = {**named, "shards_sha256": cuts_sha256, "created_by": CREATED_BY}
        return json.loads(json.dumps(identity))  # as it reads from a file: lists, not tuples


def make_plan(name: str, source: Source, source_options: Any, options: PackOptions) -> Plan:
    """Splits, order and shards; reads no image, but some for `shard_mib`.

    Raises:
        UserError: options out of range; no samples; two samples of one id; labels that are no classes; another
            number of images than is known, where `complete` asks for it.
    """
    _check_options(options)
    found, num_unlabelled = _by_split(source)
    counts = {split: len(items) for split, items in found.items()} | {CLASSES: len(source.classes)}
    counts |= getattr(source, "found_counts", {})
    incomplete = difference(counts, source.known_counts)
    if incomplete and options.complete:
        raise UserError(f"--complete: {incomplete}; leave the option out to pack what is there")
    splits = hold_out_val(
        found,
        origin=options.val_from,
        fraction=options.val_fraction,
        seed=options.seed,
        classes=source.classes,
    )
    ordered = {split: _shuffled(items, split, options.seed) for split, items in splits.items()}
    return Plan(
        name=name,
        options=_recorded(source_options, options),
        seed=options.seed,
        classes=tuple(source.classes),
        items=ordered,
        shards=list(_shard_tasks(ordered, source, options)),
        items_sha256=_items_sha256(splits),
        incomplete=incomplete,
        num_unlabelled=num_unlabelled,
    )


def read_promised(source: Source, item: Item) -> Sample:
    """The sample that the item promised: splits and counts were made of the promise.

    Raises:
        UserError: another id or other labels; as `Source.read`, `check_mask`.
    """
    sample = in_box_frame(source.read(item))
    for what, given, listed in (("id", sample.id, item.id), ("labels", sample.labels, item.labels)):
        if given != listed:
            raise UserError(
                f"{item.id}: {what} {given!r} given by read(), {listed!r} by items(); must be equal"
            )
    check_mask(sample, num_classes=len(source.classes), image_wh=image_size(sample.image))
    return sample


def _check_options(options: PackOptions) -> None:
    # The command line has checked the ranges, a caller in Python may not have.
    validated(PackOptions, vars(options), name=lambda path: f"--{path[0]}".replace("_", "-"))
    problems = []
    if options.shard_mib is not None and options.samples_per_shard is not None:
        problems.append("--shard-mib and --samples-per-shard both given; give one of them")
    if options.part is not None and options.force:
        problems.append(
            "--part and --force both given: parts keep each other's shards; remove the folder instead"
        )
    if problems:
        raise UserError("\n".join(problems))
    part_of(options.part)


def _by_split(source: Source) -> tuple[dict[str, list[Item]], int]:
    """The items that have labels, and how many have none."""
    splits: dict[str, list[Item]] = {}
    ids = set()
    num_unlabelled = 0
    for item in source.items():
        if item.id in ids:
            raise UserError(f"two samples are named {item.id!r}; ids must differ")
        ids.add(item.id)
        if item.labels == ():
            num_unlabelled += 1
            continue
        check_labels(item.id, item.labels, num_classes=len(source.classes))
        splits.setdefault(item.split, []).append(item)
    if not splits:
        raise UserError("the source has no samples")
    return splits, num_unlabelled


def _shuffled(items: Sequence[Item], split: str, seed: int) -> list[Item]:
    rng = np.random.default_rng([seed, zlib.crc32(split.encode())])
    return [items[position] for position in rng.permutation(len(items))]


def _shard_tasks(splits: dict[str, list[Item]], source: Source, options: PackOptions) -> Iterator[ShardTask]:
    ordinal = shard = 0
    for split, items in splits.items():
        num_shards = -(-len(items) // _most_samples(items, source, options))
        edges = [number * len(items) // num_shards for number in range(num_shards + 1)]
        for number, (start, stop) in enumerate(pairwise(edges)):
            yield ShardTask(
                folder=options.out,
                file=f"{split}-{number:06d}.tar",
                split=split,
                shard=shard,
                first_ordinal=ordinal,
                items=items[start:stop],
            )
            ordinal, shard = ordinal + stop - start, shard + 1


def _most_samples(items: list[Item], source: Source, options: PackOptions) -> int:
    """That a shard of this split may have."""
    if options.shard_mib is None:
        return options.samples_per_shard or min(MAX_SAMPLES, max(MIN_SAMPLES, len(items) // MIN_SHARDS))
    # The items are shuffled by the seed: their first ones are a random sample, the same in every process.
    weighed = [len(encode_sample(0, read_promised(source, item))) for item in items[:NUM_WEIGHED]]
    return max(1, round(options.shard_mib * 2**20 * len(weighed) / sum(weighed)))


def _items_sha256(splits: dict[str, list[Item]]) -> str:
    digest = hashlib.sha256()
    for items in splits.values():
        for item in items:
            digest.update(json.dumps([item.id, item.split, item.labels]).encode())
    return digest.hexdigest()


def _recorded(source_options: Any, options: PackOptions) -> dict[str, Any]:
    """The options that shape the result; paths are left out, as they say nothing on another machine."""
    of_source = {
        field.name: getattr(source_options, field.name)
        for field in dataclasses.fields(source_options)
        if "Path" not in str(field.type)
    }
    names = ["samples_per_shard", "val_from", "val_fraction"]
    names += (
        ["shard_mib"] if options.shard_mib is not None else []
    )  # older folders of shards stay as they are
    return {"source": of_source, "pack": {name: getattr(options, name) for name in names}}
