"""How many images a data set is known to have, beside how many were found."""

from __future__ import annotations

from collections.abc import Mapping

CLASSES = "classes"
"""Among the splits, the number of classes."""
IMAGES = "images"
"""Among the splits, the number of all images, also of those in none: `Source.found_counts` has what was found."""


def difference(found: Mapping[str, int], known: Mapping[str, int]) -> str:
    """One line that names every split with another number of images than is known; empty where none has.

    Args:
        found: images by split, before a val split is held out, and the number of `CLASSES` and perhaps of `IMAGES`.
        known: the same by the data set's authors; what it does not name is not compared.
    """
    parts = [
        f"{found.get(name, 0):,} of {count:,} {name if name in (CLASSES, IMAGES) else f'{name} images'}"
        for name, count in known.items()
        if found.get(name, 0) != count
    ]
    return f"not the whole data set: {', '.join(parts)}" if parts else ""
