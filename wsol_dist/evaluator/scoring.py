"""The evaluator's work on its ranks: load weights, score splits one after the other, publish the numbers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from wsol_dist.atomic import write_atomically
from wsol_dist.config import Config, dump, to_dict
from wsol_dist.data.index import Index
from wsol_dist.errors import UserError
from wsol_dist.evaluator import record
from wsol_dist.evaluator.evaluate import Evaluation, evaluate_checkpoint
from wsol_dist.evaluator.identity import Identity
from wsol_dist.methods.base import Method
from wsol_dist.metrics import threshold as thresholds
from wsol_dist.metrics.threshold import Threshold
from wsol_dist.model import build_method
from wsol_dist.models.weights import load_checked, read_state
from wsol_dist.ranks import Ranks
from wsol_dist.report.table import print_scores
from wsol_dist.report.track import Picture, Track

CHOOSING_SPLIT = "val"
PROGRESS_EVERY_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every rank does; picklable."""

    config: Config
    identity: Identity
    """Of weights, shards and knobs together."""
    index: str
    splits: tuple[str, ...]
    weights: Path | None
    """None: what the recipe itself names."""
    whole: bool
    """The weights are a checkpoint of ours: every tensor must be there."""
    step: int
    checkpoint: str
    threshold: str | None
    """val, oracle, fixed, a number, or None for the default."""
    folder: Path


def run(ranks: Ranks, work: Work) -> None:
    """Score all splits on these ranks; the first rank writes and prints."""
    method, notes = load_method(work, ranks)
    if ranks.is_main:
        work.folder.mkdir(parents=True, exist_ok=True)
        if not (work.folder / "config.yaml").exists():
            write_atomically(work.folder / "config.yaml", dump(work.config).encode())
    ranks.barrier()
    with Track.open(
        work.folder,
        work.config.track,
        job="evaluate",
        resolved=to_dict(work.config),
        total_steps=None,
        enabled=ranks.is_main,
    ) as track:
        for note in notes:
            track.line(note)
        chosen: Threshold | None = None
        for split in work.splits:
            threshold, why = threshold_for(split, work, chosen)
            track.line(f"{work.checkpoint} on {split}: {why}")
            evaluation = score(method, work, split=split, ranks=ranks, threshold=threshold, track=track)
            if split == CHOOSING_SPLIT:
                chosen = transferable(evaluation, work)
            if ranks.is_main:
                publish(evaluation, work, track)
            ranks.barrier()


def load_method(work: Work, ranks: Ranks) -> tuple[Method, list[str]]:
    """The method with its weights on this rank's device, and a line each on what to know of them."""
    num_classes = len(Index.load(work.index).classes)
    # Tensors that no file gives must be the same on every rank, and for the split that chooses the threshold.
    torch.manual_seed(work.config.seed)
    method = build_method(work.config, num_classes=num_classes, read_files=work.weights is None)
    notes: list[str] = []
    if work.weights is None:
        notes = ["no --init: weights as the recipe itself names them"]
    elif work.whole:
        load_checked(method, read_state(work.weights), source=str(work.weights))
    else:
        notes = method.load_init(read_state(work.weights))
    return method.to(ranks.device).eval(), notes


def threshold_for(split: str, work: Work, chosen: Threshold | None) -> tuple[Threshold, str]:
    """The threshold that a split gets, and a line that says why.

    Raises:
        UserError: `val` was asked for, and it was not scored at this step, or with other weights, knobs or shards.
    """
    evaluate, given = work.config.evaluate, work.threshold
    if given == "oracle" or (given is None and split == CHOOSING_SPLIT):
        why = "it chooses the threshold" if split == CHOOSING_SPLIT else "an upper bound"
        return thresholds.oracle(), f"its own best threshold (oracle): {why}"
    why_not = f"{CHOOSING_SPLIT!r} is what is to be scored"
    splits = f"{CHOOSING_SPLIT},{'test' if split == CHOOSING_SPLIT else split}"
    if given in (None, "val") and split != CHOOSING_SPLIT:
        if chosen is None:
            chosen, why_not = record.read_threshold(
                work.folder / record.FOLDER,
                CHOOSING_SPLIT,
                step=work.step,
                select=evaluate.select,
                identity=work.identity,
            )
        if chosen is not None:
            return chosen, f"threshold {chosen.value:.3f} as chosen on {CHOOSING_SPLIT}"
    if given == "val":
        raise UserError(f"--threshold val: {why_not}; give --split {splits} without --threshold")
    if given is None:
        why = f"fixed threshold {evaluate.threshold:.3f}, the recipe's, since {why_not}"
        return thresholds.fixed(evaluate.threshold), f"{why}; --split {splits} scores both alike"
    value, where = (evaluate.threshold, "the recipe's") if given == "fixed" else (float(given), "as given")
    return thresholds.fixed(value), f"fixed threshold {value:.3f}, {where}"


def check_thresholds(work: Work) -> None:
    """Refuse, before anything is scored, a threshold that no split will have chosen by then.

    Raises:
        UserError: as `threshold_for`.
    """
    for split in work.splits:
        threshold_for(split, work, None)
        if split == CHOOSING_SPLIT:
            break


def transferable(evaluation: Evaluation, work: Work) -> Threshold | None:
    """The threshold that a scored held-out split gives to the others; None where it has no boxes."""
    select = work.config.evaluate.select
    if select not in evaluation.curves:
        return None
    curves = {name: curve.tolist() for name, curve in evaluation.curves.items()}
    origin = f"{record.FOLDER}/{record.stem(evaluation.split, work.step)}.json"
    return thresholds.from_curves(curves, select=select, origin=origin)


def score(
    method: Method, work: Work, *, split: str, ranks: Ranks, threshold: Threshold, track: Track
) -> Evaluation:
    """One split, with a line now and then on how far it is."""
    return evaluate_checkpoint(
        method,
        work.index,
        split=split,
        config=work.config.evaluate,
        ranks=ranks,
        threshold=threshold,
        watch=progress(track.line, split),
    )


def progress(say: Callable[[str], None], split: str) -> Callable[[int, int], None]:
    """Says every ten seconds how many images are done and how long the rest will take."""
    start = last = time.monotonic()

    def watch(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PROGRESS_EVERY_S:
            last = now
            left = round((now - start) / done * (total - done))
            say(f"{split}: {done}/{total} images, ETA {left // 60}:{left % 60:02d}")

    return watch


def publish(evaluation: Evaluation, work: Work, track: Track) -> None:
    """Write the files, log the numbers and print the table."""
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
    group = f"eval/{evaluation.split}"
    scalars = {f"{group}/{number.name}": number.value for number in evaluation.records}
    track.log({**scalars, f"{group}/threshold": evaluation.threshold.value}, step=work.step)
    shown = [
        Picture(image_HWC=picture, caption=f"{case.id}: {case.row.get('error_kind')}")
        for picture, case in zip(pictures, evaluation.cases, strict=True)
    ]
    track.images(f"{group}/cases", shown, step=work.step)
    for one in evaluation.broken[:10]:
        track.line(f"does not decode, counted as a miss: {one}")
    print_scores(
        [number.to_json() for number in evaluation.records],
        title=f"{work.config.name} · {work.checkpoint} · {evaluation.split}",
    )
    track.line(f"{len(evaluation.rows)} images in {evaluation.seconds:.1f} s; written: {path}")
