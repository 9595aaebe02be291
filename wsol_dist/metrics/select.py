"""What is best: one metric decides among scored checkpoints, and guards say which may not be chosen at all."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_GUARD = re.compile(r"([A-Za-z0-9_/@.]+)\s*(<=|>=|<|>)\s*(-?[0-9.]+(?:[eE]-?[0-9]+)?)")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A scored checkpoint."""

    step: int
    values: Mapping[str, float]
    """Every number of its record by name, and what else guards may ask for, such as `step`."""


@dataclass(frozen=True, kw_only=True)
class Guard:
    """A condition that a checkpoint must meet to be chosen: a score alone can be fooled, by a map of ones say."""

    name: str
    sign: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Guard:
        """`step>=500`, `mean_map <= 0.9`.

        Raises:
            ValueError: something else.
        """
        match = _GUARD.fullmatch(text.strip())
        if match is None:
            raise ValueError(
                f"a guard is NAME, one of <= >= < >, and a number, as in cls_top1>=50; got {text!r}"
            )
        return cls(name=match[1], sign=match[2], bound=float(match[3]))

    def refusal(self, values: Mapping[str, float]) -> str | None:
        """Why a checkpoint of these values may not be chosen; None if it may."""
        value = values.get(self.name)
        if value is None:
            return f"has no {self.name}, which a guard asks for"
        if not _OPERATORS[self.sign](value, self.bound):
            return f"{self.name} {value:g} is not {self.sign} {self.bound:g}"
        return None


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
