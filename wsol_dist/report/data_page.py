"""The page of a data set: what is in it, what it looks like, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from wsol_dist.files import write_atomically
from wsol_dist.report.charts import Chart
from wsol_dist.report.page import fill

MOST_LISTED = 200
"""Lines of a list on the page."""
MOST_CLASSES = 40
"""So many are listed at once, more in a part that opens."""


@dataclass(frozen=True, kw_only=True)
class SplitRow:
    """A split in numbers."""

    name: str
    num_images: int
    num_shards: int
    size: str
    per_class: str
    """Least, median and most images of a class."""
    num_empty_classes: int
    num_with_boxes: int
    num_boxes: int
    num_with_masks: int
    num_broken: int


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """A class in numbers."""

    name: str
    num_images: tuple[int, ...]
    """One a split."""
    num_boxes: int
    box_percent: float
    """Median area of its boxes in percent of their images; nan without any."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image with what is known of it."""

    uri: str
    """Empty where it could not be drawn."""
    id: str
    split: str
    label: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class GroupView:
    """Images that are one picture."""

    title: str
    bad: bool
    pictures: list[Picture]
    num_more: int


@dataclass(frozen=True, kw_only=True)
class DuplicateList:
    """Groups of one kind."""

    title: str
    about: str
    shown: list[GroupView]
    lines: list[str] = field(default_factory=list)
    """Those that are not shown as pictures, a line each."""
    num_more: int = 0
    """Those that are not listed at all."""


@dataclass(frozen=True, kw_only=True)
class DataView:
    """Everything the page says."""

    name: str
    facts: list[tuple[str, str]]
    notes: list[str]
    """Sentences on what to look at first."""
    tiles: list[tuple[str, str, str]]
    """Label, value and detail."""
    splits: list[SplitRow]
    classes: list[ClassRow]
    charts: list[Chart]
    """Of classes, images, boxes and masks."""
    where: str
    """Data URI of the picture of where boxes are; empty without boxes."""
    legend: str
    samples: list[Picture]
    between: list[tuple[str, str, int, int]]
    """Split, other split, images of the first that the other has too: identical, alike."""
    duplicates: list[DuplicateList]
    broken: list[tuple[str, str]]
    """What cannot be shown, and why."""
    commands: list[str]

    @property
    def broken_shown(self) -> list[tuple[str, str]]:
        return self.broken[:MOST_LISTED]

    @property
    def classes_folded(self) -> bool:
        """Whether there are too many to list at once."""
        return len(self.classes) > MOST_CLASSES

    @property
    def most_images(self) -> int:
        """Of one class in one split."""
        return max((max(row.num_images, default=0) for row in self.classes), default=0)


def write_data_page(view: DataView, out: Path) -> None:
    """Writes the page; another of that name is replaced at once. Raises OSError where it cannot be written."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, fill("data.html.j2", title=view.name, view=view).encode())
