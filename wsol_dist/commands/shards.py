"""Pack a data set into WebDataset shards, verify them, look into them."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from wsol_dist.data import sources
from wsol_dist.errors import UserError, did_you_mean

USAGE = """usage: wsol shards {pack,verify,ls,show} ...

  pack SOURCE --out FOLDER ...   make shards of a data set; `pack --help` lists the sources
  verify FOLDER [--deep]         check that a folder holds what its index says
  ls FOLDER                      splits, shards, bytes, classes
  show FOLDER ID [--out FILE]    one sample's record; --out writes its image"""
SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Check a folder of shards; exit code 1 if it has problems."""

    folder: tyro.conf.Positional[Path]
    """Folder of the shards."""
    deep: bool = False
    """Also decode every image and mask."""
    workers: int = 0
    """Processes; 0 for one a core."""


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """Splits, shards, bytes and classes of a folder of shards."""

    folder: tyro.conf.Positional[Path]
    """Folder of the shards."""


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """One sample's row and record."""

    folder: tyro.conf.Positional[Path]
    """Folder of the shards."""
    id: tyro.conf.Positional[str]
    """The sample's id."""
    out: Path | None = None
    """File to which the image's bytes are written."""


def main(argv: list[str]) -> int:
    """Run `wsol shards ...`; returns the exit code."""
    actions: dict[str, Callable[[list[str]], int]] = {
        "pack": _pack,
        "verify": _verify,
        "ls": _list,
        "show": _show,
    }
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if argv else 2
    if argv[0] not in actions:
        raise UserError(f"wsol shards: unknown action {argv[0]!r}; {did_you_mean(argv[0], list(actions))}")
    return actions[argv[0]](argv[1:])


def _pack(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        _print_sources()
        return 0 if argv else 2
    if argv[0].startswith("-"):
        raise UserError(
            f"shards pack: {argv[0]!r} given where the source belongs; "
            f"sources: {', '.join(sources.source_names())}"
        )
    name = argv[0]
    module = sources.source_module(name)
    options, source_options = _parse_pack(name, module.Options, argv[1:])
    return _run_pack(name, module.Source(source_options), source_options, options)


def _print_sources() -> None:
    print("usage: shards/pack.py SOURCE --out FOLDER [options]; SOURCE --help lists the options\n\nsources:")
    for name in sources.source_names():
        print(f"  {name:<14} {sources.summary(name)}")


def _parse_pack(name: str, options_class: type, argv: list[str]) -> tuple[Any, Any]:
    """Options of packing and of the source, as one flat set of flags."""
    from wsol_dist.data.pack import PackOptions

    flat = tyro.conf.OmitArgPrefixes
    both = dataclasses.make_dataclass(
        "Pack", [("pack", flat[PackOptions]), ("source", flat[options_class])], frozen=True, kw_only=True
    )
    parsed: Any = tyro.cli(both, args=argv, prog=f"shards/pack.py {name}", description=sources.summary(name))
    return parsed.pack, parsed.source


def _run_pack(name: str, source: Any, source_options: Any, options: Any) -> int:
    from wsol_dist.data.pack import already_packed, make_plan, pack

    start = time.monotonic()
    print(f"{name}: listing samples", flush=True)
    plan = make_plan(name, source, source_options, options)
    if plan.num_unlabelled:
        print(f"{name}: {plan.num_unlabelled} images left out: nothing of any class is in them", flush=True)
    if plan.incomplete:
        print(f"{name}: {plan.incomplete} (--complete makes this an error)", flush=True)
    if already_packed(plan, source, options):
        print(f"{options.out}: already packed with these arguments, nothing to do (--force packs again)")
        return 0
    with _progress("packing", plan.num_samples) as progress:
        index = pack(plan, source, options, progress, say=lambda line: print(line, flush=True))
    counts = ", ".join(f"{split} {value.num_samples}" for split, value in index.splits.items())
    num_bytes = sum(shard.bytes for shard in index.shards)
    print(
        f"{options.out}: {plan.num_samples} samples ({counts}) of {len(index.classes)} classes in "
        f"{len(index.shards)} shards, {_size(num_bytes)}, {time.monotonic() - start:.1f} s"
    )
    return 0


def _verify(argv: list[str]) -> int:
    from wsol_dist.data.index import Index
    from wsol_dist.data.verify import verify

    options = tyro.cli(VerifyOptions, args=argv, prog="wsol shards verify")
    total = sum(split.num_samples for split in Index.load(options.folder, check_files=False).splits.values())
    with _progress("verifying", total) as progress:
        problems = verify(options.folder, deep=options.deep, workers=options.workers, progress=progress)
    for problem in problems:
        print(problem)
    how = "headers, checksums and rows" + (", every image and mask decoded" if options.deep else "")
    print(f"{options.folder}: {total} samples, {len(problems)} problems ({how})")
    return 1 if problems else 0


def _list(argv: list[str]) -> int:
    from wsol_dist.data.index import Index

    options = tyro.cli(ListOptions, args=argv, prog="wsol shards ls")
    index = Index.load(options.folder)
    print(
        f"{options.folder}: {index.name}, {len(index.classes)} classes, "
        f"columns {', '.join(index.columns)}, seed {index.seed}"
    )
    print(f"{'split':<10}{'samples':>10}{'shards':>8}{'bytes':>12}   images per class")
    for name, split in index.splits.items():
        shards = [shard for shard in index.shards if shard.split == name]
        counts = split.num_images_per_class
        size = _size(sum(shard.bytes for shard in shards))
        print(f"{name:<10}{split.num_samples:>10}{len(shards):>8}{size:>12}   {min(counts)} to {max(counts)}")
    print(
        "classes: "
        + "; ".join(index.classes[:20])
        + (f"; and {len(index.classes) - 20} more" if len(index.classes) > 20 else "")
    )
    return 0


def _show(argv: list[str]) -> int:
    from wsol_dist.data.index import Index
    from wsol_dist.data.verify import find_sample

    options = tyro.cli(ShowOptions, args=argv, prog="wsol shards show")
    index = Index.load(options.folder)
    row, stored = find_sample(index, options.id)
    shown = {**row, **stored.record, "shard": index.shards[row["shard"]].file, "extension": stored.extension}
    shown["classes"] = [index.classes[label] for label in row["labels"]]
    print(json.dumps(shown, indent=1, ensure_ascii=False))
    if options.out is not None:
        options.out.write_bytes(stored.image)
        print(f"image written to {options.out}")
    return 0


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line every ten seconds elsewhere."""
    if sys.stdout.isatty():
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns) as bar:
            task = bar.add_task(what, total=total)
            yield lambda count: bar.advance(task, count)
        return
    yield _Lines(what, total)


class _Lines:
    """Progress for logs."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self.start = self.last = time.monotonic()

    def __call__(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.last < SECONDS_BETWEEN_LINES and self.done < self.total:
            return
        self.last = now
        rate = self.done / max(now - self.start, 1e-9)
        left = (self.total - self.done) / rate if rate else 0.0
        print(f"{self.what}: {self.done}/{self.total} samples, {rate:.0f}/s, {left:.0f} s left", flush=True)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.1f} MiB"
