"""From class folders to a trained localizer: wsol fit FOLDER [--out RUN] [--weights FILE] [--explain] [overrides].

Checks the folder, holds images out, packs, chooses a recipe, trains, scores and writes the report, on this machine.
Started again it goes on. Boxes are only scored against: a CSV (image,x0,y0,x1,y1) or COCO JSON file in FOLDER is found.
What is no flag of its own is a knob of the recipe: --train.epochs 3.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from wsol_dist.errors import UserError
from wsol_dist.fitting import started as memory
from wsol_dist.fitting.boxes import find_boxes
from wsol_dist.fitting.choose import Seen, choose, configure, explain
from wsol_dist.fitting.look import Found, look
from wsol_dist.fitting.started import Started
from wsol_dist.options import check_least, split_arguments
from wsol_dist.recipe import override, to_dict

FEW_IMAGES, VAL_FRACTION, VAL_FRACTION_OF_FEW = 500, 0.1, 0.2


def main(argv: list[str]) -> int:
    """Entry of `wsol fit`."""
    parser = _parser()
    if not argv or argv[0] in ("-h", "--help"):
        parser.print_help()
        return 0 if argv else 2
    own, rest = split_arguments(parser, argv)
    check_least(own, {"procs": 1, "seed": 0})
    _check_shares(own)
    run = (own.out or Path("runs") / (_run_name(own.folder))).resolve()
    if own.explain:
        return _explain(own)
    begun = memory.read(run)
    started = _begin(own, rest, run) if begun is None else _go_on(own, rest, run, begun)
    return _steps(own, run, started)


def _steps(own: argparse.Namespace, run: Path, started: Started) -> int:
    from wsol_dist.fitting import steps

    source = steps.open_source(started)
    index = steps.pack(started, run, source)
    print(steps.describe_splits(index, source.known), flush=True)
    splits = steps.scored_splits(index)
    if code := steps.train_and_score(started, run, splits, procs=own.procs):
        return code
    extra = steps.scored_with_fixed(index)
    if extra and not steps.is_scored(run, extra):
        steps.score_with_fixed(run, extra)
    steps.report(run)
    for line in steps.verdict(started, run, splits + extra):
        print(line)
    print(f"Report page  {run / 'report.html'}\nnext         wsol predict {run} IMAGES --out LABELS")
    return 0


def _begin(own: argparse.Namespace, rest: list[str], run: Path) -> Started:
    """Look, choose, and remember both.

    Raises:
        UserError: what is wrong with the folder or the flags; nothing is written then.
    """
    root = own.folder.resolve()
    boxes = find_boxes(root, own.boxes) if root.is_dir() else None
    found = look(root, max_bad=own.max_bad)
    for note in found.notes:
        print(f"note: {note}")
    fraction = _fraction(own, found)
    seen = _seen(own, found)
    row = choose(seen)
    config, changes = configure(
        row, seen, name=run.name, index=str(run / "shards"), seed=0 if own.seed is None else own.seed
    )
    config = override(config, rest, prog=f"wsol fit {own.folder}")
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


def _go_on(own: argparse.Namespace, rest: list[str], run: Path, started: Started) -> Started:
    """What was begun; the flags may be given again or left out.

    Raises:
        UserError: one of them differs.
    """
    from wsol_dist.recipe import from_dict
    from wsol_dist.training.preflight import differences

    given = {
        "folder": str(own.folder.resolve()),
        "boxes": None if own.boxes is None or own.boxes == "none" else str(Path(own.boxes).resolve()),
        "seed": own.seed,
        "val_fraction": own.val_fraction,
    }
    memory.check_same(started, run, given)
    begun = from_dict(started.config, origin=str(run))
    wanted = to_dict(override(begun, rest, prog=f"wsol fit {own.folder}"))
    differing = list(differences(started.config, wanted))
    if differing:
        raise UserError(f"{run}: was begun with other knobs ({'; '.join(differing[:5])}); give another --out")
    print(f"{run}: goes on with {started.recipe} ({started.row})", flush=True)
    return Started(**{**vars(started), "config": wanted})


def _explain(own: argparse.Namespace) -> int:
    """Show the table for this folder; writes nothing."""
    found = look(own.folder.resolve(), max_bad=own.max_bad)
    for note in found.notes:
        print(f"note: {note}")
    seen = _seen(own, found)
    for line in explain(seen):
        print(line)
    row = choose(seen)
    _, changes = configure(
        row, seen, name=_run_name(own.folder), index="RUN/shards", seed=0 if own.seed is None else own.seed
    )
    print(f"{row.recipe} with " + ", ".join(f"{key} {value}" for key, value in changes.items()))
    print(f"the recipe itself: wsol show {row.recipe}")
    return 0


def _seen(own: argparse.Namespace, found: Found) -> Seen:
    from wsol_dist.fitting.weights import recognise
    from wsol_dist.launching.submission import local_gpus

    held = 0.0 if "val" in found.splits else _fraction(own, found)
    return Seen(
        num_images=max(1, round(found.num_images * (1 - held))),
        image_px=found.image_px,
        num_classes=len(found.classes),
        gpu=local_gpus() > 0,
        weights=None if own.weights is None else recognise(own.weights, own.arch),
    )


def _fraction(own: argparse.Namespace, found: Found) -> float:
    if own.val_fraction is not None:
        return own.val_fraction
    return VAL_FRACTION_OF_FEW if found.num_images < FEW_IMAGES else VAL_FRACTION


def _run_name(folder: Path) -> str:
    return re.sub(r"[^\w.-]+", "-", folder.resolve().name).strip("-") or "fit"


def _check_shares(own: argparse.Namespace) -> None:
    if own.val_fraction is not None and not 0 < own.val_fraction < 0.5:
        raise UserError(f"--val-fraction: given {own.val_fraction:g}; allowed: above 0 and below 0.5")
    if not 0 <= own.max_bad <= 1:
        raise UserError(f"--max-bad: given {own.max_bad:g}; allowed: a share from 0 to 1")
    if own.arch and own.weights is None:
        raise UserError("--arch: names the architecture of --weights, which is not given")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsol fit",
        description=__doc__,
        allow_abbrev=False,
        add_help=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="class folders: FOLDER/CLASS/*.jpg, or FOLDER/SPLIT/CLASS/*.jpg",
    )
    add("--out", type=Path, help="run folder; default runs/NAME of the folder")
    add("--weights", type=Path, help="weights to start from: a timm checkpoint; nothing is downloaded")
    add("--arch", help="timm's name of their architecture, where it is not recognised")
    add(
        "--boxes",
        help="file of boxes to score against, CSV or COCO JSON; none: use no file; default found in FOLDER",
    )
    add("--val-fraction", type=float, help="images held out to choose by; default 0.1, of under 500 images 0.2. With "
        "boxes as many again become the test split")  # fmt: skip
    add("--seed", type=int, help="of the held-out images and the training; default 0")
    add("--max-bad", type=float, default=0.05, help="share of unusable images that are left out; more are an error; "
        "default 0.05")  # fmt: skip
    add("--procs", type=int, help="training processes; default one a GPU, else 1")
    add(
        "--explain",
        action="store_true",
        help="show the table of recipes and the row that is chosen; do nothing else",
    )
    return parser
