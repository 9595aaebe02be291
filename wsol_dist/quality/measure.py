"""What judged boxes say to a person: how often a score is right, which boxes to keep, what a review buys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, hypergeom, rankdata

from wsol_dist.prediction.doubt import review_order, shown_doubt

NUM_BINS = 10
COVERAGE = 0.95
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
"""Of the boxes, that a review looks at."""
WANTED = (0.8, 0.9, 0.95, 0.99)
"""Precisions that a person may want."""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Boxes whose value lies in a range."""

    low: float
    high: float
    """Ends of the range; of a tenth, its least and largest value."""
    mean: float
    """Of the values."""
    num_boxes: int
    num_right: int
    share_low: float
    share_high: float
    """Wilson interval of the share that is right."""
    num_above: int
    right_above: int
    """In this bin and all above."""

    @property
    def share(self) -> float:
        return self.num_right / self.num_boxes


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The least doubtful boxes, as many as have the wanted precision."""

    wanted: float
    most_doubt: float | None
    """Keep boxes of at most this doubt; None where no number of boxes has it."""
    num_boxes: int
    num_right: int


@dataclass(frozen=True, kw_only=True)
class Reviewed:
    """After a person has looked at some boxes and mended each wrong one."""

    num_reviews: int
    num_right: int
    """Boxes that are right then, the most doubtful reviewed first."""
    right_random: float
    random_low: float
    random_high: float
    """In a random order: the mean, and the range of 95 % of all orders."""
    right_best: int
    """By somebody who knows which are wrong."""


@dataclass(frozen=True, kw_only=True)
class Reached:
    """Reviews until a precision is reached."""

    wanted: float
    by_doubt: int
    at_random: int
    """On average over all orders."""
    at_best: int


def tenths(value: np.ndarray, right: np.ndarray) -> list[Bin]:
    """Ten groups of boxes of nearly equal size by a value, the lowest first; equal values may part."""
    order = np.argsort(value, kind="stable")
    groups = [group for group in np.array_split(order, min(NUM_BINS, len(order))) if len(group)]
    return _bins(value, right, groups, [(value[group[0]], value[group[-1]]) for group in groups])


def reliability(value: np.ndarray, right: np.ndarray) -> list[Bin]:
    """Boxes by a value in [0, 1] in ten ranges of equal width, the lowest first; empty ranges are left out."""
    number = np.clip((value * NUM_BINS).astype(int), 0, NUM_BINS - 1)
    there = np.unique(number).tolist()
    ranges = [(at / NUM_BINS, (at + 1) / NUM_BINS) for at in there]
    return _bins(value, right, [np.flatnonzero(number == at) for at in there], ranges)


def calibration_error(bins: Sequence[Bin]) -> float:
    """Mean distance between the value and the share that is right, weighted by boxes (ECE; Guo et al. 2017, eq. 5)."""
    return sum(one.num_boxes * abs(one.share - one.mean) for one in bins) / sum(one.num_boxes for one in bins)


def sorting_power(value: np.ndarray, right: np.ndarray) -> float | None:
    """Chance that a right box has a higher value than a wrong one, ties half (area under the ROC curve).

    None where all are right, or all wrong.
    """
    num_right = int(right.sum())
    num_wrong = len(right) - num_right
    if not num_right or not num_wrong:
        return None
    above = rankdata(value)[right].sum() - num_right * (num_right + 1) / 2
    return float(above / (num_right * num_wrong))


def kept(doubt: np.ndarray, right: np.ndarray) -> list[Kept]:
    """For each wanted precision the most of the least doubtful boxes that have it; boxes of one doubt stay together."""
    doubt = shown_doubt(doubt)
    order = np.argsort(doubt, kind="stable")
    last = np.append(np.diff(doubt[order]) > 0, True)
    num_right = np.cumsum(right[order])
    num_boxes = np.arange(1, len(order) + 1)
    found = []
    for wanted in WANTED:
        good = np.flatnonzero(last & (num_right >= wanted * num_boxes))
        at = int(good[-1]) if len(good) else -1
        found.append(
            Kept(
                wanted=wanted,
                most_doubt=None if at < 0 else float(doubt[order[at]]),
                num_boxes=at + 1,
                num_right=0 if at < 0 else int(num_right[at]),
            )
        )
    return found


def reviews(doubt: np.ndarray, right: np.ndarray, *, shares: Sequence[float] = SHARES) -> list[Reviewed]:
    """A review of more and more boxes, in which each wrong box that is looked at is mended.

    Args:
        shares: of the boxes, that are looked at.
    """
    num_boxes, num_right = len(right), int(right.sum())
    num_wrong = num_boxes - num_right
    mended = np.append(0, np.cumsum(~right[review_order(doubt)]))
    rows = []
    for count in sorted({round(share * num_boxes) for share in shares}):
        low, high = hypergeom(num_boxes, num_wrong, count).interval(COVERAGE)
        rows.append(
            Reviewed(
                num_reviews=count,
                num_right=num_right + int(mended[count]),
                right_random=num_right + num_wrong * count / num_boxes,
                random_low=num_right + float(low),
                random_high=num_right + float(high),
                right_best=num_right + min(count, num_wrong),
            )
        )
    return rows


def reached(doubt: np.ndarray, right: np.ndarray) -> list[Reached]:
    """How many reviews each wanted precision takes."""
    num_boxes, num_right = len(right), int(right.sum())
    num_wrong = num_boxes - num_right
    mended = np.append(0, np.cumsum(~right[review_order(doubt)]))
    found = []
    for wanted in WANTED:
        missing = max(0, int(np.ceil(wanted * num_boxes - 1e-9)) - num_right)
        found.append(
            Reached(
                wanted=wanted,
                by_doubt=int(np.argmax(mended >= missing)),
                # The place of the m-th wrong box of w among n, on average: m (n + 1) / (w + 1).
                at_random=round(missing * (num_boxes + 1) / (num_wrong + 1)),
                at_best=missing,
            )
        )
    return found


def _bins(
    value: np.ndarray, right: np.ndarray, groups: Sequence[np.ndarray], ranges: Sequence[tuple[float, float]]
) -> list[Bin]:
    num_boxes = [len(group) for group in groups]
    num_right = [int(right[group].sum()) for group in groups]
    found = []
    for at, (group, (low, high)) in enumerate(zip(groups, ranges, strict=True)):
        interval = binomtest(num_right[at], num_boxes[at]).proportion_ci(COVERAGE, method="wilson")
        found.append(
            Bin(
                low=float(low),
                high=float(high),
                mean=float(value[group].mean()),
                num_boxes=num_boxes[at],
                num_right=num_right[at],
                share_low=float(interval.low),
                share_high=float(interval.high),
                num_above=sum(num_boxes[at:]),
                right_above=sum(num_right[at:]),
            )
        )
    return found
