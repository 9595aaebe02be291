"""A data set's survey in the words and pictures of its page, which `wsol shards report` writes."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsol_dist.data.images.decode import DecodeError, decode_rgb
from wsol_dist.data.inspection.duplicates import Duplicates, Group, find_duplicates
from wsol_dist.data.inspection.look import size_text
from wsol_dist.data.inspection.survey import Survey, spread_out, stored_samples, survey
from wsol_dist.data.shards.index import Index
from wsol_dist.data.shards.sample import IGNORE, Sample
from wsol_dist.errors import UserError
from wsol_dist.report.charts import Chart
from wsol_dist.report.data_charts import class_histogram, count_histogram, share_histogram, size_histogram
from wsol_dist.report.data_page import (
    MOST_LISTED,
    ClassRow,
    DataView,
    DuplicateList,
    GroupView,
    Picture,
    SplitRow,
    write_data_page,
)
from wsol_dist.report.data_pictures import draw_heat, draw_sample

MOST_GROUPS = 24
"""Groups of duplicates of a kind that are shown as pictures."""
MOST_OF_GROUP = 4
SIDE_PX, GROUP_SIDE_PX = 200, 136


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A data set, read once."""

    index: Index
    survey: Survey
    duplicates: Duplicates


def write_report(
    place: str,
    *,
    out: Path | None,
    num_samples: int,
    workers: int,
    progress: Callable[[int], None],
) -> list[str]:
    """Survey the shards and write their page.

    Args:
        place: folder or URL.
        out: of the page; None for report.html in the folder, or here for a URL.

    Returns:
        What was found, in lines.

    Raises:
        UserError: no shards there; no place for the page.
    """
    index = Index.load(place, check_files=False)
    out = out or (Path() if index.remote else index.folder) / "report.html"
    if out.is_dir():
        raise UserError(f"--out {str(out)!r}: is a folder; give a file such as {out / 'report.html'}")
    found = survey(index, workers=workers, progress=progress)
    seen = Seen(index=index, survey=found, duplicates=find_duplicates(found))
    view = make_view(seen, num_samples=num_samples)
    try:
        write_data_page(view, out)
    except OSError as error:
        raise UserError(
            f"--out {str(out)!r}: cannot be written ({error.strerror}); choose another file"
        ) from error
    return [f"{place}: {len(found)} images", *view.notes, f"Data page  {out.resolve()}"]


def make_view(seen: Seen, *, num_samples: int) -> DataView:
    """Everything that the page says; reads the samples that it shows."""
    index, found, duplicates = seen.index, seen.survey, seen.duplicates
    groups = [*duplicates.identical[:MOST_GROUPS], *duplicates.alike[:MOST_GROUPS]]
    chosen = spread_out(found, num_samples)
    wanted = chosen + [row for group in groups for row in group.rows[:MOST_OF_GROUP]]
    stored = stored_samples(index, wanted)
    names = [str(name) for name in index.classes]
    between = duplicates.between(found)
    return DataView(
        name=index.name,
        facts=_facts(index, found),
        notes=list(_notes(seen, between)),
        tiles=list(_tiles(seen)),
        splits=[_split_row(seen, split) for split in index.splits],
        classes=_class_rows(seen),
        charts=_charts(found, names),
        where=draw_heat(found.box_grid) if len(found.box_row) else "",
        legend=_legend(index),
        samples=[_picture(seen, row, stored.get(row), size_px=SIDE_PX) for row in chosen],
        between=between,
        duplicates=list(_duplicate_lists(seen, stored)),
        broken=[(line.partition(": ")[0], line.partition(": ")[2]) for line in found.damaged]
        + [(found.ids[row], why) for row, why in sorted(found.broken.items())],
        commands=[
            f"wsol shards report {shlex.quote(index.place)}",
            *([] if index.remote else [f"wsol shards verify --deep {shlex.quote(index.place)}"]),
        ],
    )


def _facts(index: Index, found: Survey) -> list[tuple[str, str]]:
    sizes = np.unique(np.stack([found.width, found.height], axis=1)[found.width > 0], axis=0)
    return [
        ("Shards", index.place),
        ("Size", size_text(sum(shard.bytes for shard in index.shards))),
        ("Images", f"{sizes[0][0]} x {sizes[0][1]} px" if len(sizes) == 1 else f"{len(sizes):,} sizes"),
        ("Columns", ", ".join(index.columns)),
        ("Seed", str(index.seed)),
        ("Index", index.sha256[:12]),
        ("Packed by", index.created_by),
    ]


