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


def score_maps(*, max_side: int = 20) -> st.SearchStrategy[np.ndarray]:
    """Maps of 1 to `max_side` cells a side."""
    sides = st.integers(1, max_side)
    return st.builds(make_map, st.sampled_from(KINDS), st.tuples(sides, sides), st.integers(0, 2**32 - 1))
