"""What is best: one metric decides among scored checkpoints, and guards say which may not be chosen at all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from wsol_dist.config.evaluate import Guard


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A scored checkpoint."""

    step: int
    values: Mapping[str, float]
    """Every number of its record by name, and what else guards may ask for, such as `step`."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The outcome."""

    best: Candidate | None
    """None where no candidate may be chosen."""
    refused: dict[int, str] = field(default_factory=dict)
    """Step -> the guard that acted, or what else was against it."""


def choose_best(candidates: Iterable[Candidate], *, metric: str, guards: Sequence[str] = ()) -> Choice:
    """The candidate of the highest metric among those that meet every guard; of equals the latest.

    S (equation 6 of the weight map) is 100 % for an untrained g, and stays there while no map has a second part: of
    such equals the one that was trained longest is meant.

    Raises:
        ValueError: a guard that does not parse.
    """
    parsed = [Guard.parse(text) for text in guards]
    refused: dict[int, str] = {}
    best: Candidate | None = None
    for one in sorted(candidates, key=lambda candidate: candidate.step):
        value = one.values.get(metric)
        reasons = [guard.refusal(one.values) for guard in parsed]
        reason = next((text for text in reasons if text), None)
        if value is None or not math.isfinite(value):
            reason = f"has no {metric}"
        if reason is not None:
            refused[one.step] = reason
        elif best is None or value >= best.values[metric]:  # type: ignore[operator]
            best = one
    return Choice(best=best, refused=refused)
