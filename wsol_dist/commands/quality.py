"""How good predicted labels are: wsol quality O --boxes FILE | --index SHARDS: which to trust, what a review buys.

O is an output folder of `wsol predict`, of which some images have true boxes: in a CSV file (image,x0,y0,x1,y1), a COCO
JSON file, or shards. Prints precision and recall by score, how many boxes to keep, and how many reviews, in the order
of `wsol review`, lead to which precision; writes O/quality.json and O/quality.html.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from wsol_dist.errors import UserError
from wsol_dist.files import write_atomically

RECORD, PAGE = "quality.json", "quality.html"


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of `wsol quality`."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="O")]
    """Output folder of wsol predict."""
    boxes: Path | None = None
    """True boxes: a CSV file (image,x0,y0,x1,y1), or COCO JSON."""
    index: str | None = None
    """Shards with true boxes; by default those that were predicted."""
    split: str | None = None
    """Of the shards, one or several, joined by commas; by default all."""
    iou: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Least IoU of a right box."""
    out: Path | None = None
    """Folder for quality.json and quality.html; by default O."""


def run(options: Options) -> int:
    """Measure, print, and write the page."""
    if options.boxes is not None and options.index is not None:
        raise UserError("--boxes and --index: both name true boxes; give one of them")
    if options.boxes is not None and options.split is not None:
        raise UserError("--split: chooses splits of shards; it goes with --index, not with --boxes")
    from wsol_dist.quality.page import quality_page
    from wsol_dist.quality.quality import measure
    from wsol_dist.quality.text import print_quality

    found = measure(
        options.folder,
        boxes=options.boxes,
        index=options.index,
        split=options.split,
        least_iou=options.iou,
    )
    out = options.out or options.folder
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / PAGE, quality_page(found).encode())
        text = json.dumps(found.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(out / RECORD, text.encode() + b"\n")
    except OSError as error:
        raise UserError(f"--out: {out} cannot be written: {error.strerror}; give another folder") from error
    print_quality(found)
    print(f"Page  {(out / PAGE).resolve()}")
    return 0
