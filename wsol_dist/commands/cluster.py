"""Cluster the pixels of images: wsol cluster --index SHARDS --out LABELS [--backend dic|faiss|slic] [knobs].

Label maps become a derived column, tars beside the shards' own, which `refine.labels` of wsol evaluate and wsol score
names. Killed and started again it goes on; where all is there it does nothing. Labels follow from the seed, whatever
the number of processes. With --show ID it draws image, superpixels, clusters and the map before and after instead.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

from wsol_dist.columns.options import ColumnOptions
from wsol_dist.data.packing.parallel import num_cores
from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.options import Overrides, Switch, Threshold, parse_knobs, part_of
from wsol_dist.regions.cluster import BACKENDS, backend_class, backend_config
from wsol_dist.regions.config import ClusterConfig
from wsol_dist.runs.opening import WeightsOptions, open_run, print_chosen

if TYPE_CHECKING:
    from wsol_dist.columns.clusters import Labelling
    from wsol_dist.evaluator.work import Work


@dataclass(frozen=True, kw_only=True)
class Options(WeightsOptions, ColumnOptions):
    """The flags of `wsol cluster`."""

    out: Path | None = None
    """Folder of the column, or of --show's pictures."""
    procs: PositiveInt | None = None
    """Processes on this machine; by default one for each GPU, or else for each core."""
    backend: str = "faiss"
    """One of dic, faiss and slic; its knobs are flags too."""
    part: str | None = None
    """I/N: every N-th shard from the I-th on, 1/N to N/N, for a job array."""
    dry_run: Switch = False
    """Check what was given, say what would be done, and write nothing."""
    show: Annotated[tuple[str, ...] | None, Field(min_length=1)] = None
    """Ids of images: draw these instead of making label maps."""
    embeddings: str | None = None
    """faiss: cluster by the patch embeddings of this run or recipe too; --embedding is their weight."""
    run: str | None = None
    """--show: run folder or recipe whose maps are shown."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    """--show: refine.alpha."""
    threshold: Threshold = None
    """--show: of the boxes; by default the recipe's evaluate.threshold."""
    labels: Path | None = None
    """--show: label maps that are there, instead of clustering anew."""
    overrides: Overrides = ()

    @classmethod
    def epilog(cls) -> str:
        """What the help ends with."""
        return f"The knobs of --backend ({', '.join(sorted(BACKENDS))}) are flags too:"

    def knobs(self) -> ClusterConfig:
        """The backend's configuration from its flags.

        Raises:
            UserError: an unknown backend, or a value that cannot be.
        """
        config_class = backend_config(self.backend)
        try:
            return parse_knobs(config_class, self.overrides, prog=f"wsol cluster --backend {self.backend}")
        except UserError as error:
            lines = (f"--backend {self.backend}: {line}" for line in str(error).splitlines())
            raise UserError("\n".join(lines)) from error


def run(options: Options) -> int:
    """Label the images, or draw what labelling them gives."""
    config = options.knobs()
    if any(options.weights.values()) and not (options.embeddings or options.run):
        raise UserError(
            "--step, --init and --trust-code are of the weights of --embeddings or --run; give one of these"
        )
    if options.show is not None:
        return _show(options, config, options.show)
    task = plan(options, config)
    if options.dry_run:
        return _say(task)
    from wsol_dist.columns.clusters import label_shards
    from wsol_dist.columns.fill import is_complete
    from wsol_dist.processes.spawn import spawn

    index = Index.load(task.index)
    if is_complete(index, task.column):
        return 0
    num_shards = sum(one.split in task.about.splits for one in index.shards)
    spawn(label_shards, options.procs or min(_default_procs(), num_shards), task)
    return 0


def plan(options: Options, config: ClusterConfig) -> Labelling:
    """Check what was given.

    Raises:
        UserError: what does not exist or does not fit, and how to mend it.
    """
    index, out, splits = options.source(usage="wsol cluster --index SHARDS --out LABELS")
    embeddings = localizer(options, config, index, splits)
    from wsol_dist.columns.clusters import Labelling, label_column

    command = shlex.join(["wsol", *sys.argv[1:]])
    return Labelling(
        index=index.place,
        out=out,
        about=label_column(
            index, splits, backend=options.backend, config=config, embeddings=embeddings, command=command
        ),
        backend=options.backend,
        config=config,
        workers=options.workers,
        part=part_of(options.part),
        embeddings=embeddings,
    )


def localizer(options: Options, config: ClusterConfig, index: Index, splits: Sequence[str]) -> Work | None:
    """The run or recipe behind `--embeddings`; None without one.

    Raises:
        UserError: the backend takes no embeddings, or there is no such run, or nothing is left to cluster by.
    """
    if options.embeddings is None:
        if config.needs_embeddings:
            raise UserError(
                "--color and --position: both are 0, so embeddings alone are left; give --embeddings RUN"
            )
        return None
    if not backend_class(options.backend).takes_embeddings:
        raise UserError(f"--embeddings: --backend {options.backend} clusters without; give --backend faiss")
    from wsol_dist.methods.base import Method
    from wsol_dist.registry import METHODS, method_class

    work = _work(options, options.embeddings, index, splits)
    name = work.config.method_name
    if method_class(name).patch_embeddings is Method.patch_embeddings:
        able = [one for one in METHODS if method_class(one).patch_embeddings is not Method.patch_embeddings]
        raise UserError(f"--embeddings: method {name!r} gives no patch embeddings; {', '.join(able)} do")
    return work


def _work(options: Options, target: str, index: Index, splits: Sequence[str]) -> Work:
    """A localizer with the weights that --step and --init choose."""
    from wsol_dist.evaluator.work import plan_work

    opened = open_run(target, **options.weights)
    print_chosen(opened)
    return plan_work(opened, index=index.place, splits=splits)


def _default_procs() -> int:
    import torch

    return torch.cuda.device_count() or num_cores()


def _say(task: Labelling) -> int:
    index = Index.load(task.index)
    shards = [one for one in index.shards if one.split in task.about.splits]
    images = sum(one.num_samples for one in shards)
    print(f"would label {images} images in {len(shards)} shards by {task.backend}: {task.config}")
    return 0


def _show(options: Options, config: ClusterConfig, ids: Sequence[str]) -> int:
    """`--show`: pictures instead of label maps."""
    from wsol_dist.columns.show import Wanted, find, show

    if not options.index:
        raise UserError("--index is needed: wsol cluster --show ID --index SHARDS")
    index = Index.load(options.index)
    splits = sorted({find(index, one)[0] for one in ids})
    work = _work(options, options.run, index, splits) if options.run else None
    threshold = work.config.evaluate.threshold if work and options.threshold is None else options.threshold
    wanted = Wanted(
        index=index,
        ids=ids,
        out=options.out or Path("clusters"),
        backend=options.backend,
        config=config,
        labels=options.labels,
        embeddings=localizer(options, config, index, splits),
        work=work,
        alpha=options.alpha,
        threshold=threshold or 0.0,
    )
    for path in show(wanted):
        print(path)
    if work:
        print(f"boxes of topk_loc at threshold {threshold} (fixed); alpha {options.alpha}")
    return 0
