"""The steps of `fit` behind the choice: pack, train and score, report. Each is skipped where its result is there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from wsol_dist.data.packing import pack as packing
from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.fitting.boxes import Boxes, open_boxes
from wsol_dist.fitting.source import FitSource
from wsol_dist.fitting.started import Started
from wsol_dist.log.progress import progress
from wsol_dist.recipe import from_dict
from wsol_dist.runs.opening import open_run
from wsol_dist.runs.run_state import CONFIG_FILE, finished_step

SHARDS = "shards"


def open_source(started: Started) -> FitSource:
    """The class folders as they were found when the fit began."""
    root = Path(started.folder)
    plain = FitSource(root, left_out=started.left_out, boxes=None, fraction=0, seed=started.seed)
    boxes = None
    if started.boxes is not None:
        boxes = open_boxes(Path(started.boxes), root, [item.id for item in plain.items()])
    return FitSource(
        root, left_out=started.left_out, boxes=boxes, fraction=started.val_fraction, seed=started.seed
    )


def pack(started: Started, run: Path, source: FitSource, *, workers: int = 0) -> Index:
    """Hold val out and write the shards, or find them written.

    Raises:
        UserError: the class folders are no longer those that were packed; as packing.
    """
    plain: Any = source  # its dict of counts is no Mapping to the protocol, which lets nobody replace it
    # What cannot be used was left out by name before: a share would only count it again.
    options = packing.PackOptions(
        out=run / SHARDS, workers=workers, seed=started.seed, val_fraction=started.val_fraction
    )
    name = Path(started.folder).name
    todo = packing.make_plan(name, plain, source_options(source), options)
    try:
        if packing.already_packed(todo, plain, options):
            return Index.load(options.out)
        began = time.monotonic()
        with progress("packing", todo.num_samples) as told:
            index = packing.pack(todo, plain, options, told, say=lambda line: print(line, flush=True))
    except UserError as error:
        reason, _, cure = str(error).rpartition("; ")
        if "--force" not in cure:
            raise
        raise UserError(
            f"{reason}; {started.folder} changed since this fit began: give another --out"
        ) from error
    print(f"{options.out}: {todo.num_samples} images packed in {time.monotonic() - began:.1f} s", flush=True)
    return index


def source_options(source: FitSource) -> object:
    """The options that the index records: a folder's paths, of which it keeps none."""
    from wsol_dist.data.sources.folder import Options

    return Options(root=source.root)


def describe_splits(index: Index, boxes: Boxes | None) -> str:
    """How many images each split has, and how many of them have boxes."""
    parts = []
    for split, one in index.splits.items():
        boxed = int((index.rows(split).num_boxes > 0).sum())
        parts.append(f"{split} {one.num_samples}" + (f" ({boxed} with boxes)" if boxed else ""))
    source = f"; boxes of {boxes.path}" if boxes else ""
    unknown = (
        f", which also names {boxes.num_unknown} images that are not used"
        if boxes and boxes.num_unknown
        else ""
    )
    return f"splits: {', '.join(parts)}{source}{unknown}"


def scored_splits(index: Index) -> tuple[str, ...]:
    """val, which chooses the threshold where it has boxes, and test where there is one that can be scored with it."""
    val = bool((index.rows("val").num_boxes > 0).any())
    return ("val", "test") if "test" in index.splits and val else ("val",)


def scored_with_fixed(index: Index) -> tuple[str, ...]:
    """test, where it has boxes and val has none to choose a threshold by: the recipe's is taken then."""
    if "test" not in index.splits or "test" in scored_splits(index):
        return ()
    return ("test",) if bool((index.rows("test").num_boxes > 0).any()) else ()


def is_scored(run: Path, splits: tuple[str, ...]) -> bool:
    """Whether training is finished, and the checkpoint that `wsol evaluate` takes was scored on all splits."""
    from wsol_dist.evaluator.record import FOLDER, stem

    if finished_step(run) is None:
        return False
    step = open_run(run).step
    return all((run / FOLDER / f"{stem(split, step)}.json").is_file() for split in splits)


def train_and_score(started: Started, run: Path, splits: tuple[str, ...], *, procs: int | None) -> int:
    """Both jobs on this machine, as `launch/submit.py --cluster local` runs them; returns their exit code."""
    from wsol_dist.launching import submission
    from wsol_dist.training.preflight import prepare_folder

    if is_scored(run, splits):
        print(f"{run}: trained and scored, nothing to do")
        return 0
    prepare_folder(from_dict(started.config, origin=str(run)), run)
    return submission.run(
        submission.Options(
            recipe=str(run / CONFIG_FILE),
            cluster="local",
            out=run,
            splits=",".join(splits),
            procs_per_node=procs,
        )
    )


def score_with_fixed(run: Path, splits: tuple[str, ...]) -> None:
    """Score the same checkpoint at the recipe's threshold."""
    from wsol_dist.evaluator.scoring import score_work
    from wsol_dist.evaluator.work import plan_work

    score_work(plan_work(open_run(run), splits=splits, threshold="fixed"), procs=1)


def report(run: Path) -> None:
    """The page of the run."""
    from wsol_dist.report.page import write_report
    from wsol_dist.report.run_data import read_run
    from wsol_dist.report.summary import write_summary

    write_report([run], run / "report.html")
    if read_run(run).test is not None:
        write_summary(run)


def verdict(started: Started, run: Path, splits: tuple[str, ...]) -> list[str]:
    """What a person should know at the end: the score with its protocol, or that there can be none."""
    from wsol_dist.report.run_data import read_run

    step = open_run(run).step
    records = [one for one in read_run(run).records if (one.split, one.step) == (splits[-1], step)]
    if not records:
        return []
    record = records[-1]
    lines = []
    for name in ("cls_top1", "gt_known", "top1_loc"):
        found = record.metric(name)
        if found is not None:
            source = found["threshold_source"]
            at = "" if source == "none" else f", threshold {found['threshold']:.3f} from {source}"
            lines.append(
                f"{name} {found['value']:.1f} {found['unit']} on {record.split} ({found['protocol']}{at})"
            )
    if record.metric("gt_known") is None:
        threshold = started.config["evaluate"]["threshold"]
        lines.append(
            "no boxes to score against: classification only, no localization score is possible; give some with "
            f"--boxes FILE and another --out. Boxes are cut at {threshold:.2f} of the map (fixed, the recipe's)"
        )
    return lines
