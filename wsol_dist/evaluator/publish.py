"""An evaluation made known: files in the run folder, the log, the console; and which checkpoint is best by now."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wsol_dist.config.evaluate import Guard, ValConfig
from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.order import steps_per_epoch
from wsol_dist.evaluator import record
from wsol_dist.evaluator.cases import BEST, FIXED, WORST
from wsol_dist.evaluator.evaluation import Evaluation
from wsol_dist.evaluator.history import note_scoring
from wsol_dist.evaluator.identity import Identity
from wsol_dist.evaluator.work import Work
from wsol_dist.log.jsonl import METRICS_FILE, read_metrics
from wsol_dist.log.table import print_by_class, print_scores
from wsol_dist.log.track import Picture, Track
from wsol_dist.metrics.select import Candidate, Choice, choose_best
from wsol_dist.report import filmstrip
from wsol_dist.runs import checkpoint
from wsol_dist.runs.run_state import read_best, write_best


def publish(evaluation: Evaluation, work: Work, track: Track, *, table: bool = True) -> None:
    """Write the files, log the numbers and say them; the first rank calls it.

    Args:
        table: print all numbers; False prints one line, for those who score one checkpoint after the other.
    """
    times = 0
    if evaluation.split != work.config.val.split:
        # First of all: killed behind the record, a job that is started again finds it and scores no more.
        times = note_scoring(evaluation, work.folder, step=work.step, checkpoint=work.checkpoint)
    pictures = record.draw_cases(evaluation)
    path = record.save(
        evaluation,
        work.folder / record.FOLDER,
        run=work.config.name,
        method=work.config.method_name,
        step=work.step,
        checkpoint=work.checkpoint,
        identity=work.identity,
        pictures=pictures,
    )
    numbers = [number.to_json() for number in evaluation.records]
    scalars = scalars_of(
        evaluation.split, numbers, threshold=evaluation.threshold.value, broken=len(evaluation.broken)
    )
    track.log(scalars, step=work.step, say=False)
    group = f"eval/{evaluation.split}"
    for name in (FIXED, BEST, WORST):
        shown = [
            Picture(image_HWC=picture, caption=f"{case.id}: {case.row.get('error_kind')}")
            for picture, case in zip(pictures, evaluation.cases, strict=True)
            if name in case.groups
        ]
        track.images(f"{group}/cases" if name == FIXED else f"{group}/{name}", shown, step=work.step)
    strip = filmstrip.picture(work.folder, evaluation.split) if work.config.track.wandb != "off" else None
    if strip is not None:
        shown = [Picture(image_HWC=strip, caption=f"{evaluation.split} at successive checkpoints")]
        track.images(f"{group}/filmstrip", shown, step=work.step)
    if table:
        print_scores(numbers, title=f"{work.config.name} · {work.checkpoint} · {evaluation.split}")
        print_by_class(record.by_class_json(evaluation))
        track.line(f"{evaluation.num_images} images in {evaluation.seconds:.1f} s; written: {path}")
    else:
        track.line(one_line(evaluation, work))
    if times > 1:
        track.line(f"{evaluation.split!r} was scored {times} times in this run folder")


def scalars_of(
    split: str, numbers: list[dict[str, Any]], *, threshold: float, broken: int
) -> dict[str, float]:
    """The numbers of a record as the log has them."""
    group = f"eval/{split}"
    scalars = {f"{group}/{number['name']}": number["value"] for number in numbers}
    return scalars | {f"{group}/threshold": threshold, f"{group}/broken_images": broken}


def log_missing(records: Iterable[dict[str, Any]], work: Work, track: Track) -> None:
    """Log the numbers of records that the log lacks: a job was killed between the two."""
    logged = [row for file in METRICS_FILE.values() for row in read_metrics(work.folder / file)]
    for one in records:
        scalars = scalars_of(
            one["split"], one["metrics"], threshold=one["threshold"]["value"], broken=len(one["broken"])
        )
        if not any(row["step"] == one["step"] and scalars.items() <= row.items() for row in logged):
            track.log(scalars, step=int(one["step"]), say=False)


def one_line(evaluation: Evaluation, work: Work) -> str:
    """The number that decides, with its protocol and its threshold's source."""
    said = f"{work.checkpoint} on {evaluation.split}, {evaluation.num_images} images in {evaluation.seconds:.1f} s"
    found = next((one for one in evaluation.records if one.name == work.config.val.metric), None)
    if found is None:
        return f"{said}: has no {work.config.val.metric}"
    threshold = (
        "" if found.threshold is None else f", threshold {found.threshold:.3f} ({found.threshold_source})"
    )
    decides = f"{found.name} {found.value:.2f} {found.unit} ({found.protocol}{threshold})"
    guarded = {Guard.parse(text).name for text in work.config.val.guards}
    beside = [f"{one.name} {one.value:.2f} {one.unit}" for one in evaluation.records if one.name in guarded]
    return f"{said}: {', '.join([decides, *beside])}"


