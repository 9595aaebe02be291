"""Which tests run one after the other in one worker of pytest-xdist, and in which order the groups are begun."""

from __future__ import annotations

import pytest

POOLS = ("pool", "rank_pool", "four_ranks")
FIRST = (
    "slurm",
    "ranks",
    "tests/e2e/reliability",
    "tests/e2e/test_docs",
    "tests/e2e",
    "tests/dist",
    "tests/unit/test_bench",
)
"""What a group's name begins with -> its turn. The longest first: what is short fills the end."""


def group_of(item: pytest.Item) -> str:
    """Its file, whose fixtures may be costly; but one group for all tests that share a pool of ranks, one for those
    of `slurm(NUMBER)`, which share a cluster, and one for each test that is marked `apart` and shares nothing."""
    if (slurm := item.get_closest_marker("slurm")) is not None:
        return f"slurm {slurm.args[0] if slurm.args else 1}"
    if any(pool in getattr(item, "fixturenames", ()) for pool in POOLS):
        return "ranks"
    file = item.nodeid.partition("::")[0]
    return item.nodeid.replace("@", "-") if item.get_closest_marker("apart") else file


def turn(item: pytest.Item) -> tuple[int, str]:
    """What to sort by; tests of a group stay in the order they were written in."""
    marker = item.get_closest_marker("xdist_group")
    assert marker is not None
    group = marker.args[0]
    return next((number for number, name in enumerate(FIRST) if group.startswith(name)), len(FIRST)), group
