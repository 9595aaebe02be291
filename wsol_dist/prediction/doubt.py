"""How doubtful each predicted box is, and the order in which a person looks at them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

DECIMALS = 4
"""Of a doubt: boxes that differ in less stay in the order of the predictions."""


def doubt_of(table: pa.Table) -> np.ndarray:
    """1 - score x stability of each row, 1 where the given class is another one than the predicted: (n,) in [0, 1].

    Args:
        table: rows with a box, with the columns of `record.SCHEMA`; a score or stability that is not known counts as 1.
    """
    score, stability = (table[name].fill_null(1.0).to_numpy() for name in ("score", "stability"))
    given = table["given_label"].fill_null(-1).to_numpy()
    differs = (given >= 0) & (given != table["label"].to_numpy())
    return np.where(differs, 1.0, np.clip(1 - score * stability, 0, 1))


def shown_doubt(doubt: np.ndarray) -> np.ndarray:
    """A doubt as pages show it and sort by it, float64."""
    return np.round(doubt.astype(np.float64), DECIMALS)


def review_order(doubt: np.ndarray) -> np.ndarray:
    """Positions in the order of a review: the most doubtful first, equals as they were predicted."""
    return np.argsort(-shown_doubt(doubt), kind="stable")
