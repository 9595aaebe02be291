"""Where a threshold comes from: fixed, chosen on a held-out split, or the best of the scored split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from wsol_dist.regions.boxes import level_of, threshold_of

ThresholdSource = Literal["fixed", "val", "oracle", "none"]
"""`none` marks numbers that have no threshold, such as accuracies and PxAP."""


STEPS: Mapping[str, float] = {"miou": 0.01, "piou": 0.001}
"""Curves whose positions are not the 255 levels -> the threshold of each of their steps."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """The threshold that the scored split gets."""

    source: ThresholdSource
    level: int
    """0..254; -1 for an `oracle` that is not resolved yet."""
    value: float
    """The threshold itself, in [0, 1)."""
    origin: str | None = None
    """The record that a `val` threshold was read from."""
    levels: Mapping[str, int] = field(default_factory=dict)
    """For `val`: every curve's own best position there, by the curve's name."""

    def position(self, curve: str, *, fixed: int) -> int | None:
        """Where this threshold reads a curve that is not the selecting one; None where it may not or cannot.

        A held-out split chooses a position for each curve; the oracle's are each curve's own best, which have
        names of their own.

        Args:
            curve: the curve's name.
            fixed: its position for a fixed threshold.
        """
        return {"val": self.levels.get(curve), "fixed": fixed}.get(self.source)

    def resolved(self, curves: Mapping[str, np.ndarray], *, select: str, otherwise: float) -> Threshold:
        """With the level of an `oracle`: the best of the curve `select`. Without that curve nothing can be
        chosen, and it is `otherwise`, a fixed one."""
        if self.level >= 0:
            return self
        if select not in curves:
            return fixed(otherwise)
        value = best_threshold(curves[select], select)
        return replace(self, level=level_of(value), value=value)

    def to_json(self) -> dict[str, Any]:
        return {"source": self.source, "level": self.level, "value": self.value, "from": self.origin}


def fixed(value: float) -> Threshold:
    """A threshold in [0, 1) known beforehand.

    Raises:
        ValueError: outside of that range.
    """
    if not 0 <= value < 1:
        raise ValueError(f"a threshold must be in [0, 1), got {value}")
    return Threshold(source="fixed", level=level_of(value), value=value)


def oracle() -> Threshold:
    """The best threshold of the scored split itself: an upper bound, or how a held-out split chooses one."""
    return Threshold(source="oracle", level=-1, value=0.0)


def from_curves(curves: Mapping[str, list[float]], *, select: str, origin: str) -> Threshold:
    """The threshold that a held-out split chooses: the best level of the curve `select` there.

    Raises:
        ValueError: that curve is not there.
    """
    if select not in curves:
        raise ValueError(
            f"{origin}: no curve {select!r} to choose a threshold by; it has {', '.join(curves)}"
        )
    levels = {name: best_position(np.asarray(curve)) for name, curve in curves.items()}
    value = best_threshold(np.asarray(curves[select]), select)
    return Threshold(source="val", level=level_of(value), value=value, origin=origin, levels=levels)


def best_threshold(curve: np.ndarray, name: str) -> float:
    """The threshold of a curve's best position."""
    position = best_position(curve)
    return position * STEPS[name] if name in STEPS else threshold_of(position)


def best_position(curve: np.ndarray) -> int:
    """Where a curve is highest: in the middle (the lower of two) of its longest run of highest values, the
    first run of equally long ones. The middle of a plateau transfers better to other images than its edge."""
    at_top = np.concatenate([[0], curve == curve.max(), [0]]).astype(np.int8)
    edges = np.diff(at_top)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    run = int(np.argmax(ends - starts))
    return int(starts[run] + ends[run] - 1) // 2
