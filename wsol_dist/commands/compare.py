"""Compare scored runs image by image: wsol compare A B, or groups of seeds: wsol compare A1 A2 A3 -- B1 B2.

Everything is compared to the first run or group: a table with bootstrap intervals, the images that changed most,
and a page. Groups are parted by --; without it each run stands alone, or with --seeds all runs are seeds of one
recipe, of which mean and spread are said.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from rich.console import Console

from wsol_dist.data.images.decode import DecodeError, decode_rgb
from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.metrics.bootstrap import NUM_RESAMPLES
from wsol_dist.options import check_least
from wsol_dist.report.compare_page import Changes, write_compare_page
from wsol_dist.report.compare_text import caption, print_changes, print_comparison
from wsol_dist.report.comparison import Group, Scored, flips, most_changed, read_groups, table
from wsol_dist.report.draw import draw_boxes
from wsol_dist.report.run_data import data_uri
from wsol_dist.runs.rows import read_some

if TYPE_CHECKING:
    from wsol_dist.data.stream.stream import ShardReader

MIN_RESAMPLES = 100
JPEG_QUALITY = 85


def main(argv: list[str]) -> int:
    """Entry of `wsol compare`."""
    own, folders = _parse(argv)
    groups = read_groups(folders, split=own.split)
    lines = table(groups, num_resamples=own.resamples, seed=own.seed)
    note = caption(groups, num_resamples=own.resamples, seed=own.seed)
    changes = [
        Changes(
            other=other, changes=most_changed(groups[0], other, own.changed), flips=flips(groups[0], other)
        )
        for other in groups[1:]
    ]
    pictures, picture_note = _pictures(groups[0], changes, own.index)
    out: Path = own.out or groups[0].runs[0].run.folder / "compare.html"
    try:
        write_compare_page(groups, lines, changes, pictures, out, note=note, picture_note=picture_note)
    except OSError as error:
        raise UserError(
            f"--out {str(out)!r}: cannot be written ({error.strerror}); choose another file"
        ) from error
    console = Console()
    print_comparison(groups, lines, note=note, console=console)
    for one in changes:
        print_changes(groups[0], one.other, one.changes, flips=one.flips, console=console)
    console.print(f"Page  {out.resolve()}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[list[Path]]]:
    """The flags, and the run folders in groups.

    Raises:
        UserError: fewer than two runs, an empty group, a number out of its range.
    """
    parser = argparse.ArgumentParser(
        prog="wsol compare",
        usage="wsol compare RUN RUN ... | RUN ... -- RUN ... | --seeds RUN RUN ... [flags]",
        description=__doc__,
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run folder; groups of seeds are parted by --")
    parser.add_argument(
        "--seeds", action="store_true", help="all runs are seeds of one recipe: mean and spread"
    )
    parser.add_argument("--split", default="test", help="split to compare on; default test")
    parser.add_argument(
        "--changed", type=int, default=12, help="images to list that changed most; default 12"
    )
    parser.add_argument(
        "--resamples", type=int, default=NUM_RESAMPLES, help=f"of the bootstrap; default {NUM_RESAMPLES}"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap; default 0")
    parser.add_argument("--index", help="folder of the shards, for the pictures; default that of the runs")
    parser.add_argument("--out", type=Path, help="file of the page; default <first RUN>/compare.html")
    parts: list[list[str]] = [[]]
    for word in argv:
        if word == "--":
            parts.append([])
        else:
            parts[-1].append(word)
    # argparse would take -- for its own; each group is read for itself, flags may stand in any.
    own = parser.parse_intermixed_args([word for part in parts for word in part])
    groups = [[str(run) for run in parser.parse_intermixed_args(part).runs] for part in parts]
    _check(own, groups)
    if len(groups) == 1 and not own.seeds:
        groups = [[run] for run in groups[0]]
    return own, [[Path(run) for run in group] for group in groups]


def _check(own: argparse.Namespace, groups: list[list[str]]) -> None:
    if sum(map(len, groups)) < 2:
        raise UserError("at least two runs are needed: wsol compare RUN RUN; groups of seeds: A1 A2 -- B1 B2")
    if not all(groups):
        raise UserError("-- with no run before or behind it; groups of seeds: wsol compare A1 A2 -- B1 B2")
    if own.seeds and len(groups) > 1:
        raise UserError("--seeds: means one group, -- parts several; give one of them")
    check_least(own, {"changed": 0, "resamples": MIN_RESAMPLES, "seed": 0})
    if own.out is not None and own.out.is_dir():
        raise UserError(
            f"--out {str(own.out)!r}: is a folder; give a file such as {own.out / 'compare.html'}"
        )


def _pictures(
    base: Group, changes: Sequence[Changes], index_dir: str | None
) -> tuple[dict[tuple[Path, str], str], str]:
    """The changed images with each run's box, by run folder and id, and what to say of them on the page."""
    first = base.runs[0]
    data = first.run.config.get("data")
    folder = index_dir or str((data.get("index") if isinstance(data, dict) else None) or "")
    scored = first.record.raw["index"]["sha256"]
    if index_dir is None and not Path(folder, "index.json").is_file():
        return {}, f"no pictures: the shards are not in {folder or 'the recipe'}; give them with --index"
    index = Index.load(folder)
    if index.sha256 != scored:
        if index_dir is not None:
            raise UserError(
                f"--index {folder}: other shards than those that were scored (index sha256 {index.sha256[:12]}, "
                f"scored {scored[:12]}); give the scored ones, or leave --index out"
            )
        return (
            {},
            f"no pictures: {folder} holds other shards than those that were scored; give them with --index",
        )
    found: dict[tuple[Path, str], str] = {}
    for one in changes:
        found |= _drawn(index, [*base.runs, *one.other.runs], one)
    return found, "each run's box at its own threshold"


def _drawn(index: Index, runs: list[Scored], changes: Changes) -> dict[tuple[Path, str], str]:
    from wsol_dist.data.stream.stream import ShardReader

    reader = ShardReader(index, runs[0].record.split)
    positions = [change.position for change in changes.changes]
    images = [_image(reader, at) for at in positions]
    found = {}
    for run in runs:
        rows = read_some(run.record.path.with_suffix(".parquet"), positions)
        for row, image_HWC in zip(rows, images, strict=True):
            if image_HWC is None:
                continue
            height, width = image_HWC.shape[:2]
            scale = np.array([width, height] * 2) / float(run.record.raw["size_px"])
            picture = draw_boxes(
                image_HWC,
                gt_boxes=np.asarray(row["gt_boxes"], np.float64).reshape(-1, 4) * scale,
                predicted_box=None if row["box"] is None else row["box"] * scale,
                iou=row["iou"],
            )
            data = simplejpeg.encode_jpeg(picture, quality=JPEG_QUALITY, colorsubsampling="444")
            found[run.run.folder, row["id"]] = data_uri(data) or ""
    return found


def _image(reader: ShardReader, position: int) -> np.ndarray | None:
    """An image of the split, (H, W, 3) uint8; None where it does not decode."""
    try:
        return decode_rgb(reader.image(position))
    except DecodeError:
        return None
