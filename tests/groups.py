"""Which tests run one after the other in one worker of pytest-xdist, and in which order the groups are begun.

Its own way, `--dist=loadgroup`, changes names of tests where pytest 9.2 no longer looks for them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from wsol_dist.files import write_atomically

FILE_VARIABLE = "WSOL_TEST_GROUPS"
"""Environment variable: the file in which workers, which see the tests, list their groups for the scheduler."""
POOLS = ("pool", "rank_pool", "four_ranks")
FIRST = ("slurm", "ranks", "tests/e2e/reliability", "tests/e2e/test_docs", "tests/e2e", "tests/dist")
"""What a group's name begins with -> its turn. The longest first: what is short fills the end."""


def group_of(item: pytest.Item) -> str:
    """Its file, whose fixtures may be costly; but one group for all tests that share a pool of ranks, one for those
    of `slurm(NUMBER)`, which share a cluster, and one for each test that is marked `apart` and shares nothing."""
    if (slurm := item.get_closest_marker("slurm")) is not None:
        return f"slurm {slurm.args[0] if slurm.args else 1}"
    if any(pool in getattr(item, "fixturenames", ()) for pool in POOLS):
        return "ranks"
    return item.nodeid if item.get_closest_marker("apart") else item.nodeid.partition("::")[0]


def sort_key(item: pytest.Item) -> tuple[int, str]:
    """What to sort by; tests of a group stay in the order they were written in."""
    group = group_of(item)
    return next((number for number, name in enumerate(FIRST) if group.startswith(name)), len(FIRST)), group


def write_groups(items: list[pytest.Item]) -> None:
    """In a worker: write which test is of which group."""
    found = {item.nodeid: group_of(item) for item in items}
    write_atomically(Path(os.environ[FILE_VARIABLE]), json.dumps(found).encode(), sync=False)


class GroupScheduling(LoadScopeScheduling):
    """Gives a worker one group after the other."""

    def _split_scope(self, nodeid: str) -> str:
        return self._groups()[nodeid]

    def _groups(self) -> dict[str, Any]:
        if not hasattr(self, "_read"):
            self._read = json.loads(Path(os.environ[FILE_VARIABLE]).read_text())
        return self._read
