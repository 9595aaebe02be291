"""Which boxes have a pixel inside their image: pixels from 0, the last one included."""

from __future__ import annotations

import numpy as np
import pytest

from wsol_dist.data.shards.check import frame_problem


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        ((9, 7, 9, 7), True),  # the last pixel
        ((10, 1, 10, 5), False),
        ((10, 1, 15, 5), False),
        ((1, 8, 5, 9), False),
        ((9.5, 7.5, 12, 9), True),
        ((0, 0, 0, 0), True),
        ((-3, -3, 0, 0), True),
        ((-3, 1, -1, 5), False),
        ((1, -3, 5, -1), False),
        ((-5, -5, 50, 50), True),
    ],
)
def test_the_border(box: tuple[float, ...], inside: bool) -> None:
    problem = frame_problem(np.array([[1, 1, 2, 2], box], dtype=np.float64), (10, 8))
    if inside:
        assert problem is None
    else:
        given = ", ".join(f"{side:g}" for side in box)
        assert problem == f"box x0,y0,x1,y1 = {given} lies outside the image of 10 x 8 pixels"
