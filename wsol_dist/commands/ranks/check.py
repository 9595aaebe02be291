"""All ranks together: every sample once, and does it fit into memory: wsol ranks check RUN [--ranks-per-node N]."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import PositiveInt


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of `wsol ranks check`."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder, as wsol ranks prepare writes it."""
    ranks_per_node: PositiveInt | None = None
    """Processes that train on each node; by default one a task."""


def run(options: Options) -> int:
    """Print a line for each finding."""
    from wsol_dist.launching.rank_report import check

    for line in check(options.folder, ranks_per_node=options.ranks_per_node):
        print(line, flush=True)
    return 0
