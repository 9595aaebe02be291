"""Localize in images: wsol predict RUN|MODEL PATH... --out O: classes, boxes, masks, heat maps.

RUN is a run folder, of which the best checkpoint known is taken, else the newest; MODEL a folder of wsol export. PATH
is an image, a folder, a glob, or a folder of shards. O/predictions.parquet has a row for each image, class and box;
--formats adds files for other tools. Boxes are pixels of the image as a person sees it, after its EXIF orientation.
Killed, the same command goes on; through, it does nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsol_dist.errors import UserError
from wsol_dist.options import MODEL, add_model_options, check_least, check_top_k, names_of

if TYPE_CHECKING:
    from wsol_dist.prediction.inputs import Inputs
    from wsol_dist.prediction.opening import OpenedModel
    from wsol_dist.prediction.predict import Asked, Work

FORMATS = "coco"


def main(argv: list[str]) -> int:
    """Entry of `wsol predict`."""
    parser = _parser()
    if not argv or argv[0] in ("-h", "--help"):
        parser.print_help()
        return 0 if argv else 2
    own = parser.parse_intermixed_args(argv)  # flags may stand among the paths
    check_least(own, {"procs": 1, "threads": 1, "batch_size": 1, "top_k": 1})
    work = plan(own)
    from wsol_dist.prediction.predict import run
    from wsol_dist.processes.spawn import spawn

    print(f"{work.opened.chosen}; {work.opened.method_name}, {len(work.opened.classes)} classes")
    print(f"boxes and masks, made as topk_loc scores them: {work.opened.threshold_why}", flush=True)
    spawn(run, own.procs, work)
    return 0


def plan(own: argparse.Namespace) -> Work:
    """Check what was given.

    Raises:
        UserError: what does not exist or does not fit, and how to mend it.
    """
    from wsol_dist.prediction.inputs import check_ids, find_inputs
    from wsol_dist.prediction.opening import open_model
    from wsol_dist.prediction.predict import Asked, Work
    from wsol_dist.prediction.writers import check_formats, check_stems

    if own.out is None or not own.paths:
        raise UserError("PATH and --out are needed: wsol predict RUN PATH... --out FOLDER")
    formats = names_of(own.formats)
    check_formats(formats)
    opened = open_model(own.model, step=own.step, threshold=own.threshold, trust_code=own.trust_code)
    asked = Asked(
        classes=own.classes,
        top_k=own.top_k,
        min_score=own.min_score,
        boxes=own.boxes,
        min_area=own.min_area,
    )
    _check_asked(asked, num_classes=len(opened.classes))
    inputs = find_inputs(own.paths, classes=opened.classes, split=own.split, leave_out=own.out)
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
        out=own.out,
        asked=asked,
        formats=formats,
        settings=_settings(opened, asked, inputs),
        batch_size=own.batch_size,
        threads=own.threads,
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


def _check_asked(asked: Asked, *, num_classes: int) -> None:
    for name in ("min_score", "min_area"):
        if not 0 <= getattr(asked, name) <= 1:
            raise UserError(f"--{name.replace('_', '-')}: given {getattr(asked, name):g}, allowed is 0 to 1")
    check_top_k(asked.top_k, num_classes=num_classes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsol predict",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="RUN|MODEL", help=MODEL)
    parser.add_argument(
        "paths", metavar="PATH", nargs="*", help="images, folders, globs, or folders of shards"
    )
    parser.add_argument("--out", type=Path, help="folder that is written")
    parser.add_argument(
        "--formats",
        default=FORMATS,
        help="joined by commas: coco, yolo, voc, masks, heatmaps, overlays, parquet (always there); default coco",
    )
    parser.add_argument(
        "--classes",
        choices=("predicted", "given"),
        default="predicted",
        help="predicted: localize the most probable classes; given: the class that an image's folder or shard says it "
        "has, the most probable ones where that is no class of the model",
    )
    parser.add_argument("--top-k", type=int, default=1, help="classes to localize in an image; default 1")
    parser.add_argument(
        "--min-score",
        type=float,
        default=0.0,
        help="leave out predicted classes that are less probable; default 0",
    )
    parser.add_argument(
        "--boxes",
        choices=("largest", "every"),
        default="largest",
        help="largest: one box a class, as the scores count it; every: one for each region above the threshold",
    )
    parser.add_argument(
        "--min-area", type=float, default=0.01, help="--boxes every: least share of the image; default 0.01"
    )
    add_model_options(parser)
    parser.add_argument("--split", help="of shards, one or several, joined by commas; default all")
    parser.add_argument("--procs", type=int, default=1, help="processes on this machine; default 1")
    parser.add_argument(
        "--threads", type=int, default=2, help="that read and decode, in each process; default 2"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="images per forward pass; default 32")
    return parser
