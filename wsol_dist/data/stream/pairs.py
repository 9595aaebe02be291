"""The order of an epoch for methods that compare images: fours of two classes, each with two images (a a b b).

Every image of a four has its positive and its negative in it, so a rank that gets whole fours needs nothing of
another rank, and the loss of a global batch does not depend on how many ranks share it. Fours are made of the whole
index, not of a rank's shards: a class whose images lie in different shards loses none of them. Like the plain order
it is a pure function of seed, epoch and index.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from wsol_dist.errors import UserError

FOUR = 4
"""Rows that stay together."""


def class_fours(order: np.ndarray, label_of_row: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """Rearrange an epoch's order into fours (a a b b) of different classes; reads stay close to that order.

    Rows of a class are paired in the order given; of an odd number the class's first row comes twice. A pair joins
    the longest waiting one of another class. Pairs that are left over, all of one class, join pairs of other
    classes that come twice.

    Args:
        order: (n,) row numbers, each once.
        label_of_row: (n,) class of each row; every class that is there has two rows or more, and there are two
            classes or more (`check_classes`).

    Returns:
        (m,) int64 with m >= n, a multiple of 4; every row is there once or more.
    """
    pairs = _pairs(order, label_of_row)
    classes = label_of_row[pairs[:, 0]]
    waiting: deque[int] = deque()
    fours: list[tuple[int, int]] = []
    for number, label in enumerate(classes.tolist()):
        if waiting and classes[waiting[0]] != label:
            fours.append((waiting.popleft(), number))
        else:
            waiting.append(number)
    if waiting:
        others = np.flatnonzero(classes != classes[waiting[0]])
        partners = np.random.default_rng([seed, epoch, 1]).permutation(others)
        fours += [(number, int(partners[k % len(partners)])) for k, number in enumerate(waiting)]
    # By the place of the first: what waited to the end must not be what the last, dropped part of an epoch holds.
    return pairs[np.array(sorted(fours))].reshape(-1)


def check_classes(label_of_row: np.ndarray, classes: Sequence[str], *, split: str) -> None:
    """Refuse a split in which an image can lack a positive or a negative.

    Raises:
        UserError: a class with a single image, or fewer than two classes.
    """
    count = np.bincount(label_of_row, minlength=len(classes))
    alone = np.flatnonzero(count == 1)
    if len(alone):
        names = ", ".join(repr(classes[label]) for label in alone[:5])
        raise UserError(
            f"data.order class_pairs: a pair needs two images, split {split!r} has a single one of {names}"
            f"{' and others' if len(alone) > 5 else ''}; pack more images of them, or pack without them"
        )
    if np.count_nonzero(count) < 2:
        raise UserError(
            f"data.order class_pairs: images of two classes or more are compared, split {split!r} has "
            f"{np.count_nonzero(count)}; choose another --data.train-split"
        )


def _pairs(order: np.ndarray, label_of_row: np.ndarray) -> np.ndarray:
    """(p, 2) rows, two of a class, in the order of their first."""
    label = label_of_row[order]
    by_class = np.argsort(label, kind="stable")
    _, start, count = np.unique(label[by_class], return_index=True, return_counts=True)
    # A class of an odd number gets its first row once more, behind its last.
    odd = count % 2 == 1
    place = np.insert(by_class, (start + count)[odd], by_class[start[odd]])
    pairs = place.reshape(-1, 2)
    return order[pairs[np.argsort(pairs[:, 0], kind="stable")]].astype(np.int64)
