"""Images that do not decode: each is named once, and more than the allowed share of them ends the work."""

from __future__ import annotations

import math
from collections.abc import Iterable

from wsol_dist.errors import UserError

MAX_NAMED = 10
"""How many are named in one line."""


class BrokenImages:
    """The count that packing, training and evaluation keep."""

    def __init__(self, *, num_samples: int, max_bad: float, option: str) -> None:
        """`max_bad` is a share of the samples, rounded up to whole images; `option` is what it is called."""
        self.num_samples, self.max_bad, self.option = num_samples, max_bad, option
        # Rounded first: 0.1 x 30 is a little more than 3 in binary.
        self.allowed = math.ceil(round(max_bad * num_samples, 6))
        self.ids: list[str] = []

    def add(self, ids: Iterable[str]) -> list[str]:
        """Count images; returns those that were not counted before."""
        new = [one for one in dict.fromkeys(ids) if one not in self.ids]
        self.ids += new
        return new

    def check(self, cure: str) -> None:
        """End with the list where there are too many.

        Args:
            cure: what to do about them.

        Raises:
            UserError: more than `max_bad` of the samples.
        """
        if len(self.ids) > self.allowed:
            raise UserError(
                f"{len(self.ids)} of {self.num_samples} images do not decode, {self.option} {self.max_bad:g} allows "
                f"{self.allowed}: {name_some(self.ids)}; {cure}, or raise {self.option}"
            )


def name_some(ids: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(ids) - MAX_NAMED} more" if len(ids) > MAX_NAMED else ""
    return ", ".join(ids[:MAX_NAMED]) + more
