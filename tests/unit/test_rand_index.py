"""The adjusted Rand index against counting all pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from wsol_dist.metrics.rand_index import adjusted_rand_index


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_counting_all_pairs_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a_n, b_n = rng.integers(0, 3, 25), rng.integers(0, 4, 25)
    pairs = list(combinations(range(25), 2))
    in_a = np.array([a_n[i] == a_n[j] for i, j in pairs])
    in_b = np.array([b_n[i] == b_n[j] for i, j in pairs])
    expected = in_a.sum() * in_b.sum() / len(pairs)
    wanted = ((in_a & in_b).sum() - expected) / ((in_a.sum() + in_b.sum()) / 2 - expected)
    assert adjusted_rand_index(a_n, b_n) == pytest.approx(wanted)


def test_names_do_not_matter_and_one_cluster_equals_itself() -> None:
    label_HW = np.array([[0, 0, 5], [7, 7, 5]], np.uint8)
    assert adjusted_rand_index(label_HW, np.array([[1, 1, 0], [2, 2, 0]])) == 1
    assert adjusted_rand_index(np.zeros(4), np.ones(4)) == 1
    assert adjusted_rand_index(np.zeros(4), np.arange(4)) == 0
