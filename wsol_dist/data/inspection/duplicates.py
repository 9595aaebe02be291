"""Images that a data set has twice: the same bytes, or the same picture in other bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from wsol_dist.data.inspection.survey import Survey

MAX_BITS = 6
"""Perceptual hashes of one picture differ in at most so many of 64 bits ..."""
MAX_DIFFERENCE = 4.0
"""... and their 8 x 8 thumbnails by at most so much in the mean, of 255."""
NEIGHBOURS = 256
"""Of the pictures that share a quarter of their hash, in its order, each is compared with so many next ones."""
_QUARTER_BITS = 16


@dataclass(frozen=True, kw_only=True)
class Group:
    """Two or more samples with one picture."""

    rows: tuple[int, ...]
    identical: bool
    """The same bytes; otherwise one sample stands for each set of identical ones."""
    splits: tuple[str, ...]
    """In which they are: more than one is leakage."""
    labels_differ: bool


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """What there is twice; the worst first: over splits, then under other labels, then the largest."""

    identical: list[Group]
    alike: list[Group]
    """By the hash, besides the identical ones: re-encoded and resized copies, not mirrored or cropped ones."""

    def between(self, survey: Survey) -> list[tuple[str, str, int, int]]:
        """For each ordered pair of splits: images of the first of which the second has an identical one, one alike."""
        splits = list(dict.fromkeys(survey.split.tolist()))
        rows = []
        for one in splits:
            for other in splits:
                counts = [
                    sum(
                        int((survey.split[list(group.rows)] == one).sum())
                        for group in groups
                        if one in group.splits and other in group.splits
                    )
                    for groups in (self.identical, self.alike)
                ]
                if one != other and any(counts):
                    rows.append((one, other, counts[0], counts[1]))
        return rows


def find_duplicates(survey: Survey) -> Duplicates:
    """All groups of a data set."""
    there = np.flatnonzero(survey.digest != b"")
    _, first, which = np.unique(survey.digest[there], return_index=True, return_inverse=True)
    identical = [there[rows] for rows in _groups(which)]
    single = there[np.sort(first)]
    single = single[survey.readable[single]]
    alike = [single[rows] for rows in _alike(survey.looks[single], survey.thumb[single])]
    return Duplicates(
        identical=_sorted(survey, identical, identical=True), alike=_sorted(survey, alike, identical=False)
    )


def _sorted(survey: Survey, groups: list[np.ndarray], *, identical: bool) -> list[Group]:
    found = [
        Group(
            rows=tuple(rows.tolist()),
            identical=identical,
            splits=tuple(dict.fromkeys(survey.split[rows].tolist())),
            labels_differ=len({survey.labels[row] for row in rows.tolist()}) > 1,
        )
        for rows in groups
    ]
    return sorted(
        found, key=lambda group: (-len(group.splits), not group.labels_differ, -len(group.rows), group.rows)
    )


def _groups(which: np.ndarray) -> list[np.ndarray]:
    """Positions with one number, for each number that occurs more than once."""
    order = np.argsort(which, kind="stable")
    cuts = np.flatnonzero(np.diff(which[order])) + 1
    return [part for part in np.split(order, cuts) if len(part) > 1]


def _alike(looks: np.ndarray, thumb: np.ndarray) -> list[np.ndarray]:
    """Connected groups of positions. Hashes that differ in three bits or fewer share one of their quarters."""
    pairs = [np.empty((0, 2), np.int64)]
    for quarter in range(64 // _QUARTER_BITS):
        key = (looks >> np.uint64(quarter * _QUARTER_BITS)) & np.uint64(2**_QUARTER_BITS - 1)
        order = np.lexsort((looks, key))
        at = np.arange(len(order))
        for shift in range(1, NEIGHBOURS + 1):
            at = at[at + shift < len(order)]
            at = at[key[order[at]] == key[order[at + shift]]]
            if not len(at):
                break
            one, other = order[at], order[at + shift]
            near = np.bitwise_count(looks[one] ^ looks[other]) <= MAX_BITS
            pairs.append(_same_colours(thumb, np.stack([one[near], other[near]], axis=1)))
    linked = np.concatenate(pairs)
    graph = coo_array((np.ones(len(linked)), (linked[:, 0], linked[:, 1])), shape=(len(looks),) * 2)
    return _groups(connected_components(graph, directed=False)[1])


def _same_colours(thumb: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    difference = np.abs(thumb[pairs[:, 0]].astype(np.int16) - thumb[pairs[:, 1]]).mean(axis=1)
    return pairs[difference <= MAX_DIFFERENCE]