def _notes(seen: Seen, between: list[tuple[str, str, int, int]]) -> Iterator[str]:
    found = seen.survey
    if found.damaged:
        num = len(found.damaged)
        which = "1 tar is" if num == 1 else f"{num} tars are"
        yield f"{which} missing or not as the index says; the list is at the end."
    if found.broken:
        yield f"{len(found.broken)} of {len(found):,} images cannot be shown; the list is at the end."
    order = list(seen.index.splits)
    for one, other, identical, alike in between:
        # Told from the split that is scored: what of it was trained on.
        if other == "train" or (one != "train" and order.index(one) < order.index(other)):
            yield f"Leakage: of {one} are also in {other}: {identical} identical images, {alike} that look alike."
    conflicts = [group for group in seen.duplicates.identical if group.labels_differ]
    if conflicts:
        num = len(conflicts)
        yield f"{num} group{'s' if num > 1 else ''} of identical images under different labels."
    if any(len(some) == 0 for some in found.labels):
        yield f"{sum(len(some) == 0 for some in found.labels)} images have no label."
    for split in seen.index.splits:
        if split != "train" and not np.isin(found.box_row, np.flatnonzero(found.split == split)).any():
            yield f"{split} has no boxes: localization cannot be scored on it."


def _tiles(seen: Seen) -> Iterator[tuple[str, str, str]]:
    found, duplicates = seen.survey, seen.duplicates
    splits = ", ".join(f"{name} {split.num_samples:,}" for name, split in seen.index.splits.items())
    yield "Images", f"{len(found):,}", splits
    yield "Classes", f"{len(seen.index.classes):,}", _labels_text(found)
    if len(found.box_share):
        whole = 100 * float(np.mean(found.box_share > 0.9))
        yield (
            "Boxes",
            f"{len(found.box_row):,}",
            f"median {100 * float(np.median(found.box_share)):.0f} % of the image; {whole:.0f} % cover 90 % or more",
        )
    twice = sum(len(group.rows) for group in duplicates.identical)
    alike = sum(len(group.rows) for group in duplicates.alike)
    yield "Found twice", f"{twice:,}", f"images with an identical one; {alike:,} more look like another"
    yield "Broken", f"{len(found.broken):,}", "images that cannot be shown"


def _labels_text(found: Survey) -> str:
    mean = sum(map(len, found.labels)) / max(1, len(found))
    return (
        "one label an image"
        if all(len(some) == 1 for some in found.labels)
        else f"{mean:.1f} labels an image"
    )


def _split_row(seen: Seen, split: str) -> SplitRow:
    found, counts = seen.survey, seen.index.splits[split]
    rows = np.flatnonzero(found.split == split)
    per_class = np.array(counts.num_images_per_class)
    shards = [shard for shard in seen.index.shards if shard.split == split]
    boxes = found.box_row[np.isin(found.box_row, rows)]
    return SplitRow(
        name=split,
        num_images=counts.num_samples,
        num_shards=len(shards),
        size=size_text(sum(shard.bytes for shard in shards)),
        per_class=f"{per_class.min()}, {np.median(per_class):g}, {per_class.max()}",
        num_empty_classes=int((per_class == 0).sum()),
        num_with_boxes=len(np.unique(boxes)),
        num_boxes=len(boxes),
        num_with_masks=int(found.has_mask[rows].sum()),
        num_broken=int((~found.readable[rows]).sum()),
    )


def _class_rows(seen: Seen) -> list[ClassRow]:
    found = seen.survey
    order = np.argsort(found.box_label, kind="stable")
    share, label = found.box_share[order], found.box_label[order]
    rows = []
    for number, name in enumerate(seen.index.classes):
        start, end = np.searchsorted(label, [number, number + 1]).tolist()
        rows.append(
            ClassRow(
                name=str(name),
                num_images=tuple(s.num_images_per_class[number] for s in seen.index.splits.values()),
                num_boxes=end - start,
                box_percent=100 * float(np.median(share[start:end])) if end > start else math.nan,
            )
        )
    return rows


