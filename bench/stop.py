"""A training step that asks all ranks whether one of them was told to stop, against the same step that does not.

The step is what data-parallel training costs: matrix products on each rank and an all-reduce of gradients, over gloo.
The second peer asks in the plain way, an all-reduce of a flag that is waited for at once. All three are measured in
turn; what ours gives is asserted first: each rank learns of another's signal behind the next step.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
import tyro
from _measure import in_turn, machine, median_ratio, print_ratio

from wsol_dist.processes.ranks import Ranks
from wsol_dist.processes.spawn import spawn


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    ranks: int = 2
    """Processes of this machine."""
    gradients: int = 1_000_000
    """Elements that each step reduces."""
    steps: int = 100
    """Of each measurement."""
    repeats: int = 7
    """Measurements of each, taken in turn; the median of the ratios counts."""
    quick: bool = False
    """One tiny measurement, to see that the script runs."""


def measure(own: Ranks, options: Options) -> None:
    """What each rank does; the first prints."""
    answer = own.begin_max(own.rank)
    assert answer() == own.world - 1
    weight, gradient = torch.randn(256, 256), torch.randn(options.gradients)

    def seconds(how: str) -> float:
        own.barrier()
        start, pending = time.perf_counter(), None
        for _ in range(options.steps):
            for _ in range(8):
                weight @ weight
            dist.all_reduce(gradient)
            if how == "ours":
                assert pending is None or pending() == 0
                pending = own.begin_max(0)
            elif how == "waits":
                assert own.begin_max(0)() == 0
        if pending is not None:
            pending()
        return time.perf_counter() - start

    taken = in_turn(
        {how: partial(seconds, how) for how in ("never", "waits", "ours")}, repeats=options.repeats
    )
    if own.is_main:
        times = {how: sorted(some)[len(some) // 2] / options.steps * 1e3 for how, some in taken.items()}
        print(f"{machine()}, {own.world} gloo ranks, {options.gradients} gradients; median ms a step:")
        print(", ".join(f"{how} {ms:.2f}" for how, ms in times.items()))
        print_ratio(
            "stop-none", median_ratio(taken["never"], taken["ours"]), peer="the same step without asking"
        )
        print_ratio(
            "stop-waiting", median_ratio(taken["waits"], taken["ours"]), peer="a flag waited for at once"
        )


def main(options: Options) -> None:
    """Start the ranks."""
    if options.quick:
        options = Options(steps=3, repeats=1, gradients=1000)
    spawn(measure, options.ranks, options)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
