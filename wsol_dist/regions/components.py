"""The boxes of every level without tracing a contour: components that grow while the level moves, compiled.

Pixels join in the order of their values, and each component keeps its bounding box up to date (a union-find
over pixels sorted by value, as component trees are built: Najman and Couprie 2006). Three facts make the
result that of contours, exactly:

- A mask has one contour for each 8-connected component, with its bounding box, and one for each 4-connected
  background component that it encloses, with that one's bounding box grown by a pixel.
- `cv2.contourArea` of an outer contour is Q4 + Q3 / 2, the numbers of 2x2 pixels with four and with three set, of
  the component with its holes filled. Filling the holes of the map itself (each pixel rises to the lowest level
  at which background connects it to the outside of the image) fills those of all levels at once, and then the
  area grows by a local amount with each pixel. What lies inside of a hole is never the largest.
- Of equal areas the first in OpenCV's list wins, which is the one whose first pixel in reading order comes last.
"""

from __future__ import annotations

import threading

import numpy as np

from wsol_dist.regions.kernels import NUM_COLUMNS, NUM_STEPS, arrange, fill, grow


def boxes_by_growing(
    gray_hw: np.ndarray, *, every: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The boxes [x, y, x + w, y + h] of a map's contours at all levels.

    Args:
        gray_hw: (h, w) uint8 with a maximum of 255, below 32,768 pixels a side.
        every: the boxes of all contours, or none but the largest.

    Returns:
        (255, 4) int16: the box of the contour with the largest area, by level; (N, 4) int16: the boxes of all
        contours; (N,) and (N,): the first and the last level on which each of them is there.
    """
    room = _room(gray_hw.shape)
    room.arrange(np.ascontiguousarray(gray_hw))
    num, noted = room.grow(background=True, boxes=every)
    found = [_of_levels(room.notes_N6[:noted], background=True)]
    has_holes = fill(gray_hw, room.label, room.nodes, num, room.filled_hw)
    if every or not has_holes:
        _, noted = room.grow(background=False, boxes=every, largest=not has_holes)
        found.append(_of_levels(room.notes_N6[:noted], background=False))
    if has_holes:
        room.arrange(room.filled_hw)
        room.grow(background=False, largest=True)
    largest_L4 = room.largest_S4[::-1] + np.array([0, 0, 1, 1], np.int16)
    boxes_N4, first_N, last_N = (np.concatenate(part) for part in zip(*found, strict=True))
    return largest_L4, boxes_N4, first_N, last_N


def _of_levels(notes_N6: np.ndarray, *, background: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Notes of `grow` as boxes of contours, their first levels and their last levels."""
    # A hole's contour runs on the pixels around it.
    around = np.array([-1, -1, 2, 2] if background else [0, 0, 1, 1], np.int16)
    first, last = notes_N6[:, 4].astype(np.int64), notes_N6[:, 5].astype(np.int64)
    if not background:
        first, last = NUM_STEPS - 1 - last, NUM_STEPS - 1 - first
    return notes_N6[:, :4] + around, first, last


class _Room:
    """The memory in which maps of one shape are worked on, one after the other: fresh pages cost more time than
    all the rest."""

    def __init__(self, shape: tuple[int, int]) -> None:
        height, width = self.shape = shape
        num, num_padded = height * width, (height + 2) * (width + 2)
        self.padded = np.full(num_padded, -1, np.int16)
        self.order = np.empty(num, np.int32)
        self.starts = np.zeros(257, np.int64)
        self.before = np.zeros(num_padded, np.uint8)
        self.label = np.zeros(num_padded, np.uint32)
        # Of pixels that share a side at most one begins a component; component 0 is outside of the image.
        self.nodes = np.empty(((num + 1) // 2 + 2, NUM_COLUMNS), np.uint32)
        self.alive = np.empty(len(self.nodes), np.uint32)
        # At most one for each pixel that joins, and one for each component that ends.
        self.notes_N6 = np.empty((2 * num, 6), np.int16)
        self.filled_hw = np.empty(shape, np.uint8)
        self.largest_S4 = np.zeros((NUM_STEPS, 4), np.int16)

    def arrange(self, gray_hw: np.ndarray) -> None:
        arrange(gray_hw, self.padded, self.order, self.starts, self.before)

    def grow(self, *, background: bool, boxes: bool = False, largest: bool = False) -> tuple[int, int]:
        """`grow` on the arranged pixels."""
        pixels = (self.order, self.starts, self.before, self.shape[1])
        tables = (_BACKGROUND_PARTS if background else _FOREGROUND_PARTS, _QUADS)
        state = (self.label, self.nodes, self.alive)
        return grow(*pixels, *tables, background, boxes, largest, *state, self.notes_N6, self.largest_S4)


_rooms = threading.local()


def _room(shape: tuple[int, ...]) -> _Room:
    """This thread's room."""
    room = getattr(_rooms, "last", None)
    if room is None or room.shape != shape:
        height, width = shape
        room = _rooms.last = _Room((height, width))
    return room


def _parts(bits: int, *, corners: bool) -> int:
    """Which neighbours of a pixel stand for all that have joined, as `grow` reads it.

    Args:
        bits: the neighbours that have joined.
        corners: pixels that touch at a corner are connected too.
    """
    parts: list[set[int]] = []
    for k in (k for k in range(8) if bits >> k & 1):
        # On the ring of neighbours, one step leads to a shared side; those across a corner are two steps apart.
        reach = {(k + 1) % 8, (k - 1) % 8} | ({(k + 2) % 8, (k - 2) % 8} if corners and k % 2 == 0 else set())
        touching = [part for part in parts if part & reach]
        parts = [part for part in parts if not part & reach] + [{k}.union(*touching)]
    # A neighbour at the pixel's own corner is connected to it only where corners connect.
    stand = [min(part if corners else part & {0, 2, 4, 6}, default=-1) for part in parts]
    stand = [k for k in stand if k >= 0]
    return len(stand) | sum(k << 3 * place for place, k in enumerate(stand, start=1))


def _quads(bits: int) -> int:
    """How much 2 Q4 + Q3 grows by a pixel: by one for each of its four quads that has two of the others or all."""
    there = [bits >> k & 1 for k in (*range(8), 0)]
    return sum(sum(there[k : k + 3]) >= 2 for k in (0, 2, 4, 6))


_FOREGROUND_PARTS = np.array([_parts(bits, corners=True) for bits in range(256)], np.uint16)
_BACKGROUND_PARTS = np.array([_parts(bits, corners=False) for bits in range(256)], np.uint16)
_QUADS = np.array([_quads(bits) for bits in range(256)], np.uint8)
