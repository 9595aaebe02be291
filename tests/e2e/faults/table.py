"""All rows, and the page made of them: `python -m tests.e2e.faults.table` writes docs/faults.md."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.faults.clusters import CLUSTERS
from tests.e2e.faults.fault import Fault, render
from tests.e2e.faults.given import COMMANDS, RECIPES, WEIGHTS
from tests.e2e.faults.labels import LABELS
from tests.e2e.faults.machine import MACHINE
from tests.e2e.faults.remote import REMOTE
from tests.e2e.faults.shards import IMAGES, PACKING, SHARDS

PAGE = Path(__file__).parents[3] / "docs" / "faults.md"
SECTIONS = {
    "Commands": ("`submit` is `python launch/submit.py`.", COMMANDS),
    "Recipes": ("Several mistakes in one recipe are told at once, a line each.", RECIPES),
    "Weights and other classes": ("", WEIGHTS),
    "Packing": ("", PACKING),
    "Images": (
        "`max_bad` is a share of the images, rounded up: with the default 0.001 one image of fewer than a thousand.",
        IMAGES,
    ),
    "Shards": (
        "Every start checks that all tars are there in full length. A truncated or missing tar, or an index of a\n"
        "newer schema, ends the run at once with its name: this is by design, since a whole shard is no small share\n"
        "of the data. Images that are damaged inside whole tars do not: they count against `data.max_bad`.",
        SHARDS,
    ),
    "Shards behind an address": (
        "Each tar is fetched whole at its first use, and checked against the index's length and sha256.",
        REMOTE,
    ),
    "Label maps": ("", CLUSTERS),
    "From class folders to labels": ("`fit`, `predict`, `review` and `export`.", LABELS),
    "Machines": ("", MACHINE),
}
FAULTS = [fault for _, faults in SECTIONS.values() for fault in faults]


def fault(what: str) -> Fault:
    """The row of a name."""
    (found,) = [one for one in FAULTS if one.what == what]
    return found


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render(SECTIONS), encoding="utf-8")
