"""Score maps of every awkward kind, for hypothesis."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

KINDS = ("constant", "one_pixel", "noise", "few_values", "smooth", "border", "rings", "blobs", "tiny_range")


def make_map(kind: str, side: tuple[int, int], seed: int) -> np.ndarray:
    """An (h, w) float32 map."""
    rng = np.random.default_rng(seed)
    height, width = side
    y, x = np.mgrid[:height, :width]
    noise = rng.standard_normal(side)
    if kind == "constant":
        made = np.full(side, rng.standard_normal())
    elif kind == "one_pixel":
        made = np.zeros(side)
        made[rng.integers(height), rng.integers(width)] = 1
    elif kind == "few_values":
        made = rng.integers(0, 3, side).astype(float)
    elif kind == "smooth":
        made = np.exp(-((x - rng.uniform(0, width)) ** 2 + (y - rng.uniform(0, height)) ** 2) / width)
    elif kind == "border":
        made = (x == 0) * 0.7 + (y == height - 1) * 1.0 + (x == width - 1) * 0.4
    elif kind == "rings":
        made = np.cos(np.hypot(x - width / 2, y - height / 2)) + 0.01 * noise
    elif kind == "blobs":
        made = np.sin(x * rng.uniform(0.3, 2)) * np.cos(y * rng.uniform(0.3, 2)) + 0.1 * noise
    elif kind == "tiny_range":
        made = 1000 + 1e-3 * noise
    else:
        made = noise
    return made.astype(np.float32)


GRAY_KINDS = ("noise", "plateaus", "checkerboard", "rings", "twins", "frames", "stripes", "pits")


def make_gray(kind: str, side: tuple[int, int], num_values: int, seed: int) -> np.ndarray:
    """An (h, w) uint8 map with a maximum of 255 and few values, so that areas tie and components nest."""
    rng = np.random.default_rng(seed)
    height, width = side
    y, x = np.mgrid[:height, :width]
    values = np.sort(np.append(rng.integers(0, 256, num_values), 255)).astype(np.uint8)
    if kind == "plateaus":
        gray = np.kron(rng.choice(values, (height // 4 + 1, width // 3 + 1)), np.ones((4, 3), np.uint8))
    elif kind == "checkerboard":
        gray = np.where((x + y) % 2 == 0, rng.choice(values), rng.choice(values, side))
    elif kind == "rings":
        gray = values[np.maximum(abs(x - width // 2), abs(y - height // 2)) % len(values)]
    elif kind == "twins":  # equal areas, at any place
        gray = np.zeros(side, np.uint8)
        for _ in range(12):
            top, left = rng.integers(height), rng.integers(width)
            gray[top : top + 3, left : left + 4] = rng.choice(values)
    elif kind == "frames":  # things in holes of things in holes, also on the border
        gray = np.zeros(side, np.uint8)
        for _ in range(9):
            (top, bottom), (left, right) = np.sort(rng.integers(0, (height + 1, width + 1), (2, 2)).T)
            gray[top:bottom, left:right] = rng.choice(values)
            gray[top + 1 : bottom - 1, left + 1 : right - 1] = rng.choice(values)
    elif kind == "stripes":  # contours of area 0
        gray = np.where(rng.random(side) < 0.7, values[(x + y * rng.integers(0, 2)) % len(values)], 0)
    elif kind == "pits":
        gray = np.where(rng.random(side) < 0.1, rng.choice(values, side), 255)
    else:
        gray = rng.choice(values, side)
    gray = np.array(gray[:height, :width], np.uint8)
    gray[rng.integers(height), rng.integers(width)] = 255
    return gray


def gray_maps(*, max_side: int = 64) -> st.SearchStrategy[np.ndarray]:
    """8-bit maps of 1 to `max_side` pixels a side."""
    sides = st.tuples(st.integers(1, max_side), st.integers(1, max_side))
    return st.builds(
        make_gray, st.sampled_from(GRAY_KINDS), sides, st.integers(1, 6), st.integers(0, 2**32 - 1)
    )


def score_maps(*, max_side: int = 20) -> st.SearchStrategy[np.ndarray]:
    """Maps of 1 to `max_side` cells a side."""
    sides = st.integers(1, max_side)
    return st.builds(make_map, st.sampled_from(KINDS), st.tuples(sides, sides), st.integers(0, 2**32 - 1))
