"""From class folders to a trained localizer: wsol fit FOLDER [--out RUN] [--weights FILE] [--explain] [overrides].

Checks the folder, holds images out, packs, chooses a recipe, trains, scores and writes the report, on this machine.
Started again it goes on. Boxes are only scored against: a CSV (image,x0,y0,x1,y1) or COCO JSON file in FOLDER is found.
What is no flag of its options is a knob of the recipe: --train.epochs 3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field, NonNegativeInt, PositiveInt

from wsol_dist.errors import UserError
from wsol_dist.fitting import started as memory
from wsol_dist.fitting.boxes import find_boxes
from wsol_dist.fitting.choose import Seen, choose, configure, explain
from wsol_dist.fitting.look import Found, look
from wsol_dist.fitting.started import Started
from wsol_dist.options import Overrides, Switch
from wsol_dist.recipe import override, to_dict

FEW_IMAGES, VAL_FRACTION, VAL_FRACTION_OF_FEW = 500, 0.1, 0.2


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of `wsol fit`."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Class folders: FOLDER/CLASS/*.jpg, or FOLDER/SPLIT/CLASS/*.jpg."""
    out: Path | None = None
    """Run folder; by default runs/NAME of the folder."""
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
    procs: PositiveInt | None = None
    """Training processes; by default one a GPU, else 1."""
    explain: Switch = False
    """Show the table of recipes and the row that is chosen; do nothing else."""
    overrides: Overrides = ()

    @classmethod
    def epilog(cls) -> str:
        """What the help ends with."""
        return "Every key of the chosen recipe is a flag too, such as --train.epochs 3; wsol show RECIPE lists them."


def run(options: Options) -> int:
    """Fit, or explain what would be chosen."""
    if options.arch and options.weights is None:
        raise UserError("--arch: names the architecture of --weights, which is not given")
    run = (options.out or Path("runs") / (_run_name(options.folder))).resolve()
    if options.explain:
        return _explain(options)
    begun = memory.read(run)
    started = _begin(options, run) if begun is None else _go_on(options, run, begun)
    return _steps(options, run, started)


def _steps(options: Options, run: Path, started: Started) -> int:
    from wsol_dist.fitting import steps

    source = steps.open_source(started)
    index = steps.pack(started, run, source)
    print(steps.describe_splits(index, source.known), flush=True)
    splits = steps.scored_splits(index)
    if code := steps.train_and_score(started, run, splits, procs=options.procs):
        return code
    extra = steps.scored_with_fixed(index)
    if extra and not steps.is_scored(run, extra):
        steps.score_with_fixed(run, extra)
    steps.report(run)
    for line in steps.verdict(started, run, splits + extra):
        print(line)
    print(f"Report page  {run / 'report.html'}\nnext         wsol predict {run} IMAGES --out LABELS")
    return 0


def _begin(options: Options, run: Path) -> Started:
    """Look, choose, and remember both.

    Raises:
        UserError: what is wrong with the folder or the flags; nothing is written then.
    """
    root = options.folder.resolve()
    boxes = find_boxes(root, options.boxes) if root.is_dir() else None
    found = look(root, max_bad=options.max_bad)
    for note in found.notes:
        print(f"note: {note}")
    fraction = _fraction(options, found)
    seen = _seen(options, found)
    row = choose(seen)
    config, changes = configure(
        row, seen, name=run.name, index=str(run / "shards"), seed=0 if options.seed is None else options.seed
    )
    config = override(config, options.overrides, prog=f"wsol fit {options.folder}")
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


def _go_on(options: Options, run: Path, started: Started) -> Started:
    """What was begun; the flags may be given again or left out.

    Raises:
        UserError: one of them differs.
    """
    from wsol_dist.recipe import from_dict
    from wsol_dist.training.preflight import differences

    given = {
        "folder": str(options.folder.resolve()),
        "boxes": None
        if options.boxes is None or options.boxes == "none"
        else str(Path(options.boxes).resolve()),
        "seed": options.seed,
        "val_fraction": options.val_fraction,
    }
    memory.check_same(started, run, given)
    begun = from_dict(started.config, origin=str(run))
    wanted = to_dict(override(begun, options.overrides, prog=f"wsol fit {options.folder}"))
    differing = list(differences(started.config, wanted))
    if differing:
        raise UserError(f"{run}: was begun with other knobs ({'; '.join(differing[:5])}); give another --out")
    print(f"{run}: goes on with {started.recipe} ({started.row})", flush=True)
    return Started(**{**vars(started), "config": wanted})


def _explain(options: Options) -> int:
    """Show the table for this folder; writes nothing."""
    found = look(options.folder.resolve(), max_bad=options.max_bad)
    for note in found.notes:
        print(f"note: {note}")
    seen = _seen(options, found)
    for line in explain(seen):
        print(line)
    row = choose(seen)
    _, changes = configure(
        row,
        seen,
        name=_run_name(options.folder),
        index="RUN/shards",
        seed=0 if options.seed is None else options.seed,
    )
    print(f"{row.recipe} with " + ", ".join(f"{key} {value}" for key, value in changes.items()))
    print(f"the recipe itself: wsol show {row.recipe}")
    return 0


def _seen(options: Options, found: Found) -> Seen:
    from wsol_dist.fitting.weights import recognise
    from wsol_dist.launching.submission import local_gpus

    held = 0.0 if "val" in found.splits else _fraction(options, found)
    return Seen(
        num_images=max(1, round(found.num_images * (1 - held))),
        image_px=found.image_px,
        num_classes=len(found.classes),
        gpu=local_gpus() > 0,
        weights=None if options.weights is None else recognise(options.weights, options.arch),
    )


def _fraction(options: Options, found: Found) -> float:
    if options.val_fraction is not None:
        return options.val_fraction
    return VAL_FRACTION_OF_FEW if found.num_images < FEW_IMAGES else VAL_FRACTION


def _run_name(folder: Path) -> str:
    return re.sub(r"[^\w.-]+", "-", folder.resolve().name).strip("-") or "fit"