def update_best(work: Work, track: Track) -> None:
    """Point at the best checkpoint and say what changed; the first rank calls it."""
    before = read_best(work.folder)
    choice = point_at_best(work)
    if work.step in choice.refused:
        track.line(f"{work.checkpoint} cannot be the best: {choice.refused[work.step]}")
    if choice.best is None:
        return
    val, value = work.config.val, choice.best.values[work.config.val.metric]
    track.log({f"eval/{val.split}/best_{val.metric}": value}, step=work.step, say=False)
    if read_best(work.folder) != before:
        epoch = f" (epoch {choice.best.values['epoch']:g})" if "epoch" in choice.best.values else ""
        track.line(f"best so far: step {choice.best.step}{epoch}, {val.metric} {value:.2f} on {val.split}")


def point_at_best(work: Work) -> Choice:
    """Name the best of the checkpoints that are there and were scored as this one; the first rank calls it.

    All records count, whoever wrote them: a job that was killed behind a record left the file as it was before.
    """
    val = work.config.val
    per_epoch = _steps_per_epoch(work)
    candidates = [
        Candidate(step=int(one["step"]), values=_values(one, per_epoch=per_epoch))
        for one in scored_records(work.folder, val.split, identity=work.identity)
        if checkpoint.step_folder(work.folder, int(one["step"])).is_dir()
    ]
    choice = choose_best(candidates, metric=val.metric, guards=val.guards)
    if choice.best is not None and read_best(work.folder) != _best_entry(choice.best, val):
        write_best(work.folder, _best_entry(choice.best, val))
    return choice


def scored_records(folder: Path, split: str, *, identity: Identity) -> list[dict[str, Any]]:
    """The whole records of a split by step that were scored alike, whatever their weights."""
    found = []
    for path in sorted((folder / record.FOLDER).glob(f"{split}-step-*.json")):
        try:
            one = json.loads(path.read_bytes())
            alike = dataclasses.replace(identity, weights=one["weights"])
            if one["split"] == split and not alike.differences(one):
                found.append(one)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged: it is scored again
    return sorted(found, key=lambda one: int(one["step"]))


def _values(one: dict[str, Any], *, per_epoch: int | None) -> dict[str, float]:
    """The numbers of a record, and what guards may ask for besides: `step`, and `epoch`, the epochs done."""
    values = {number["name"]: float(number["value"]) for number in one["metrics"]}
    values["step"] = float(one["step"])
    if per_epoch:
        values["epoch"] = values["step"] / per_epoch
    return values


def _steps_per_epoch(work: Work) -> int | None:
    """Of training; None where the scored shards have no such split."""
    split = Index.load(work.index, check_files=False).splits.get(work.config.data.train_split)
    return None if split is None else steps_per_epoch(split.num_samples, work.config.train.global_batch)


def _best_entry(best: Candidate, val: ValConfig) -> dict[str, Any]:
    return {
        "step": best.step,
        "checkpoint": f"{checkpoint.FOLDER}/{checkpoint.step_folder(Path(), best.step).name}",
        "metric": val.metric,
        "value": best.values[val.metric],
        "split": val.split,
        "record": f"{record.FOLDER}/{record.stem(val.split, best.step)}.json",
    }
