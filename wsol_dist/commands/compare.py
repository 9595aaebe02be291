"""Compare scored runs image by image: wsol compare A B, or groups of seeds: wsol compare A1 A2 A3 -- B1 B2.

Everything is compared to the first run or group: a table with bootstrap intervals, the images that changed most,
and a page. Groups are parted by --; without it each run stands alone, or with --seeds all runs are seeds of one
recipe, of which mean and spread are said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import simplejpeg
import tyro
from pydantic import Field, NonNegativeInt
from rich.console import Console

from wsol_dist.data.images.decode import DecodeError, decode_rgb
from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.metrics.bootstrap import NUM_RESAMPLES
from wsol_dist.options import Switch
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


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of `wsol compare`."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN RUN ... [-- RUN ...]")]
    """Run folders; groups of seeds are parted by --."""
    seeds: Switch = False
    """All runs are seeds of one recipe: mean and spread."""
    split: str = "test"
    """Split to compare on."""
    changed: NonNegativeInt = 12
    """Images to list that changed most."""
    resamples: Annotated[int, Field(ge=MIN_RESAMPLES)] = NUM_RESAMPLES
    """Of the bootstrap."""
    seed: NonNegativeInt = 0
    """Of the bootstrap."""
    index: str | None = None
    """Folder of the shards, for the pictures; by default that of the runs."""
    out: Path | None = None
    """File of the page; by default <first RUN>/compare.html."""


def run(options: Options) -> int:
    """Print the comparison and write its page."""
    groups = read_groups(_folders(options), split=options.split)
    lines = table(groups, num_resamples=options.resamples, seed=options.seed)
    note = caption(groups, num_resamples=options.resamples, seed=options.seed)
    changes = [
        Changes(
            other=other,
            changes=most_changed(groups[0], other, options.changed),
            flips=flips(groups[0], other),
        )
        for other in groups[1:]
    ]
    pictures, picture_note = _pictures(groups[0], changes, options.index)
    out = options.out or groups[0].runs[0].run.folder / "compare.html"
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


def _folders(options: Options) -> list[list[Path]]:
    """The run folders in groups.

    Raises:
        UserError: fewer than two runs, an empty group, or a page that is a folder.
    """
    groups: list[list[Path]] = [[]]
    for word in options.runs:
        if word == "--":
            groups.append([])
        else:
            groups[-1].append(Path(word))
    if sum(map(len, groups)) < 2:
        raise UserError("at least two runs are needed: wsol compare RUN RUN; groups of seeds: A1 A2 -- B1 B2")
    if not all(groups):
        raise UserError("-- with no run before or behind it; groups of seeds: wsol compare A1 A2 -- B1 B2")
    if options.seeds and len(groups) > 1:
        raise UserError("--seeds: means one group, -- parts several; give one of them")
    if options.out is not None and options.out.is_dir():
        raise UserError(
            f"--out {str(options.out)!r}: is a folder; give a file such as {options.out / 'compare.html'}"
        )
    return [[run] for run in groups[0]] if len(groups) == 1 and not options.seeds else groups


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
