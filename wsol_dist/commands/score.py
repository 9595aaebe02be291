"""Score maps that other code wrote: wsol score --maps DIR|TAR --index SHARDS --split test [--val-maps DIR|TAR].

A map is ID.npy (float or uint8, two-dimensional, any size), one for each image of the split, in a folder, in a tar,
or as --save-maps of wsol evaluate wrote them. The same protocols, record, rows and rules for thresholds as for our
own methods: --val-maps are the maps of the held-out split, which choose the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import PositiveInt

from wsol_dist.evaluator.plan_maps import MapsToScore, plan_maps
from wsol_dist.options import FLAT


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of `wsol score`."""

    maps: Annotated[MapsToScore, FLAT]
    procs: PositiveInt = 1
    """Processes on this machine."""


def run(options: Options) -> int:
    """Score the maps."""
    task = plan_maps(options.maps)
    from wsol_dist.evaluator.choose_threshold import check_thresholds
    from wsol_dist.evaluator.given_maps import check_given, run_given
    from wsol_dist.processes.spawn import spawn

    check_thresholds(task.work)
    check_given(task)
    spawn(run_given, options.procs, task)
    return 0
