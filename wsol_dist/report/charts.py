"""Line charts without a library: numbers -> positions in percent, which the page draws at any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

Point = tuple[float, float]
MAX_POINTS = 600
FEW_POINTS = 12
"""Lines of up to so many points show each as a dot."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line."""

    name: str
    points: list[Point]
    """By ascending x; a y that is not finite breaks the line."""
    color: int = 0
    """Number of a colour of the page, from 0."""
    faint: bool = False
    """Drawn thin behind the others and left out of the legend: raw values behind a smoothed line."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A vertical line at x with a label, and a dot on the curve where y is given."""

    x: float
    label: str
    y: float | None = None
    color: int = 0


@dataclass(frozen=True, kw_only=True)
class Level:
    """A dashed horizontal line at y with a label."""

    y: float
    label: str
    color: int = 0


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A filled bar that stands on zero."""

    x0: float
    x1: float
    y: float
    title: str
    """Said where the pointer rests on it."""
    faint: bool = False


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart ready to draw; all positions in percent of the plot area, from the upper left corner."""

    title: str
    x_label: str
    y_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[tuple[Series, str]]
    """Each with its SVG path."""
    dots: list[tuple[Series, float, float]]
    marks: list[tuple[Mark, float, float | None]]
    levels: list[tuple[Level, float]]
    bars: list[tuple[Bar, float, float, float]] = field(default_factory=list)
    """Each with its left edge, width and height."""
    readout: dict[str, object] = field(default_factory=dict)
    """What the page's script needs to name the values under the pointer."""
    note: str = ""
    """A sentence below it."""


def chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str = "step",
    y_label: str = "",
    marks: Sequence[Mark] = (),
    levels: Sequence[Level] = (),
    bars: Sequence[Bar] = (),
    x_range: Point | None = None,
    zero: bool = False,
) -> Chart | None:
    """Lays out a chart; None where there is neither a finite point nor a bar to draw.

    Args:
        x_range: fixed ends of the x axis; None for the ends of the data.
        zero: whether the y axis starts at 0.
    """
    drawn = [s for s in series if any(math.isfinite(y) for _, y in s.points)]
    if not drawn and not bars:
        return None
    xs = [x for s in drawn for x, _ in s.points] + [x for bar in bars for x in (bar.x0, bar.x1)]
    ys = [y for s in drawn for _, y in s.points if math.isfinite(y)]
    ys += [level.y for level in levels] + [bar.y for bar in bars]
    zero = zero or bool(bars)
    low, high = min(ys), max(ys)
    y_ticks = ticks(min(0.0, low) if zero else low, high)
    left, right = x_range or (min(xs), max(xs))
    right = right if right > left else left + 1
    bottom, top = min(y_ticks[0], low), max(y_ticks[-1], high)

    def px(x: float) -> float:
        return round(100 * (x - left) / (right - left), 3)

    def py(y: float) -> float:
        return round(100 * (top - y) / (top - bottom), 3)

    return Chart(
        title=title,
        x_label=x_label,
        y_label=y_label,
        x_ticks=[(px(x), text) for x, text in labelled(ticks(left, right)) if left <= x <= right],
        y_ticks=[(py(y), text) for y, text in labelled(y_ticks)],
        lines=[(s, _path([(px(x), py(y)) for x, y in s.points])) for s in drawn],
        dots=[
            (s, px(x), py(y))
            for s in drawn
            if len(s.points) <= FEW_POINTS
            for x, y in s.points
            if math.isfinite(y)
        ],
        marks=[(mark, px(mark.x), None if mark.y is None else py(mark.y)) for mark in marks],
        levels=[(level, py(level.y)) for level in levels],
        bars=[
            (bar, px(bar.x0), round(px(bar.x1) - px(bar.x0), 3), round(py(0) - py(bar.y), 3)) for bar in bars
        ],
        readout=readout_of(drawn, x_range=(left, right), x_label=x_label),
    )


def ticks(low: float, high: float, *, wanted: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that enclose low and high."""
    if high <= low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def labelled(values: list[float]) -> list[tuple[float, str]]:
    """Each with its text, all with as many decimals as their distance needs."""
    step = values[1] - values[0] if len(values) > 1 else 1.0
    largest = max(abs(value) for value in values)
    if largest >= 1e5 or 0 < largest < 1e-4:
        return [(value, f"{value:.0e}" if value else "0") for value in map(_clean, values)]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(value, f"{_clean(value):.{decimals}f}") for value in values]


def thinned(points: list[Point], *, most: int = MAX_POINTS) -> list[Point]:
    """At most that many points: means of equal stretches; shorter lines stay as they are."""
    if len(points) <= most:
        return points
    size = math.ceil(len(points) / most)
    parts = [points[at : at + size] for at in range(0, len(points), size)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


def smoothed(points: list[Point]) -> list[Point]:
    """Mean over a centred window of a twentieth of the line, shorter at both ends: nothing lags."""
    reach, out = max(1, len(points) // 40), []
    for at, (x, _) in enumerate(points):
        span = min(reach, at, len(points) - 1 - at)
        near = [y for _, y in points[at - span : at + span + 1] if math.isfinite(y)]
        out.append((x, sum(near) / len(near) if near else math.nan))
    return out


def _clean(value: float) -> float:
    return value + 0.0 if abs(value) > 1e-12 else 0.0


def _path(points: list[Point]) -> str:
    parts, pen_up = [], True
    for x, y in points:
        if not math.isfinite(y):
            pen_up = True
            continue
        parts.append(f"{'M' if pen_up else 'L'}{x:g} {y:g}")
        pen_up = False
    return "".join(parts)


def readout_of(series: Sequence[Series], *, x_range: Point, x_label: str) -> dict[str, object]:
    """The values that the page's script shows under the pointer, for lines that are not faint."""
    lines = [
        {
            "name": s.name,
            "color": s.color,
            "points": [[x, float(f"{y:.4g}")] for x, y in s.points if math.isfinite(y)],
        }
        for s in series
        if not s.faint
    ]
    return {"left": x_range[0], "right": x_range[1], "x": x_label, "lines": lines}
