"""Search refine.alpha and cluster settings on the held-out split: wsol search RUN|RECIPE --index SHARDS --out FOLDER.

Random trials (30 by default). The maps are made once, a trial clusters the images anew, or takes the label maps of
--labels and searches alpha only; each is scored at its own best threshold of the held-out split (val.split), which
is the only one that is read. Trials are kept in FOLDER: started again the search goes on. It ends with a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.options import Switch, names_of, part_of
from wsol_dist.regions.cluster import BACKENDS
from wsol_dist.runs.opening import TargetOptions, print_chosen

if TYPE_CHECKING:
    from wsol_dist.columns.search import Search


@dataclass(frozen=True, kw_only=True)
class Options(TargetOptions):
    """The flags of `wsol search`."""

    index: str
    """Folder of the shards."""
    out: Path
    """Folder that gets the trials."""
    trials: PositiveInt = 30
    """How many."""
    seed: NonNegativeInt = 0
    """Of the random trials."""
    backends: str = "faiss,slic"
    """Of wsol cluster, joined by commas."""
    labels: Path | None = None
    """Label maps of wsol cluster: only alpha is searched."""
    images: PositiveInt | None = None
    """Only so many of the split's images, the first by a hash; by default all."""
    size_px: Annotated[int, Field(ge=2)] = 224
    """Side of the label maps."""
    workers: NonNegativeInt = 1
    """Reading processes."""
    part: str | None = None
    """I/N: every N-th trial from the I-th on, 1/N to N/N, for a job array."""
    dry_run: Switch = False
    """Check what was given and write nothing."""


def run(options: Options) -> int:
    """Search, or say what would be searched."""
    search = plan(options)
    if options.dry_run:
        print(
            f"would run {search.num_trials} trials on split {search.work.splits[0]!r} of {search.work.index}"
        )
        return 0
    from wsol_dist.columns.search import run

    run(search)
    return 0


def plan(options: Options) -> Search:
    """Check what was given.

    Raises:
        UserError: what does not exist or does not fit, and how to mend it.
    """
    opened = options.open()
    backends = names_of(options.backends)
    for name in backends:
        if name not in BACKENDS:
            raise UserError(f"--backends: unknown backend {name!r}; {did_you_mean(name, sorted(BACKENDS))}")
    split = opened.config.val.split
    # They import torch: after the flags are checked.
    from wsol_dist.columns.search import Search
    from wsol_dist.data.shards.index import Index
    from wsol_dist.evaluator.refined import open_labels
    from wsol_dist.evaluator.work import plan_work

    print_chosen(opened)
    work = plan_work(opened, index=options.index, splits=(split,))
    if work.config.refine.labels is not None:
        raise UserError(
            "refine.labels: the search makes its own label maps; give --labels to search alpha only"
        )
    if options.labels:
        open_labels(options.labels, Index.load(options.index), (split,))
    return Search(
        work=work,
        out=options.out,
        num_trials=options.trials,
        seed=options.seed,
        backends=backends,
        labels=options.labels,
        num_images=options.images,
        size_px=options.size_px,
        workers=options.workers,
        part=part_of(options.part),
    )
