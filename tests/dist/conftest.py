"""One pool of gloo ranks of each size for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pool import RankPool


@pytest.fixture(scope="package")
def rank_pool() -> Iterator[RankPool]:
    """Two gloo ranks. They end with the last test of this folder: by then they hold gigabytes that others need."""
    with RankPool(world=2) as pool:
        yield pool


@pytest.fixture(scope="package")
def four_ranks() -> Iterator[RankPool]:
    """Four of them."""
    with RankPool(world=4) as pool:
        yield pool
