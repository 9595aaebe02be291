"""The evaluator's work on its ranks: load weights, score splits one after the other, publish the numbers."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from wsol_dist.data.images.broken import BrokenImages, name_some
from wsol_dist.data.shards.index import Index
from wsol_dist.evaluator import record
from wsol_dist.evaluator.choose_threshold import check_thresholds, threshold_for, transferable
from wsol_dist.evaluator.evaluate import SaveMaps, evaluate_checkpoint
from wsol_dist.evaluator.evaluation import Evaluation
from wsol_dist.evaluator.publish import publish
from wsol_dist.evaluator.save_maps import map_column
from wsol_dist.evaluator.work import Work
from wsol_dist.files import write_atomically
from wsol_dist.log.track import Track
from wsol_dist.methods.base import Method
from wsol_dist.metrics.threshold import Threshold
from wsol_dist.models.weights import load_checked, read_state
from wsol_dist.processes.ranks import Ranks
from wsol_dist.processes.spawn import spawn
from wsol_dist.recipe import dump, to_dict
from wsol_dist.runs.model import build_method
from wsol_dist.runs.run_state import CONFIG_FILE


def score_work(work: Work, *, procs: int) -> None:
    """Score on some processes of this machine.

    Raises:
        UserError: the held-out split is to choose a threshold, and did not.
    """
    check_thresholds(work)
    spawn(run, procs, work, folder=work.folder)


def run(ranks: Ranks, work: Work) -> None:
    """Score all splits on these ranks; the first rank writes and prints."""
    # Where a launcher starts the ranks each one chose the weights by itself, and best.json may have changed in between.
    work = ranks.gather(work)[0]
    method, notes = load_method(work, ranks)
    with open_log(work, ranks) as track:
        for note in notes:
            track.line(note)

        def score_one(split: str, threshold: Threshold) -> Evaluation:
            return score(method, work, split=split, ranks=ranks, threshold=threshold, track=track)

        score_splits(score_one, work, ranks, track)


def open_log(work: Work, ranks: Ranks) -> Track:
    """The evaluator's log in the run's folder, which is made where it is missing."""
    if ranks.is_main:
        work.folder.mkdir(parents=True, exist_ok=True)
        if not (work.folder / CONFIG_FILE).exists():
            write_atomically(work.folder / CONFIG_FILE, dump(work.config).encode())
    ranks.barrier()
    return Track.open(
        work.folder,
        work.config.track,
        job="evaluate",
        resolved=to_dict(work.config),
        total_steps=None,
        enabled=ranks.is_main,
    )


def score_splits(
    score_one: Callable[[str, Threshold], Evaluation], work: Work, ranks: Ranks, track: Track
) -> None:
    """Score the splits in turn; the held-out one gives its threshold to those behind it."""
    chosen: Threshold | None = None
    for split in work.splits:
        threshold, why = threshold_for(split, work, chosen)
        track.line(f"{work.checkpoint} on {split}: {why}")
        evaluation = score_one(split, threshold)
        check_broken(evaluation, work, track)
        if split == work.config.val.split:
            chosen = transferable(evaluation, work)
        if ranks.is_main:
            publish(evaluation, work, track)
        ranks.barrier()


def load_method(work: Work, ranks: Ranks) -> tuple[Method, list[str]]:
    """The method with its weights on this rank's device, and a line each on what to know of them."""
    classes = Index.load(work.index).classes
    # Tensors that no file gives must be the same on every rank, and for the split that chooses the threshold.
    torch.manual_seed(work.config.seed)
    method = build_method(
        work.config, num_classes=len(classes), classes=classes, read_files=work.weights is None
    )
    notes: list[str] = []
    if work.weights is None:
        notes = ["no --init: weights as the recipe itself names them"]
    elif work.whole:
        load_checked(method, read_state(work.weights), source=str(work.weights))
    else:
        notes = method.load_init(read_state(work.weights))
    return method.to(ranks.device).eval(), notes


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
        say=track.line,
        save_maps=_maps(work, split) if work.save_maps else None,
        refine=work.config.refine,
    )


def maps_folder(work: Work, split: str) -> Path:
    """Where `--save-maps` puts the score maps of a split."""
    return work.folder / record.FOLDER / f"{record.stem(split, work.step)}-maps"


def _maps(work: Work, split: str) -> SaveMaps:
    index = Index.load(work.index)
    command = shlex.join(["wsol", *sys.argv[1:]])
    about = map_column(index, split, identity=work.identity, command=command)
    return SaveMaps(folder=maps_folder(work, split), about=about)


def check_broken(evaluation: Evaluation, work: Work, track: Track) -> None:
    """Name what did not decode and was counted as missed; every rank calls it.

    Raises:
        UserError: more than `data.max_bad` of the split.
    """
    broken = BrokenImages(
        num_samples=evaluation.num_images, max_bad=work.config.data.max_bad, option="data.max_bad"
    )
    if broken.add(evaluation.broken):
        what = "image does" if len(broken.ids) == 1 else "images do"
        track.alert(
            f"{evaluation.split}: {len(broken.ids)} {what} not decode",
            f"counted as missed: {name_some(broken.ids)}",
        )
    broken.check(f"run `wsol shards verify --deep {work.index}`")
