"""What the benches share: interleaved medians, the machine in words, the line that a ratio is printed as."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import torch

from wsol_dist.data.packing.parallel import num_cores

Taken = TypeVar("Taken")


def machine(device: str = "cpu") -> str:
    """Cores or card, and the versions that matter: what a figure is worth nothing without."""
    what = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{num_cores()} CPU cores"
    return f"{what}, Python {platform.python_version()}, torch {torch.__version__}"


def seconds(run: Callable[[], object], device: str = "cpu") -> float:
    """Wall time of one call, up to the device's last kernel."""
    wait_for(device)
    start = time.perf_counter()
    run()
    wait_for(device)
    return time.perf_counter() - start


def wait_for(device: str) -> None:
    """Let the device finish what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def interleaved(measures: Mapping[str, Callable[[], float]], *, repeats: int) -> dict[str, float]:
    """Medians of measurements taken in turn."""
    return {name: statistics.median(taken) for name, taken in in_turn(measures, repeats=repeats).items()}


def in_turn(measures: Mapping[str, Callable[[], Taken]], *, repeats: int) -> dict[str, list[Taken]]:
    """Measurements taken in turn, so that what else the machine does meets all of them alike."""
    taken: dict[str, list[Taken]] = {name: [] for name in measures}
    for _ in range(repeats):
        for name, measure in measures.items():
            taken[name].append(measure())
    return taken


def median_ratio(above: Iterable[float], below: Iterable[float]) -> float:
    """Median over the turns of the ratio within a turn: of a machine that others use, too, the steadiest figure."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def print_ratio(name: str, value: float, *, peer: str) -> None:
    """`ratio NAME VALUE vs PEER`: above 1, ours is the better one."""
    assert " " not in name, name
    print(f"ratio {name} {value:.2f} vs {peer}", flush=True)
