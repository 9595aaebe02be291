"""Make shards of a data set: wsol shards pack SOURCE --out FOLDER [options of the source]."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from wsol_dist.data import sources
from wsol_dist.data.packing.plan import PackOptions
from wsol_dist.log.progress import progress
from wsol_dist.options import FLAT, Overrides, parse_knobs


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of `wsol shards pack`."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Kind of data set."""
    packing: Annotated[PackOptions, FLAT]
    overrides: Overrides = ()

    @classmethod
    def epilog(cls) -> str:
        """What the help ends with."""
        names = sources.source_names()
        lines = [f"  {name:<14} {sources.summary(name)}" for name in names]
        return "\n".join(["A source has flags of its own: SOURCE --help lists them. Sources:", *lines])

    def open(self) -> tuple[Any, Any]:
        """The source, and its own options.

        Raises:
            UserError: no such source, or mistakes in its flags.
        """
        module = sources.source_module(self.source)
        own = parse_knobs(
            module.Options,
            self.overrides,
            prog=f"wsol shards pack {self.source}",
            description=sources.summary(self.source),
        )
        return module.Source(own), own


def run(options: Options) -> int:
    """Pack, or do nothing where that is done."""
    source, own = options.open()
    from wsol_dist.data.inspection.look import size_text
    from wsol_dist.data.packing.pack import already_packed, make_plan, pack, write_part

    name, packing, start = options.source, options.packing, time.monotonic()
    print(f"{name}: listing samples", flush=True)
    plan = make_plan(name, source, own, packing)
    if plan.num_unlabelled:
        print(f"{name}: {plan.num_unlabelled} images left out: nothing of any class is in them", flush=True)
    if plan.incomplete:
        print(f"{name}: {plan.incomplete} (--complete makes this an error)", flush=True)
    if already_packed(plan, source, packing):
        print(f"{packing.out}: already packed with these arguments, nothing to do (--force packs again)")
        return 0
    if packing.part is not None:
        shards = plan.part(packing)
        with progress("packing", sum(len(shard.items) for shard in shards)) as told:
            write_part(plan, source, packing, told, say=_say)
        print(
            f"{packing.out}: part {packing.part}, {len(shards)} of {len(plan.shards)} shards, "
            f"{time.monotonic() - start:.1f} s; behind all parts the same command without --part writes the index"
        )
        return 0
    with progress("packing", plan.num_samples) as told:
        index = pack(plan, source, packing, told, say=_say)
    counts = ", ".join(f"{split} {value.num_samples}" for split, value in index.splits.items())
    num_bytes = sum(shard.bytes for shard in index.shards)
    print(
        f"{packing.out}: {plan.num_samples} samples ({counts}) of {len(index.classes)} classes in "
        f"{len(index.shards)} shards, {size_text(num_bytes)}, {time.monotonic() - start:.1f} s"
    )
    return 0


def _say(line: str) -> None:
    print(line, flush=True)
