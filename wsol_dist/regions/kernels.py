"""The compiled inner loops of `wsol_dist.regions.components`; imported at first use only.

All in one file, and what is called before what calls it: numba compiles where it stands, and what it keeps on disk
it renews when the file of the function itself has changed.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from wsol_dist.regions.compiled import compiled

NUM_STEPS = 255
"""Of a map's 256 values; the last to join, 255 of the background or 0 of the foreground, has no level."""

NUM_COLUMNS = 11
_PARENT, _X0, _Y0, _X1, _Y1, _SINCE, _AREA, _FIRST, _INTO, _BORN, _DIED = range(NUM_COLUMNS)
"""Of a component. _PARENT: itself, or another on the way to the one that it is part of now; _SINCE: the step that
made its present box; _AREA: 2 Q4 + Q3; _FIRST: its first pixel in reading order; _INTO: the component that took it
up; _BORN, _DIED: the steps of its beginning and of that, 255 for never."""


@compiled("void(u1[:, ::1], i2[::1], i4[::1], i8[::1], u1[::1])")
def arrange(
    gray_hw: np.ndarray, padded: np.ndarray, order: np.ndarray, starts: np.ndarray, before: np.ndarray
) -> None:
    """Sort the pixels by value, the highest first, equal ones in reading order.

    Args:
        gray_hw: (h, w).
        padded: ((h + 2) (w + 2),) with -1 on the border; the map is copied into it.
        order: filled with the (h w,) pixels, each y << 16 | x.
        starts: filled with the (257,) places in it where value 255 - k begins.
        before: (padded,) filled with the neighbours that come before a pixel, a bit each, clockwise from the right.
    """
    height, width = gray_hw.shape
    stride = width + 2
    starts[:] = 0
    for y in range(height):
        for x in range(width):
            value = gray_hw[y, x]
            padded[(y + 1) * stride + x + 1] = value
            starts[256 - value] += 1
    for k in range(256):
        starts[k + 1] += starts[k]
    for y in range(height):
        above, row, below = (
            padded[y * stride : (y + 1) * stride],
            padded[(y + 1) * stride : (y + 2) * stride],
            padded[(y + 2) * stride : (y + 3) * stride],
        )
        before_row = before[(y + 1) * stride + 1 :]
        for x in range(width):  # counted from 0, so that the loop becomes vector instructions
            value = row[x + 1]
            before_row[x] = (
                np.uint8(row[x + 2] > value)
                | np.uint8(below[x + 2] > value) << 1
                | np.uint8(below[x + 1] > value) << 2
                | np.uint8(below[x] > value) << 3
                | np.uint8(row[x] >= value) << 4
                | np.uint8(above[x] >= value) << 5
                | np.uint8(above[x + 1] >= value) << 6
                | np.uint8(above[x + 2] >= value) << 7
            )
    place = starts.copy()
    for y in range(height):
        for x in range(width):
            k = 255 - gray_hw[y, x]
            order[place[k]] = y << 16 | x
            place[k] += 1


@njit(nogil=True)
def _begin(nodes, number, x, y, i, step):
    nodes[number, _PARENT] = nodes[number, _INTO] = number
    nodes[number, _X0] = nodes[number, _X1] = x
    nodes[number, _Y0] = nodes[number, _Y1] = y
    nodes[number, _SINCE] = nodes[number, _BORN] = step
    nodes[number, _AREA] = 0
    nodes[number, _FIRST] = i
    nodes[number, _DIED] = 255


@njit(nogil=True)
def _find(nodes, number):
    """The component that another is part of now."""
    while nodes[number, _PARENT] != number:
        nodes[number, _PARENT] = nodes[nodes[number, _PARENT], _PARENT]
        number = nodes[number, _PARENT]
    return number


@njit(nogil=True)
def _unite(nodes, root, other, step, boxes, notes, num_notes):
    nodes[other, _PARENT] = nodes[other, _INTO] = root
    nodes[other, _DIED] = step
    if boxes:
        num_notes = _note(nodes, other, step, notes, num_notes)
    if root == 0:
        return num_notes
    nodes[root, _AREA] += nodes[other, _AREA]
    nodes[root, _FIRST] = min(nodes[root, _FIRST], nodes[other, _FIRST])
    x0, y0, x1, y1 = nodes[other, _X0], nodes[other, _Y0], nodes[other, _X1], nodes[other, _Y1]
    return _widen(nodes, root, x0, y0, x1, y1, step, boxes, notes, num_notes)


@njit(nogil=True)
def _widen(nodes, number, x0, y0, x1, y1, step, boxes, notes, num_notes):
    if (
        x0 < nodes[number, _X0]
        or y0 < nodes[number, _Y0]
        or x1 > nodes[number, _X1]
        or y1 > nodes[number, _Y1]
    ):
        if boxes:
            num_notes = _note(nodes, number, step, notes, num_notes)
        nodes[number, _SINCE] = step
        nodes[number, _X0] = min(x0, nodes[number, _X0])
        nodes[number, _Y0] = min(y0, nodes[number, _Y0])
        nodes[number, _X1] = max(x1, nodes[number, _X1])
        nodes[number, _Y1] = max(y1, nodes[number, _Y1])
    return num_notes


@njit(nogil=True)
def _note(nodes, number, step, notes, num_notes):
    """Write down a box that is no more from this step on, unless it is as young as that."""
    if nodes[number, _SINCE] == step:
        return num_notes
    for side in range(4):
        notes[num_notes, side] = nodes[number, _X0 + side]
    notes[num_notes, 4] = nodes[number, _SINCE]
    notes[num_notes, 5] = step - 1
    return num_notes + 1


