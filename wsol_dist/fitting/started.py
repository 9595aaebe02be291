"""What a fit decided when it began (`RUN/fit.json`), so that the same command goes on with it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsol_dist.errors import UserError
from wsol_dist.files import write_atomically

FILE = "fit.json"


@dataclass(frozen=True, kw_only=True)
class Started:
    """Everything the steps need; plain JSON."""

    folder: str
    """The class folders, absolute."""
    boxes: str | None
    """File of boxes, absolute."""
    seed: int
    val_fraction: float
    left_out: dict[str, str]
    """Images that are not used, and why."""
    row: str
    """Of the table of recipes."""
    why: str
    recipe: str
    changes: dict[str, Any]
    """Of the recipe, by dotted key."""
    config: dict[str, Any]
    """Resolved, with the overrides of the command line."""


def write(run: Path, started: Started) -> None:
    """Remember it; from here on the run folder is this fit's."""
    run.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dataclasses.asdict(started), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(run / FILE, text.encode() + b"\n")


def read(run: Path) -> Started | None:
    """None where nothing was started.

    Raises:
        UserError: the folder is somebody else's, or the file is damaged.
    """
    if not (run / FILE).is_file():
        if run.is_file() or (run.is_dir() and any(run.iterdir())):
            raise UserError(f"--out {run}: is not empty and no fit was begun in it; give another folder")
        return None
    try:
        return Started(**json.loads((run / FILE).read_bytes()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{run / FILE}: damaged ({error}); remove {run} and fit again") from error


def check_same(started: Started, run: Path, given: dict[str, Any]) -> None:
    """Refuse to go on with other arguments than it was begun with.

    Args:
        given: by name of `Started`; None for what was not given.

    Raises:
        UserError: names the first difference.
    """
    for name, value in given.items():
        before = getattr(started, name)
        if value is not None and value != before:
            raise UserError(
                f"{run}: was begun with {name.replace('_', ' ')} {before}, now {value} is given; "
                "leave it as it was, or give another --out"
            )
