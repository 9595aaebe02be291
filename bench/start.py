"""What a command costs before it works: showing a recipe, explaining its knobs, refusing a flag that there is not.

Each is a fresh process, and what counts is its processor time, user and system: on a shared login node that is what
it takes from others. The first peer imports torch and does nothing else: what a command costs at least that imports it
before it reads its arguments. The second is the help of torch's own launcher. Asserted first: each does what it should.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from dataclasses import dataclass
from functools import partial

import tyro
from _measure import in_turn, machine, median_ratio, print_ratio

WSOL = [sys.executable, "-m", "wsol_dist.cli"]
OURS = {
    "show": ([*WSOL, "show", "quickstart"], 0, "name: quickstart"),
    "help": ([*WSOL, "train", "quickstart", "--help"], 0, "--train.epochs"),
    "bad-flag": ([*WSOL, "train", "quickstart", "--train.epoch", "3"], 2, "did you mean '--train.epochs'?"),
}
"""Command, exit code, and words of what it says."""
PEERS = {
    "python -c 'import torch'": ([sys.executable, "-c", "import torch"], 0, ""),
    "torchrun --help": ([sys.executable, "-m", "torch.distributed.run", "--help"], 0, "--nproc-per-node"),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    repeats: int = 7
    """Processes of each, taken in turn; the median counts."""
    quick: bool = False
    """One process of each, to see that the script runs."""


def cpu_seconds(command: list[str], code: int, words: str) -> float:
    """Processor time of a fresh process, its own children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Without COLUMNS the help is as wide as the terminal, if there is one.
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "100"}
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == code, done.stderr
    assert words in done.stdout + done.stderr, words
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(options: Options) -> None:
    """Print the medians, then the ratios."""
    measures = {name: partial(cpu_seconds, *what) for name, what in (OURS | PEERS).items()}
    for measure in measures.values():
        measure()  # once, so that no file is read from the disk, and what Python compiles is there
    taken = in_turn(measures, repeats=1 if options.quick else options.repeats)
    print(f"{machine()}; median CPU-seconds of a process:")
    for name, (command, *_) in (OURS | PEERS).items():
        said = " ".join(["wsol", *command[3:]]) if name in OURS else name
        print(f"  {statistics.median(taken[name]):.2f}  {said}")
    for peer, short in zip(PEERS, ("torch", "torchrun"), strict=True):
        for name in OURS:
            print_ratio(f"start-{name}-{short}", median_ratio(taken[peer], taken[name]), peer=peer)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
