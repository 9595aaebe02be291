"""As a task of the job: say node, GPU and samples of this rank: wsol ranks tell RUN."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of `wsol ranks tell`."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder, as wsol ranks prepare writes it."""


def run(options: Options) -> int:
    """Write this rank's record and print its line."""
    from wsol_dist.launching.rank_report import tell

    print(tell(options.folder).line(), flush=True)
    return 0
