"""What the ranks of an evaluator are to do; picklable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wsol_dist.evaluator.identity import Identity
from wsol_dist.recipe import Config


@dataclass(frozen=True, kw_only=True)
class Work:
    """Some splits with one set of weights."""

    config: Config
    identity: Identity
    """Of weights, shards and knobs together."""
    index: str
    splits: tuple[str, ...]
    weights: Path | None
    """None: what the recipe itself names."""
    whole: bool
    """The weights are a checkpoint of ours: every tensor must be there."""
    step: int
    checkpoint: str
    threshold: str | None
    """val, oracle, fixed, a number, or None for the default."""
    folder: Path
    cure: str = "give --split {splits} without --threshold"
    """How to get a threshold from the held-out split, said where there is none."""
    save_maps: bool = False
    """Keep the score maps too, as a derived column below `eval`."""
