"""Write a page of classes, boxes, samples, duplicates and broken files: wsol shards report FOLDER."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import NonNegativeInt

from wsol_dist.data.inspection.options import ShardsOptions
from wsol_dist.log.progress import progress


@dataclass(frozen=True, kw_only=True)
class Options(ShardsOptions):
    """The flags of `wsol shards report`."""

    out: Path | None = None
    """File of the page; by default report.html in the folder."""
    samples: NonNegativeInt = 48
    """Images that are shown with their boxes and masks."""
    workers: NonNegativeInt = 0
    """Processes; 0 for one a core."""


def run(options: Options) -> int:
    """Write the page and say where it is."""
    from wsol_dist.data.shards.index import Index
    from wsol_dist.report.data_view import write_report

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
