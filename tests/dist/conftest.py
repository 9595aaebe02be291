"""One pool of gloo ranks for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pool import RankPool


@pytest.fixture(scope="package")
def rank_pool() -> Iterator[RankPool]:
    """Two gloo ranks. They end with the last test of this folder: by then they hold gigabytes that others need."""
    pool = RankPool(world=2)
    yield pool
    pool.close()
