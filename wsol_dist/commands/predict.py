"""Localize in images: wsol predict RUN|MODEL PATH... --out O: classes, boxes, masks, heat maps.

RUN is a run folder, of which the best checkpoint known is taken, else the newest; MODEL a folder of wsol export. PATH
is an image, a folder, a glob, or a folder of shards. O/predictions.parquet has a row for each image, class and box;
--formats adds files for other tools. Boxes are pixels of the image as a person sees it, after its EXIF orientation.
Killed, the same command goes on; through, it does nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from pydantic import PositiveInt

from wsol_dist.errors import UserError
from wsol_dist.options import FLAT, check_top_k, names_of
from wsol_dist.prediction.asked import Asked, ModelOptions

if TYPE_CHECKING:
    from wsol_dist.prediction.inputs import Inputs
    from wsol_dist.prediction.opening import OpenedModel
    from wsol_dist.prediction.predict import Work


@dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """The flags of `wsol predict`."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|MODEL")]
    """Run folder, one checkpoint of it, or folder of wsol export."""
    paths: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH ...")]
    """Images, folders, globs, or folders of shards."""
    out: Path
    """Folder that is written."""
    formats: str = "coco"
    """Joined by commas: coco, yolo, voc, masks, heatmaps, overlays, parquet (always there)."""
    asked: Annotated[Asked, FLAT] = field(default_factory=Asked)
    split: str | None = None
    """Of shards, one or several, joined by commas; by default all."""
    procs: PositiveInt = 1
    """Processes on this machine."""
    threads: PositiveInt = 2
    """That read and decode, in each process."""
    batch_size: PositiveInt = 32
    """Images per forward pass."""


def run(options: Options) -> int:
    """Predict, and say by which weights and threshold."""
    work = plan(options)
    from wsol_dist.prediction.predict import run
    from wsol_dist.processes.spawn import spawn

    print(f"{work.opened.chosen}; {work.opened.method_name}, {len(work.opened.classes)} classes")
    print(f"boxes and masks, made as topk_loc scores them: {work.opened.threshold_why}", flush=True)
    spawn(run, options.procs, work)
    return 0


def plan(options: Options) -> Work:
    """Check what was given.

    Raises:
        UserError: what does not exist or does not fit, and how to mend it.
    """
    from wsol_dist.prediction.inputs import check_ids, find_inputs
    from wsol_dist.prediction.opening import open_model
    from wsol_dist.prediction.predict import Work
    from wsol_dist.prediction.writers import check_formats, check_stems

    formats = names_of(options.formats)
    check_formats(formats)
    opened, asked = open_model(options.source, **options.model), options.asked
    check_top_k(asked.top_k, num_classes=len(opened.classes))
    inputs = find_inputs(options.paths, classes=opened.classes, split=options.split, leave_out=options.out)
    check_ids(inputs.items)
    if set(formats) - {"coco", "parquet"}:
        check_stems(item.id for item in inputs.items)
    if asked.classes == "given" and not any(item.given is not None for item in inputs.items):
        raise UserError(
            "--classes given: no image lies in a folder that is called as a class of the model "
            f"({', '.join(opened.classes[:5])}{', ...' if len(opened.classes) > 5 else ''})"
        )
    return Work(
        opened=opened,
        inputs=inputs,
        out=options.out,
        asked=asked,
        formats=formats,
        settings=_settings(opened, asked, inputs),
        batch_size=options.batch_size,
        threads=options.threads,
    )


def _settings(opened: OpenedModel, asked: Asked, inputs: Inputs) -> dict[str, Any]:
    """What predictions depend on: those of other settings are not gone on with."""
    from wsol_dist.data.shards.index import Index

    return {
        "weights": opened.weights_sha256,
        "threshold": opened.threshold.value,
        **dataclasses.asdict(asked),
        "root": None if inputs.root is None else str(inputs.root),
        "shards": [Index.load(folder, check_files=False).sha256 for folder, _ in inputs.shards],
    }
