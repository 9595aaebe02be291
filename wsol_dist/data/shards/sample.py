"""What a source yields and a shard holds: one image with its labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

IGNORE = 255
"""Mask value of pixels that count neither as object nor as background."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image, as the data set's own files have it."""

    id: str
    """Unique in the data set; the name the field uses, e.g. `val/ILSVRC2012_val_00000347.JPEG`."""
    image: bytes
    """The original file's bytes, not re-encoded."""
    extension: str
    """The image file's extension in lower case, without a dot: jpg, png."""
    labels: tuple[int, ...]
    """Class numbers, ascending; exactly one for single-label sets."""
    boxes_xyxy: np.ndarray | None = None
    """(n, 4) float64, the numbers as the field's metadata has them, in the frame `box_frame_wh`; None where
    the data set has no boxes for this image. Only the metrics convert."""
    box_frame_wh: tuple[int, int] | None = None
    """Width and height of the original image, in which the boxes are given; may differ from the file's."""
    box_labels: tuple[int, ...] | None = None
    """The class of each box, in multi-label sets; None where every box is of the only label."""
    mask: np.ndarray | None = None
    """(H, W) uint8; H, W may differ from the file's. 0 background, 255 ignore; the object is 1, or, if `semantic`,
    each object is its class + 1, whether the class is among `labels` or not."""
    semantic: bool = False
    """Which of the two the mask is: one object whose class is the label (scored by PxAP), or the class of every
    pixel (scored by mIoU). Multi-label sets with masks have the latter, of at most 254 classes."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A sample that is known but not read yet: cheap, picklable, listed by the million."""

    id: str
    split: str
    labels: tuple[int, ...]
    """Class numbers, ascending; none for an image of a multi-label set in which no class is: packing leaves such
    out and says how many."""
    where: str | int
    """What the source needs to read it: a path below the root, or a number."""


class Source(Protocol):
    """A data set in its original layout. One file in `data/sources/` each, found by its name.

    The module defines `class Source` and the `Options` dataclass that it takes; `--help` is made of them.
    A source is picklable, so that packing can run in processes. One that chooses its splits out of more images has a
    mapping `found_counts` besides, with the number of all `images`, to be compared with that in `known_counts`.
    """

    classes: tuple[str, ...]
    """Class names; a label is an index into it."""
    known_counts: Mapping[str, int]
    """Images by split, and the number of `classes`, as its authors published them, in what the options ask for; empty
    where nobody knows."""

    def items(self) -> Iterator[Item]:
        """Every sample of every split, in a fixed order, without reading images.

        Raises:
            UserError: the root is missing or is not in the expected layout; a class has no images.
        """
        ...

    def read(self, item: Item) -> Sample:
        """The sample itself.

        Raises:
            UserError: an annotation that does not parse; the file and what was expected are named.
        """
        ...
