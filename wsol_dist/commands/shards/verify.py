"""Check that a folder of shards holds what its index says; exit code 1 if it has problems: wsol shards verify FOLDER.

Of an address every shard is fetched into the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import NonNegativeInt

from wsol_dist.data.inspection.options import ShardsOptions
from wsol_dist.log.progress import progress


@dataclass(frozen=True, kw_only=True)
class Options(ShardsOptions):
    """The flags of `wsol shards verify`."""

    deep: bool = False
    """Also decode every image and mask."""
    workers: NonNegativeInt = 0
    """Processes; 0 for one a core."""


def run(options: Options) -> int:
    """Print every problem."""
    from wsol_dist.data.inspection.verify import verify
    from wsol_dist.data.shards.index import Index

    total = sum(split.num_samples for split in Index.load(options.folder, check_files=False).splits.values())
    with progress("verifying", total) as told:
        problems = verify(options.folder, deep=options.deep, workers=options.workers, progress=told)
    for problem in problems:
        print(problem)
    how = "headers, checksums and rows" + (", every image and mask decoded" if options.deep else "")
    print(f"{options.folder}: {total} samples, {len(problems)} problems ({how})")
    return 1 if problems else 0
