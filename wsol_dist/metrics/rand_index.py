"""How alike two clusterings of the same pixels are (Hubert and Arabie, Journal of Classification 1985)."""

from __future__ import annotations

import numpy as np


def adjusted_rand_index(a_n: np.ndarray, b_n: np.ndarray) -> float:
    """The adjusted Rand index of two label arrays of one shape: 1 for equal up to names, 0 as by chance."""
    assert a_n.shape == b_n.shape, (a_n.shape, b_n.shape)
    (_, a_n), (_, b_n) = (np.unique(one, return_inverse=True) for one in (a_n.ravel(), b_n.ravel()))
    table_AB = np.bincount(a_n * (b_n.max() + 1) + b_n).astype(np.float64)
    together, in_a, in_b = (_pairs(count) for count in (table_AB, np.bincount(a_n), np.bincount(b_n)))
    expected = in_a * in_b / _pairs(np.array([a_n.size]))
    most = (in_a + in_b) / 2
    return 1.0 if most == expected else float((together - expected) / (most - expected))


def _pairs(count: np.ndarray) -> float:
    count = count.astype(np.float64)
    return float((count * (count - 1) / 2).sum())
