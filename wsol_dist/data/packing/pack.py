"""Packing: a source's samples, shuffled once, as shards with an index; the same bytes with any workers and parts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from wsol_dist.data.images.broken import BrokenImages, name_some
from wsol_dist.data.packing.folder import (
    FinishedShard,
    Packer,
    differing,
    finished_shard,
    identity_sha256,
    prepare_folder,
    read_range,
    sweep,
    write_or_keep,
)
from wsol_dist.data.packing.parallel import in_order, num_cores
from wsol_dist.data.packing.plan import PackOptions, Plan, make_plan, read_promised
from wsol_dist.data.shards import index as index_file
from wsol_dist.data.shards.index import INDEX_FILE, Index, IndexFile, Shard, Split
from wsol_dist.data.shards.sample import Item, Source
from wsol_dist.data.shards.shard import encode_sample
from wsol_dist.errors import UserError

__all__ = ["PackOptions", "Plan", "already_packed", "make_plan", "pack", "write_part"]
NUM_SPOT_CHECKS = 8

Progress = Callable[[int], None]
"""Told the number of samples after every shard."""
Say = Callable[[str], None]
"""Told in a line what a person should know of some samples."""


def pack(
    plan: Plan,
    source: Source,
    options: PackOptions,
    progress: Progress = lambda _: None,
    say: Say = lambda _: None,
) -> Index:
    """Write what is missing; the index comes last.

    Raises:
        UserError: the folder holds something else; a file of the source is missing or damaged; a sample that
            could not be trained on or scored; too many images that do not decode. There is no index then.
    """
    assert options.part is None
    write_part(plan, source, options, progress, say)
    sha256 = identity_sha256(plan)
    finished = [finished_shard(task, sha256) for task in plan.shards]
    whole = [one for one in finished if one is not None]
    if len(whole) != len(plan.shards):
        raise UserError(f"{options.out}: shards disappeared while they were packed; pack again")
    table = pa.concat_tables([one.table for one in whole]).combine_chunks()
    samples = index_file.write_samples(options.out, table)
    index_file.write_index(options.out, _contents(plan, whole, table, samples))
    sweep(options.out)
    return Index.load(options.out)


def write_part(
    plan: Plan,
    source: Source,
    options: PackOptions,
    progress: Progress = lambda _: None,
    say: Say = lambda _: None,
) -> None:
    """Write the shards of `options.part`, by default all, and no index; those that are finished are kept.

    Raises:
        UserError: as `pack`.
    """
    done = prepare_folder(plan, out=options.out, force=options.force, alone=options.part is None)
    if done:
        say(f"{done} of {len(plan.shards)} shards are finished, going on with the others")
    tasks = plan.part(options)
    packer = Packer(source=source, plan_sha256=identity_sha256(plan))
    broken = BrokenImages(num_samples=plan.num_samples, max_bad=options.max_bad, option="--max-bad")
    reaching_out: list[str] = []
    results = in_order(write_or_keep, tasks, shared=packer, num_workers=options.workers or num_cores())
    for task, shard in zip(tasks, results, strict=True):
        progress(len(task.items))
        for one in broken.add(shard.broken):
            say(f"image does not decode, packed as it is: {one} ({shard.broken[one]})")
        broken.check("repair or remove them")
        reaching_out += shard.reaching_out
    if reaching_out:
        say(
            f"{len(reaching_out)} samples have a box more than a pixel over the border of their image, kept as given: "
            f"{name_some(reaching_out)}"
        )


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
    names = ("name", "options", "seed", "classes", "items_sha256")
    mine = {name: plan.identity()[name] for name in names}
    theirs = {name: getattr(found, name) for name in names} | {"classes": list(found.classes)}
    what = differing(mine, theirs)
    if not what and not _same_bytes(plan, source, found):
        what = ["the samples' bytes"]
    if what:
        raise UserError(
            f"{options.out}: already packed with other arguments or data ({', '.join(what)}); "
            "give another --out, or --force to pack over it"
        )
    sweep(options.out)  # the last step may have been killed between the index and its end
    return True


def _same_bytes(plan: Plan, source: Source, found: Index) -> bool:
    table = found.table()
    chosen = np.unique(np.linspace(0, plan.num_samples - 1, NUM_SPOT_CHECKS).astype(int))
    items = [item for split_items in plan.items.values() for item in split_items]
    for ordinal in chosen.tolist():
        row = table.slice(ordinal, 1).to_pylist()[0]
        stored = read_range(found.path(row["shard"]), row["offset"], row["bytes"])
        if stored != encode_sample(ordinal, read_promised(source, items[ordinal])):
            return False
    return True


def _contents(
    plan: Plan, finished: list[FinishedShard], table: pa.Table, samples: index_file.SamplesFile
) -> IndexFile:
    written = [one.written for one in finished]
    shards = tuple(
        Shard(
            file=task.file,
            split=task.split,
            num_samples=len(task.items),
            bytes=done.bytes,
            sha256=done.sha256,
        )
        for task, done in zip(plan.shards, written, strict=True)
    )
    columns = ["image", "labels"]
    columns += ["boxes_xyxy"] if table["num_boxes"].to_numpy().any() else []
    columns += ["box_labels"] if any(done.box_labels for done in written) else []
    has_mask = table["has_mask"].to_numpy().any()
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
