"""Pack a data set into WebDataset shards, verify them, look into them."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from wsol_dist.data import sources
from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.log.progress import progress
from wsol_dist.options import parse_knobs

USAGE = """usage: wsol shards {pack,verify,ls,show,cat,report} ...

  pack SOURCE --out FOLDER ...   make shards of a data set; `pack --help` lists the sources
  verify FOLDER [--deep]         check that a folder holds what its index says
  ls FOLDER                      splits, shards, bytes, classes
  show FOLDER ID                 one sample: picture, classes, boxes, mask, place; ID or number of a row
  cat FOLDER ID [--member json]  its image, record or mask as they are stored, to stdout
  report FOLDER [--out PAGE]     a page: classes, boxes, samples, duplicates, broken files"""


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Check a folder of shards; exit code 1 if it has problems."""

    folder: tyro.conf.Positional[str]
    """Folder of the shards, or its address, of which every shard is fetched into the cache."""
    deep: bool = False
    """Also decode every image and mask."""
    workers: int = 0
    """Processes; 0 for one a core."""


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """Splits, shards, counts, sizes and classes of a folder of shards."""

    folder: tyro.conf.Positional[str]
    """Folder of the shards, or its address."""


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """One sample: its picture, classes, boxes and mask, and where it is."""

    folder: tyro.conf.Positional[str]
    """Folder of the shards, or its address."""
    id: tyro.conf.Positional[str]
    """The sample's id, or the number of its row in samples.parquet, from 0."""


@dataclass(frozen=True, kw_only=True)
class CatOptions:
    """One sample's image, record or mask to stdout, byte for byte as it is stored."""

    folder: tyro.conf.Positional[str]
    """Folder of the shards, or its address."""
    id: tyro.conf.Positional[str]
    """The sample's id, or the number of its row in samples.parquet, from 0."""
    member: Literal["image", "json", "mask"] = "image"
    """Which of its files."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Write the page of a data set: classes, boxes, samples, duplicates over splits and classes, broken files."""

    folder: tyro.conf.Positional[str]
    """Folder of the shards, or its address."""
    out: Path | None = None
    """File of the page; default report.html in the folder."""
    samples: int = 48
    """Images that are shown with their boxes and masks."""
    workers: int = 0
    """Processes; 0 for one a core."""


def main(argv: list[str]) -> int:
    """Run `wsol shards ...`; returns the exit code."""
    actions: dict[str, Callable[[list[str]], int]] = {
        "pack": _pack,
        "verify": _verify,
        "ls": _list,
        "show": _show,
        "cat": _cat,
        "report": _report,
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
    from wsol_dist.data.packing.pack import PackOptions

    flat = tyro.conf.OmitArgPrefixes
    both = dataclasses.make_dataclass(
        "Pack", [("pack", flat[PackOptions]), ("source", flat[options_class])], frozen=True, kw_only=True
    )
    parsed: Any = parse_knobs(both, argv, prog=f"shards/pack.py {name}", description=sources.summary(name))
    return parsed.pack, parsed.source


def _run_pack(name: str, source: Any, source_options: Any, options: Any) -> int:
    from wsol_dist.data.inspection.look import size_text
    from wsol_dist.data.packing.pack import already_packed, make_plan, pack, write_part

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
    if options.part is not None:
        shards = plan.part(options)
        with progress("packing", sum(len(shard.items) for shard in shards)) as told:
            write_part(plan, source, options, told, say=_say)
        print(
            f"{options.out}: part {options.part}, {len(shards)} of {len(plan.shards)} shards, "
            f"{time.monotonic() - start:.1f} s; behind all parts the same command without --part writes the index"
        )
        return 0
    with progress("packing", plan.num_samples) as told:
        index = pack(plan, source, options, told, say=_say)
    counts = ", ".join(f"{split} {value.num_samples}" for split, value in index.splits.items())
    num_bytes = sum(shard.bytes for shard in index.shards)
    print(
        f"{options.out}: {plan.num_samples} samples ({counts}) of {len(index.classes)} classes in "
        f"{len(index.shards)} shards, {size_text(num_bytes)}, {time.monotonic() - start:.1f} s"
    )
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _verify(argv: list[str]) -> int:
    from wsol_dist.data.inspection.verify import verify
    from wsol_dist.data.shards.index import Index

    options = parse_knobs(VerifyOptions, argv, prog="wsol shards verify")
    total = sum(split.num_samples for split in Index.load(options.folder, check_files=False).splits.values())
    with progress("verifying", total) as told:
        problems = verify(options.folder, deep=options.deep, workers=options.workers, progress=told)
    for problem in problems:
        print(problem)
    how = "headers, checksums and rows" + (", every image and mask decoded" if options.deep else "")
    print(f"{options.folder}: {total} samples, {len(problems)} problems ({how})")
    return 1 if problems else 0


def _list(argv: list[str]) -> int:
    from wsol_dist.data.inspection.look import folder_lines
    from wsol_dist.data.shards.index import Index

    options = parse_knobs(ListOptions, argv, prog="wsol shards ls")
    for line in folder_lines(Index.load(options.folder)):
        print(line)
    return 0


def _show(argv: list[str]) -> int:
    from wsol_dist.data.inspection.look import find_sample, sample_lines
    from wsol_dist.data.shards.index import Index

    options = parse_knobs(ShowOptions, argv, prog="wsol shards show")
    index = Index.load(options.folder)
    for line in sample_lines(index, *find_sample(index, options.id)):
        print(line)
    return 0


def _cat(argv: list[str]) -> int:
    from wsol_dist.data.inspection.look import find_sample, member
    from wsol_dist.data.shards.index import Index

    options = parse_knobs(CatOptions, argv, prog="wsol shards cat")
    _, stored = find_sample(Index.load(options.folder), options.id)
    sys.stdout.buffer.write(member(stored, options.member))
    sys.stdout.buffer.flush()
    return 0


def _report(argv: list[str]) -> int:
    from wsol_dist.data.shards.index import Index
    from wsol_dist.report.data_view import write_report

    options = parse_knobs(ReportOptions, argv, prog="wsol shards report")
    for name, given in (("--samples", options.samples), ("--workers", options.workers)):
        if given < 0:
            raise UserError(f"{name}: {given} given; 0 or more allowed")
    total = sum(split.num_samples for split in Index.load(options.folder, check_files=False).splits.values())
    with progress("reading", total) as told:
        said = write_report(
            options.folder,
            out=options.out,
            num_samples=options.samples,
            workers=options.workers,
            progress=told,
        )
    for line in said:
        print(line)
    return 0
