"""What `wsol fit` begins with: look at the folder, choose a recipe, and remember both; or go on with what was begun."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field, NonNegativeInt

from wsol_dist.errors import UserError
from wsol_dist.fitting import started as memory
from wsol_dist.fitting.boxes import find_boxes
from wsol_dist.fitting.choose import Seen, choose, configure, explain
from wsol_dist.fitting.look import Found, look
from wsol_dist.fitting.started import Started
from wsol_dist.recipe import from_dict, override, to_dict

FEW_IMAGES, VAL_FRACTION, VAL_FRACTION_OF_FEW = 500, 0.1, 0.2


@dataclass(frozen=True, kw_only=True)
class FitRequest:
    """What is to be fitted, and how, as far as it is given."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Class folders: FOLDER/CLASS/*.jpg, or FOLDER/SPLIT/CLASS/*.jpg."""
    weights: Path | None = None
    """Weights to start from: a timm checkpoint; nothing is downloaded."""
    arch: str | None = None
    """timm's name of their architecture, where it is not recognised."""
    boxes: str | None = None
    """File of boxes to score against, CSV or COCO JSON; none: use no file; by default found in FOLDER."""
    val_fraction: Annotated[float | None, Field(gt=0, lt=0.5)] = None
    """Images held out to choose by; by default 0.1, of under 500 images 0.2. With boxes as many again become the test
    split."""
    seed: NonNegativeInt | None = None
    """Of the held-out images and the training; by default 0."""
    max_bad: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of unusable images that are left out; more are an error."""

    def __post_init__(self) -> None:
        if self.arch and self.weights is None:
            raise ValueError("--arch: names the architecture of --weights, which is not given")

    @property
    def name(self) -> str:
        """What the run is called, unless its folder is given."""
        return re.sub(r"[^\w.-]+", "-", self.folder.resolve().name).strip("-") or "fit"

    def fraction(self, found: Found) -> float:
        """The share of the images that is held out."""
        if self.val_fraction is not None:
            return self.val_fraction
        return VAL_FRACTION_OF_FEW if found.num_images < FEW_IMAGES else VAL_FRACTION


def begin(given: FitRequest, run: Path, *, overrides: Sequence[str]) -> Started:
    """Look, choose, and remember both.

    Raises:
        UserError: what is wrong with the folder or the flags; nothing is written then.
    """
    root = given.folder.resolve()
    boxes = find_boxes(root, given.boxes) if root.is_dir() else None
    found = look(root, max_bad=given.max_bad)
    for note in found.notes:
        print(f"note: {note}")
    fraction = given.fraction(found)
    seen = _seen(given, found)
    row = choose(seen)
    config, changes = configure(row, seen, name=run.name, index=str(run / "shards"), seed=given.seed or 0)
    config = override(config, overrides, prog=f"wsol fit {given.folder}")
    started = Started(
        folder=str(root),
        boxes=None if boxes is None else str(boxes.resolve()),
        seed=config.seed,
        val_fraction=fraction,
        left_out=found.left_out,
        row=row.name,
        why=row.why,
        recipe=row.recipe,
        changes=changes,
        config=to_dict(config),
    )
    from wsol_dist.fitting.steps import open_source

    list(open_source(started).items())  # a split that would be empty is told before anything is written
    print(
        f"recipe {row.recipe} for {found.num_images} images of {len(found.classes)} classes: {row.why}",
        flush=True,
    )
    memory.write(run, started)
    return started


def resume(given: FitRequest, run: Path, started: Started, *, overrides: Sequence[str]) -> Started:
    """What was begun; the flags may be given again or left out.

    Raises:
        UserError: one of them differs.
    """
    from wsol_dist.training.preflight import differences

    flags = {
        "folder": str(given.folder.resolve()),
        "boxes": None if given.boxes is None or given.boxes == "none" else str(Path(given.boxes).resolve()),
        "seed": given.seed,
        "val_fraction": given.val_fraction,
    }
    memory.check_same(started, run, flags)
    begun = from_dict(started.config, origin=str(run))
    wanted = to_dict(override(begun, overrides, prog=f"wsol fit {given.folder}"))
    differing = list(differences(started.config, wanted))
    if differing:
        raise UserError(f"{run}: was begun with other knobs ({'; '.join(differing[:5])}); give another --out")
    print(f"{run}: goes on with {started.recipe} ({started.row})", flush=True)
    return Started(**{**vars(started), "config": wanted})


def explanation(given: FitRequest) -> Iterator[str]:
    """The table for this folder and what is chosen of it, in lines; nothing is written."""
    found = look(given.folder.resolve(), max_bad=given.max_bad)
    for note in found.notes:
        yield f"note: {note}"
    seen = _seen(given, found)
    yield from explain(seen)
    row = choose(seen)
    _, changes = configure(row, seen, name=given.name, index="RUN/shards", seed=given.seed or 0)
    yield f"{row.recipe} with " + ", ".join(f"{key} {value}" for key, value in changes.items())
    yield f"the recipe itself: wsol show {row.recipe}"


def _seen(given: FitRequest, found: Found) -> Seen:
    from wsol_dist.fitting.weights import recognise
    from wsol_dist.launching.submission import local_gpus

    held = 0.0 if "val" in found.splits else given.fraction(found)
    return Seen(
        num_images=max(1, round(found.num_images * (1 - held))),
        image_px=found.image_px,
        num_classes=len(found.classes),
        gpu=local_gpus() > 0,
        weights=None if given.weights is None else recognise(given.weights, given.arch),
    )