@njit(nogil=True)
def _largest(nodes, alive, num_alive):
    """Drop from the list the components that have become part of others; how many are left, and the largest."""
    kept, best = 0, 0
    for k in range(num_alive):
        number = alive[k]
        if nodes[number, _PARENT] != number:
            continue
        alive[kept] = number
        kept += 1
        if (
            best == 0
            or nodes[number, _AREA] > nodes[best, _AREA]
            or (nodes[number, _AREA] == nodes[best, _AREA] and nodes[number, _FIRST] > nodes[best, _FIRST])
        ):
            best = number
    return kept, best


@compiled(
    "UniTuple(i8, 2)(i4[::1], u1[::1], i8, u2[::1], u1[::1], i8, b1, b1,"
    " u4[::1], u4[:, ::1], i2[:, ::1], i8, i8)"
)
def _join(
    pixels, before, width, parts, quads, step, background, boxes, label, nodes, notes, num, num_notes
):  # fmt: skip
    """One step of `grow`: the pixels of one value, in their order."""
    stride = width + 2
    aside = np.array([1, stride + 1, stride, stride - 1, -1, -stride - 1, -stride, 1 - stride])
    ahead, flip = (-1, 255) if background else (1, 0)
    at = len(pixels) - 1 if background else 0
    for _ in range(len(pixels)):
        y, x = pixels[at] >> 16, pixels[at] & 0xFFFF
        at += ahead
        i = (y + 1) * stride + x + 1
        joined = before[i] ^ flip
        part = parts[joined]
        if part == 0:
            _begin(nodes, num, x, y, i, step)
            label[i] = num
            num += 1
            continue
        root = label[i + aside[part >> 3 & 7]]
        if nodes[root, _PARENT] != root:
            root = _find(nodes, root)
        for k in range(2, (part & 7) + 1):
            other = _find(nodes, label[i + aside[part >> 3 * k & 7]])
            if other != root:
                root, other = min(root, other), max(root, other)
                num_notes = _unite(nodes, root, other, step, boxes, notes, num_notes)
        label[i] = root
        if root > 0:
            nodes[root, _AREA] += quads[joined]
            nodes[root, _FIRST] = min(nodes[root, _FIRST], i)
            # Nearly always inside, and a call costs more than all the rest.
            if not (nodes[root, _X0] <= x <= nodes[root, _X1] and nodes[root, _Y0] <= y <= nodes[root, _Y1]):
                num_notes = _widen(nodes, root, x, y, x, y, step, boxes, notes, num_notes)
    return num, num_notes


@compiled(
    "UniTuple(i8, 2)(i4[::1], i8[::1], u1[::1], i8, u2[::1], u1[::1], b1, b1, b1,"
    " u4[::1], u4[:, ::1], u4[::1], i2[:, ::1], i2[:, ::1])"
)
def grow(
    order, starts, before, width, parts, quads, background, boxes, largest,
    label, nodes, alive, notes, largest_S4,
):  # fmt: skip
    """Let the pixels join, those of one value a step, and keep account of the components.

    Args:
        order, starts, before: as `arrange` filled them.
        width: of the map.
        parts: by the neighbours that have joined, those to unite with: how many in the lowest 3 bits, then 3 bits
            for each.
        quads: by the same, how much 2 Q4 + Q3 grows.
        background: from the lowest value up, with all outside of the image as component 0; otherwise from the
            highest value down, and no component is number 0.
        boxes: write down the boxes that the components had, all but number 0.
        largest: find the largest component of each step.
        label: (padded,) zeros on the border; filled with the component that a pixel joined.
        nodes, alive: filled with the components, and with the numbers of those that are left.
        notes: filled with boxes x0, y0, x1, y1 (both ends included), their first and their last step.
        largest_S4: filled with the box of the largest component, by step.

    Returns:
        The number of components, number 0 included, and of notes.
    """
    num, num_alive, num_notes, best = 1, 0, 0, 0
    _begin(nodes, 0, 0, 0, 0, 0)
    for step in range(NUM_STEPS):
        value = NUM_STEPS - step if background else step
        pixels, before_step = order[starts[value] : starts[value + 1]], num
        num, num_notes = _join(
            pixels, before, width, parts, quads, step, background, boxes, label, nodes, notes, num, num_notes
        )
        if largest:
            for number in range(before_step, num):
                alive[num_alive] = number
                num_alive += 1
            if len(pixels) > 0:
                num_alive, best = _largest(nodes, alive, num_alive)
            for side in range(4):
                largest_S4[step, side] = nodes[best, _X0 + side]
    if boxes:
        for number in range(1, num):
            if nodes[number, _PARENT] == number:
                num_notes = _note(nodes, number, NUM_STEPS, notes, num_notes)
    return num, num_notes


@compiled("b1(u1[:, ::1], u4[::1], u4[:, ::1], i8, u1[:, ::1])")
def fill(gray_hw, label, nodes, num, filled_hw):
    """Fill the holes of a map: each pixel rises to the lowest level at which background leads from it to the outside.

    Args:
        gray_hw: (h, w).
        label, nodes, num: as `grow` filled them for the background.
        filled_hw: filled with the result.

    Returns:
        Whether there was a hole at any level.
    """
    height, width = gray_hw.shape
    has_holes = False
    until = np.zeros(num, np.uint8)
    for number in range(1, num):  # a component is taken up by one of a lower number
        into = nodes[number, _INTO]
        until[number] = nodes[number, _DIED] if into == 0 or into == number else until[into]
        has_holes |= until[number] > nodes[number, _BORN]
    for y in range(height):
        for x in range(width):
            filled_hw[y, x] = max(gray_hw[y, x], until[label[(y + 1) * (width + 2) + x + 1]])
    return has_holes
