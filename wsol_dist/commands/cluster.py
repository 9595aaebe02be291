"""Cluster the pixels of images: wsol cluster --index SHARDS --out LABELS [--backend dic|faiss|slic] [knobs].

Label maps become a derived column, tars beside the shards' own, which `refine.labels` of wsol evaluate and wsol score
names. Killed and started again it goes on; where all is there it does nothing. Labels follow from the seed, whatever
the number of processes. With --show ID it draws image, superpixels, clusters and the map before and after instead.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wsol_dist.columns.options import add_column_options, open_source
from wsol_dist.data.packing.parallel import num_cores
from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.options import add_weights_options, parse_knobs, part_of, split_arguments, weights_given
from wsol_dist.regions.cluster import BACKENDS, ClusterConfig, backend_class
from wsol_dist.runs.opening import open_run, print_chosen

if TYPE_CHECKING:
    from wsol_dist.columns.clusters import Labelling
    from wsol_dist.evaluator.work import Work


def main(argv: list[str]) -> int:
    """Entry of `wsol cluster`."""
    parser = _parser()
    words = [word for word in argv if word not in ("-h", "--help")]
    own, rest = split_arguments(parser, words)
    if not words or words != argv:
        parser.print_help()
        print(f"\nThe knobs of --backend {own.backend} are flags too:\n")
        parse_knobs(backend_class(own.backend).Config, ["--help"], prog="wsol cluster ...")
        return 0
    if any(weights_given(own).values()) and not (own.embeddings or own.run):
        raise UserError(
            "--step, --init and --trust-code are of the weights of --embeddings or --run; give one of these"
        )
    if own.show:
        return _show(own, rest)
    task = plan(own, rest)
    if own.dry_run:
        return _say(task)
    from wsol_dist.columns.clusters import label_shards
    from wsol_dist.columns.fill import is_complete
    from wsol_dist.processes.spawn import spawn

    index = Index.load(task.index)
    if is_complete(index, task.column):
        return 0
    num_shards = sum(one.split in task.about.splits for one in index.shards)
    spawn(label_shards, own.procs or min(_default_procs(), num_shards), task)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsol cluster", description=__doc__, allow_abbrev=False, add_help=False
    )
    add = parser.add_argument
    add_column_options(
        parser, what="label maps", procs=None, procs_help="one for each GPU, or else each core"
    )
    add("--backend", default="faiss", help=f"{', '.join(sorted(BACKENDS))}; default faiss")
    add("--part", help="I/N: every N-th shard from the I-th on, 1/N to N/N, for a job array")
    add(
        "--dry-run",
        action="store_true",
        help="check what was given, say what would be done, and write nothing",
    )
    add("--show", nargs="+", metavar="ID", help="draw these images instead of making label maps")
    add(
        "--embeddings",
        metavar="RUN|RECIPE",
        help="faiss: cluster by this localizer's patch embeddings too (--embedding is their weight)",
    )
    add_weights_options(parser)
    add("--run", help="--show: run folder or recipe whose maps are shown")
    add("--alpha", type=float, default=0.5, help="--show: refine.alpha; default 0.5")
    add(
        "--threshold",
        type=float,
        help="--show: of the boxes, in [0, 1); default the recipe's evaluate.threshold",
    )
    add("--labels", type=Path, help="--show: label maps that are there, instead of clustering anew")
    return parser


def plan(own: argparse.Namespace, rest: list[str]) -> Labelling:
    """Check what was given.

    Raises:
        UserError: what does not exist or does not fit, and how to mend it.
    """
    index, splits = open_source(own, usage="wsol cluster --index SHARDS --out LABELS")
    config = knobs(own.backend, rest)
    embeddings = localizer(own, config, splits)
    from wsol_dist.columns.clusters import Labelling, label_column

    command = shlex.join(["wsol", *sys.argv[1:]])
    return Labelling(
        index=own.index,
        out=own.out,
        about=label_column(
            index, splits, backend=own.backend, config=config, embeddings=embeddings, command=command
        ),
        backend=own.backend,
        config=config,
        workers=own.workers,
        part=part_of(own.part),
        embeddings=embeddings,
    )


def localizer(own: argparse.Namespace, config: ClusterConfig, splits: Sequence[str]) -> Work | None:
    """The run or recipe behind `--embeddings`; None without one.

    Raises:
        UserError: the backend takes no embeddings, or there is no such run, or nothing is left to cluster by.
    """
    if own.embeddings is None:
        if config.needs_embeddings:
            raise UserError(
                "--color and --position: both are 0, so embeddings alone are left; give --embeddings RUN"
            )
        return None
    if not backend_class(own.backend).takes_embeddings:
        raise UserError(f"--embeddings: --backend {own.backend} clusters without; give --backend faiss")
    from wsol_dist.methods.base import Method
    from wsol_dist.registry import METHODS, method_class

    work = _work(own, own.embeddings, splits)
    name = work.config.method_name
    if method_class(name).patch_embeddings is Method.patch_embeddings:
        able = [one for one in METHODS if method_class(one).patch_embeddings is not Method.patch_embeddings]
        raise UserError(f"--embeddings: method {name!r} gives no patch embeddings; {', '.join(able)} do")
    return work


def _work(own: argparse.Namespace, target: str, splits: Sequence[str]) -> Work:
    """A localizer with the weights that --step and --init choose."""
    from wsol_dist.evaluator.work import plan_work

    opened = open_run(target, **weights_given(own))
    print_chosen(opened)
    return plan_work(opened, index=own.index, splits=splits)


def knobs(backend: str, rest: list[str]) -> ClusterConfig:
    """The backend's configuration from its flags.

    Raises:
        UserError: an unknown backend, or a value that cannot be.
    """
    config_class = backend_class(backend).Config
    try:
        return parse_knobs(config_class, rest, prog="wsol cluster")
    except UserError as error:
        raise UserError(f"--backend {backend}: {error}") from error


def _default_procs() -> int:
    import torch

    return torch.cuda.device_count() or num_cores()


def _say(task: Labelling) -> int:
    index = Index.load(task.index)
    shards = [one for one in index.shards if one.split in task.about.splits]
    images = sum(one.num_samples for one in shards)
    print(f"would label {images} images in {len(shards)} shards by {task.backend}: {task.config}")
    return 0


def _show(own: argparse.Namespace, rest: list[str]) -> int:
    """`--show`: pictures instead of label maps."""
    from wsol_dist.columns.show import Wanted, find, show

    if not own.index:
        raise UserError("--index is needed: wsol cluster --show ID --index SHARDS")
    if not 0 <= own.alpha <= 1:
        raise UserError(f"--alpha: given {own.alpha}, allowed is 0 to 1")
    if own.threshold is not None and not 0 <= own.threshold < 1:
        raise UserError(f"--threshold: given {own.threshold}, a number must be in [0, 1)")
    config = knobs(own.backend, rest)
    index = Index.load(own.index)
    splits = sorted({find(index, one)[0] for one in own.show})
    work = _work(own, own.run, splits) if own.run else None
    threshold = work.config.evaluate.threshold if work and own.threshold is None else own.threshold
    wanted = Wanted(
        index=index,
        ids=own.show,
        out=own.out or Path("clusters"),
        backend=own.backend,
        config=config,
        labels=own.labels,
        embeddings=localizer(own, config, splits),
        work=work,
        alpha=own.alpha,
        threshold=threshold or 0.0,
    )
    for path in show(wanted):
        print(path)
    if work:
        print(f"boxes of topk_loc at threshold {threshold} (fixed); alpha {own.alpha}")
    return 0
