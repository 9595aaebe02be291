"""Packing: a source's samples, shuffled once, as shards with an index; the same bytes with any workers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from wsol_dist.data import index as index_file
from wsol_dist.data.broken import BrokenImages, name_some
from wsol_dist.data.check import check_labels
from wsol_dist.data.holdout import hold_out_val
from wsol_dist.data.index import INDEX_FILE, Index, IndexFile, Shard, Split
from wsol_dist.data.parallel import in_order, num_cores
from wsol_dist.data.sample import Item, Sample, Source
from wsol_dist.data.shard import WrittenShard, encode_sample, in_box_frame, write_shard
from wsol_dist.data.totals import CLASSES, difference
from wsol_dist.errors import UserError

MIN_SHARDS, MIN_SAMPLES, MAX_SAMPLES = 64, 16, 1000
"""A split has 64 shards as soon as they hold 16 samples each; a shard never has more than 1000 by itself."""
STARTED_FILE = "packing.started"
"""Marks a folder that packing made and did not finish, so that nobody else's files are ever overwritten."""
SHARD_NAME = re.compile(r"[a-z0-9_]+-\d{6}\.tar")
NUM_SPOT_CHECKS = 8


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """How any source is packed."""

    out: Path
    """Folder of the shards; made if it is not there."""
    workers: int = 0
    """Processes that read and write; 0 for one a core."""
    seed: int = 0
    """Seed of the order of the samples and of the held-out val split."""
    samples_per_shard: int | None = None
    """At most this many samples a shard; default 1000, fewer where a split would have under 64 shards."""
    val_from: str | None = None
    """Split out of which a val split is held; by default train. Only for sources without a val split."""
    val_fraction: float = 0.1
    """Part that is held out, by a hash of id and seed; 0 for no val split."""
    max_bad: float = 0.001
    """Share of the images that may fail to decode before packing ends with their names; at least one unless 0."""
    force: bool = False
    """Pack again over a finished folder of shards."""
    complete: bool = False
    """End with an error where the data set has fewer or more images than is known; otherwise that is one line."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be written, known before any image is read."""

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


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard to write."""

    folder: Path
    file: str
    split: str
    shard: int
    first_ordinal: int
    items: list[Item]


Progress = Callable[[int], None]
"""Told the number of samples after every shard."""
Say = Callable[[str], None]
"""Told in a line what a person should know of some samples."""


def make_plan(name: str, source: Source, source_options: Any, options: PackOptions) -> Plan:
    """Splits, order and shards; reads no image.

    Raises:
        UserError: options out of range; no samples; two samples of one id; labels that are no classes; another
            number of images than is known, where `complete` asks for it.
    """
    _check_options(options)
    found, num_unlabelled = _by_split(source)
    counts = {split: len(items) for split, items in found.items()} | {CLASSES: len(source.classes)}
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
        shards=list(_shard_tasks(ordered, options)),
        items_sha256=_items_sha256(splits),
        incomplete=incomplete,
        num_unlabelled=num_unlabelled,
    )


def pack(
    plan: Plan,
    source: Source,
    options: PackOptions,
    progress: Progress = lambda _: None,
    say: Say = lambda _: None,
) -> Index:
    """Write everything; the index comes last.

    Raises:
        UserError: the folder holds something else; a file of the source is missing or damaged; a sample that
            could not be trained on or scored; too many images that do not decode. There is no index then.
    """
    _prepare_folder(plan, options)
    written: list[WrittenShard] = []
    num_workers = options.workers or num_cores()
    broken = BrokenImages(num_samples=plan.num_samples, max_bad=options.max_bad, option="--max-bad")
    for shard in in_order(_write_one, plan.shards, shared=source, num_workers=num_workers):
        written.append(shard)
        progress(len(shard.rows))
        for one in broken.add(shard.broken):
            say(f"image does not decode, packed as it is: {one} ({shard.broken[one]})")
        broken.check("repair or remove them")
    reaching_out = [one for shard in written for one in shard.reaching_out]
    if reaching_out:
        say(
            f"{len(reaching_out)} samples have a box more than a pixel over the border of their image, kept as given: "
            f"{name_some(reaching_out)}"
        )
    samples = index_file.write_samples(options.out, (row for shard in written for row in shard.rows))
    index_file.write_index(options.out, _contents(plan, written, samples))
    (options.out / STARTED_FILE).unlink()
    return Index.load(options.out)


def already_packed(plan: Plan, source: Source, options: PackOptions) -> bool:
    """Whether the folder holds what this plan would write, judged by its index and by a few samples' bytes.

    Raises:
        UserError: it holds a finished packing of something else, or a damaged one.
    """
    if options.force or not (options.out / INDEX_FILE).exists():
        return False
    try:
        found = Index.load(options.out)
    except UserError as error:
        raise UserError(f"{error}; --force packs over it") from error
    differing = [
        name for name in ("name", "options", "seed", "classes", "items_sha256") if _differs(plan, found, name)
    ]
    if not differing and not _same_bytes(plan, source, found):
        differing = ["the samples' bytes"]
    if differing:
        what = ", ".join(differing).replace("items_sha256", "list of samples")
        raise UserError(
            f"{options.out}: already packed with other arguments or data ({what}); "
            "give another --out, or --force to pack over it"
        )
    return True


def _differs(plan: Plan, found: Index, name: str) -> bool:
    mine, theirs = (json.dumps(getattr(side, name), sort_keys=True) for side in (plan, found))
    return mine != theirs


def _same_bytes(plan: Plan, source: Source, found: Index) -> bool:
    table = found.table()
    chosen = np.unique(np.linspace(0, plan.num_samples - 1, NUM_SPOT_CHECKS).astype(int))
    items = [item for split_items in plan.items.values() for item in split_items]
    for ordinal in chosen.tolist():
        row = table.slice(ordinal, 1).to_pylist()[0]
        with found.path(row["shard"]).open("rb") as file:
            file.seek(row["offset"])
            if file.read(row["bytes"]) != encode_sample(ordinal, _read(source, items[ordinal])):
                return False
    return True


def _check_options(options: PackOptions) -> None:
    problems = []
    if options.workers < 0:
        problems.append(f"--workers: {options.workers} given; 0 (one a core) or more allowed")
    if options.seed < 0:
        problems.append(f"--seed: {options.seed} given; 0 or more allowed")
    if options.samples_per_shard is not None and options.samples_per_shard < 1:
        problems.append(f"--samples-per-shard: {options.samples_per_shard} given; 1 or more allowed")
    if not 0 <= options.max_bad <= 1:
        problems.append(f"--max-bad: {options.max_bad} given; a share from 0 to 1 allowed")
    if not 0 <= options.val_fraction < 1:
        problems.append(f"--val-fraction: {options.val_fraction} given; 0 or more and less than 1 allowed")
    if problems:
        raise UserError("\n".join(problems))


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


def _shard_tasks(splits: dict[str, list[Item]], options: PackOptions) -> Iterator[ShardTask]:
    ordinal = shard = 0
    for split, items in splits.items():
        most = options.samples_per_shard or min(MAX_SAMPLES, max(MIN_SAMPLES, len(items) // MIN_SHARDS))
        num_shards = -(-len(items) // most)
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


def _write_one(source: Source, task: ShardTask) -> WrittenShard:
    samples = ((task.first_ordinal + number, _read(source, item)) for number, item in enumerate(task.items))
    return write_shard(task.folder / task.file, samples, split=task.split, shard=task.shard)


def _read(source: Source, item: Item) -> Sample:
    """The sample that the item promised: splits and counts were made of the promise."""
    sample = in_box_frame(source.read(item))
    for what, given, listed in (("id", sample.id, item.id), ("labels", sample.labels, item.labels)):
        if given != listed:
            raise UserError(
                f"{item.id}: {what} {given!r} given by read(), {listed!r} by items(); must be equal"
            )
    return sample


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
    names = ("samples_per_shard", "val_from", "val_fraction")
    return {"source": of_source, "pack": {name: getattr(options, name) for name in names}}


def _prepare_folder(plan: Plan, options: PackOptions) -> None:
    out = options.out
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file, not a folder; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    ours = (out / INDEX_FILE).exists() or (out / STARTED_FILE).exists()
    if not ours and any(out.iterdir()):
        raise UserError(f"{out}: not empty and no folder of shards; give another --out")
    (out / STARTED_FILE).write_text(f"{plan.name}: packing did not finish; pack again into this folder\n")
    (out / INDEX_FILE).unlink(missing_ok=True)
    for path in out.iterdir():
        if SHARD_NAME.fullmatch(path.name) or path.suffix == ".tmp":
            path.unlink()


def _contents(plan: Plan, written: list[WrittenShard], samples: index_file.SamplesFile) -> IndexFile:
    shards = tuple(
        Shard(
            file=task.file, split=task.split, num_samples=len(done.rows), bytes=done.bytes, sha256=done.sha256
        )
        for task, done in zip(plan.shards, written, strict=True)
    )
    rows = [row for done in written for row in done.rows]
    columns = ["image", "labels"]
    columns += ["boxes_xyxy"] if any(row.num_boxes for row in rows) else []
    columns += ["box_labels"] if any(done.box_labels for done in written) else []
    has_mask = any(row.has_mask for row in rows)
    columns += ["semantic_mask" if any(done.semantic for done in written) else "mask"] if has_mask else []
    return IndexFile(
        schema=index_file.SCHEMA,
        name=plan.name,
        options=plan.options,
        seed=plan.seed,
        classes=plan.classes,
        splits={split: _count(items, len(plan.classes)) for split, items in plan.items.items()},
        shards=shards,
        columns=tuple(columns),
        items_sha256=plan.items_sha256,
        samples=samples,
        created_by=index_file.CREATED_BY,
    )


def _count(items: list[Item], num_classes: int) -> Split:
    labels = [label for item in items for label in item.labels]
    counts = np.bincount(np.array(labels, dtype=np.int64), minlength=num_classes)
    return Split(num_samples=len(items), num_images_per_class=tuple(counts.tolist()))
