"""How good predicted labels are: wsol quality O --boxes FILE | --index SHARDS: which to trust, what a review buys.

O is an output folder of `wsol predict`, of which some images have true boxes: in a CSV file (image,x0,y0,x1,y1), a COCO
JSON file, or shards. Prints precision and recall by score, how many boxes to keep, and how many reviews, in the order
of `wsol review`, lead to which precision; writes O/quality.json and O/quality.html.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from wsol_dist.errors import UserError
from wsol_dist.files import write_atomically

RECORD, PAGE = "quality.json", "quality.html"


def main(argv: list[str]) -> int:
    """Entry of `wsol quality`."""
    own = _parser().parse_args(argv)
    if not 0 < own.iou < 1:
        raise UserError(f"--iou: given {own.iou:g}, allowed is above 0 and below 1")
    if own.split is not None and own.boxes is not None:
        raise UserError("--split: chooses splits of shards; it goes with --index, not with --boxes")
    from wsol_dist.quality.page import quality_page
    from wsol_dist.quality.quality import measure
    from wsol_dist.quality.text import print_quality

    found = measure(own.folder, boxes=own.boxes, index=own.index, split=own.split, least_iou=own.iou)
    out: Path = own.out or own.folder
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsol quality",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="O", help="output folder of wsol predict")
    truth = parser.add_mutually_exclusive_group()
    truth.add_argument(
        "--boxes", type=Path, metavar="FILE", help="true boxes: CSV (image,x0,y0,x1,y1), or COCO JSON"
    )
    truth.add_argument(
        "--index", metavar="SHARDS", help="shards with true boxes; default: those that were predicted"
    )
    parser.add_argument("--split", help="of the shards, one or several, joined by commas; default all")
    parser.add_argument("--iou", type=float, default=0.5, help="least IoU of a right box; default 0.5")
    parser.add_argument("--out", type=Path, help=f"folder for {RECORD} and {PAGE}; default O")
    return parser
