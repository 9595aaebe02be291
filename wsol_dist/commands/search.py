"""Search refine.alpha and cluster settings on the held-out split: wsol search RUN|RECIPE --index SHARDS --out FOLDER.

Random trials (30 by default). The maps are made once, a trial clusters the images anew, or takes the label maps of
--labels and searches alpha only; each is scored at its own best threshold of the held-out split (val.split), which
is the only one that is read. Trials are kept in FOLDER: started again the search goes on. It ends with a table.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.options import (
    TARGET,
    add_weights_options,
    check_least,
    names_of,
    part_of,
    split_arguments,
    weights_given,
)
from wsol_dist.recipe import recipe_names
from wsol_dist.regions.cluster import BACKENDS
from wsol_dist.runs.opening import open_run, print_chosen

if TYPE_CHECKING:
    from wsol_dist.columns.search import Search


def main(argv: list[str]) -> int:
    """Entry of `wsol search` and `launch/search.py`."""
    parser = _parser()
    if not argv or argv[0] in ("-h", "--help"):
        parser.print_help()
        print("\nrecipes: " + ", ".join(recipe_names()))
        return 0 if argv else 2
    own, rest = split_arguments(parser, argv)
    search = plan(own, rest)
    if own.dry_run:
        print(
            f"would run {search.num_trials} trials on split {search.work.splits[0]!r} of {search.work.index}"
        )
        return 0
    from wsol_dist.columns.search import run

    run(search)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsol search", description=__doc__, allow_abbrev=False, add_help=False
    )
    add = parser.add_argument
    add("target", metavar="RUN|RECIPE", help=TARGET)
    add_weights_options(parser)
    add("--index", required=True, help="folder of the shards")
    add("--out", type=Path, required=True, help="folder that gets the trials")
    add("--trials", type=int, default=30, help="default 30")
    add("--seed", type=int, default=0, help="of the random trials; default 0")
    add("--backends", default="faiss,slic", help=f"of {', '.join(sorted(BACKENDS))}; default faiss,slic")
    add("--labels", type=Path, help="label maps of wsol cluster: only alpha is searched")
    add("--images", type=int, help="only so many of the split's images, the first by a hash; default all")
    add("--size-px", type=int, default=224, help="side of the label maps; default 224")
    add("--workers", type=int, default=1, help="reading processes; default 1")
    add("--part", help="I/N: every N-th trial from the I-th on, 1/N to N/N, for a job array")
    add("--dry-run", action="store_true", help="check what was given and write nothing")
    return parser


def plan(own: argparse.Namespace, rest: list[str]) -> Search:
    """Check what was given.

    Raises:
        UserError: what does not exist or does not fit, and how to mend it.
    """
    check_least(own, {"trials": 1, "seed": 0, "workers": 0, "images": 1, "size_px": 2})
    backends = names_of(own.backends)
    for name in backends:
        if name not in BACKENDS:
            raise UserError(f"--backends: unknown backend {name!r}; {did_you_mean(name, sorted(BACKENDS))}")
    opened = open_run(own.target, **weights_given(own), overrides=rest)
    split = opened.config.val.split
    # They import torch: after the flags are checked.
    from wsol_dist.columns.search import Search
    from wsol_dist.data.shards.index import Index
    from wsol_dist.evaluator.refined import open_labels
    from wsol_dist.evaluator.work import plan_work

    print_chosen(opened)
    work = plan_work(opened, index=own.index, splits=(split,))
    if work.config.refine.labels is not None:
        raise UserError(
            "refine.labels: the search makes its own label maps; give --labels to search alpha only"
        )
    if own.labels:
        open_labels(own.labels, Index.load(own.index), (split,))
    return Search(
        work=work,
        out=own.out,
        num_trials=own.trials,
        seed=own.seed,
        backends=backends,
        labels=own.labels,
        num_images=own.images,
        size_px=own.size_px,
        workers=own.workers,
        part=part_of(own.part),
    )