def _charts(found: Survey, names: Sequence[str]) -> list[Chart]:
    labels = np.array([label for some in found.labels for label in some], np.int64)
    known = found.width > 0
    boxes = np.bincount(found.box_row, minlength=len(found))
    drawn = [
        class_histogram(names, np.bincount(labels, minlength=len(names))),
        size_histogram(found.width[known], found.height[known]),
        share_histogram("Box sizes", found.box_share, x_label="area of the box, % of the image", of="boxes"),
        count_histogram("Boxes per image", boxes, x_label="boxes", of="images") if boxes.any() else None,
        share_histogram("Masks", found.mask_share, x_label="object pixels, % of the image", of="masks"),
    ]
    return [chart for chart in drawn if chart is not None]


def _legend(index: Index) -> str:
    parts = ["Always the same ones, equally many of each split and class."]
    if "boxes_xyxy" in index.columns:
        parts.append("Boxes in red, as the metadata has them.")
    if "mask" in index.columns:
        parts.append("Masks in green; grey does not count.")
    if "semantic_mask" in index.columns:
        parts.append("Masks in a colour for each class; grey does not count.")
    return " ".join(parts)


def _picture(seen: Seen, row: int, sample: Sample | None, *, size_px: int, plain: bool = False) -> Picture:
    """Args: plain: without boxes and mask, for looking at the images themselves."""
    found, names = seen.survey, seen.index.classes
    labels = [str(names[label]) for label in found.labels[row]]
    same = found.width.min() == found.width.max() and found.height.min() == found.height.max()
    detail = "" if same or not found.width[row] else f"{found.width[row]} x {found.height[row]}"
    uri = "" if sample is None else _drawn(sample, size_px=size_px, plain=plain)
    label = ", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")
    return Picture(
        uri=uri, id=found.ids[row], split=str(found.split[row]), label=label or "no label", detail=detail
    )


def _drawn(sample: Sample, *, size_px: int, plain: bool) -> str:
    try:
        rgb_HWC = decode_rgb(sample.image, cover_px=size_px)
    except DecodeError:
        return ""
    if plain:
        return draw_sample(rgb_HWC, size_px=size_px)
    boxes = np.zeros((0, 4))
    if sample.boxes_xyxy is not None and sample.box_frame_wh is not None:
        height, width = rgb_HWC.shape[:2]
        scale = np.array([width, height, width, height]) / np.tile(sample.box_frame_wh, 2)
        boxes = sample.boxes_xyxy * scale
    return draw_sample(rgb_HWC, boxes_xyxy=boxes, mask_hw=sample.mask, ignore=IGNORE, size_px=size_px)


def _duplicate_lists(seen: Seen, stored: dict[int, Sample]) -> Iterator[DuplicateList]:
    kinds = (
        ("Identical files", "The same bytes (sha256).", seen.duplicates.identical),
        (
            "Images that look alike",
            "Found by a perceptual hash and checked by colours: re-encoded and resized copies, and pictures that are "
            "nearly one, such as frames of a film; mirrored and cropped ones are not found. Look before removing any.",
            seen.duplicates.alike,
        ),
    )
    for title, about, groups in kinds:
        if not groups:
            yield DuplicateList(title=f"{title}: none", about=about, shown=[])
            continue
        rest = groups[MOST_GROUPS:]
        yield DuplicateList(
            title=f"{title}: {len(groups):,} groups of {sum(len(group.rows) for group in groups):,} images",
            about=about,
            shown=[_group_view(seen, group, stored) for group in groups[:MOST_GROUPS]],
            lines=[_group_line(seen, group) for group in rest[:MOST_LISTED]],
            num_more=max(0, len(rest) - MOST_LISTED),
        )


def _group_view(seen: Seen, group: Group, stored: dict[int, Sample]) -> GroupView:
    rows = group.rows[:MOST_OF_GROUP]
    return GroupView(
        title=_group_title(group),
        bad=len(group.splits) > 1 or group.labels_differ,
        pictures=[_picture(seen, row, stored.get(row), size_px=GROUP_SIDE_PX, plain=True) for row in rows],
        num_more=len(group.rows) - len(rows),
    )


def _group_title(group: Group) -> str:
    where = "across " + " and ".join(group.splits) if len(group.splits) > 1 else f"in {group.splits[0]}"
    return where + (", different labels" if group.labels_differ else "")


def _group_line(seen: Seen, group: Group) -> str:
    return f"{_group_title(group)}: " + "  ".join(seen.survey.ids[row] for row in group.rows)
