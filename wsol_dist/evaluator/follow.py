"""An evaluator that follows a run: each new checkpoint is scored on the held-out split while training goes on.

What was scored is in the run folder, so that a job that was killed and started again goes on where it stopped and
scores nothing twice. When training is through, the splits for the end are scored once, with the best checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from wsol_dist.evaluator.choose_threshold import threshold_for
from wsol_dist.evaluator.identity import Identity
from wsol_dist.evaluator.publish import log_missing, publish, scored_records, update_best
from wsol_dist.evaluator.scoring import check_broken, load_method, open_log, score
from wsol_dist.evaluator.work import Work
from wsol_dist.files import sha256_of
from wsol_dist.log.jsonl import METRICS_FILE
from wsol_dist.log.track import Track
from wsol_dist.methods.base import Method
from wsol_dist.metrics import threshold as thresholds
from wsol_dist.models.weights import load_checked, read_state
from wsol_dist.processes.ranks import Ranks
from wsol_dist.runs import checkpoint
from wsol_dist.runs.lock import FOLLOWING, RunLock
from wsol_dist.runs.run_state import BEFORE_FOLDER, finished_step, in_use, read_best

Final = Literal["best", "last"]
What = Literal["score", "wait", "finished", "dead"]


@dataclass(frozen=True, kw_only=True)
class Following:
    """What the ranks do; picklable."""

    work: Work
    """With the held-out split; weights, step and checkpoint are those of each checkpoint in turn."""
    final_splits: tuple[str, ...] = ()
    """Scored once, when training is through."""
    final: Final = "best"


def follow(ranks: Ranks, task: Following) -> None:
    """Score what training writes until it is through; every rank calls it.

    Raises:
        UserError: another job follows this run.
        SystemExit: code 1, after a line that says so, when training wrote nothing for `val.silence_minutes`.
    """
    lock = RunLock(FOLLOWING)
    try:
        ranks.main_first(lambda: lock.take(task.work.folder))
        _follow(ranks, task)
    finally:
        lock.release()


def _follow(ranks: Ranks, task: Following) -> None:
    work, method = task.work, None
    with open_log(work, ranks) as track:
        watcher = Watcher(work, track) if ranks.is_main else None
        while True:
            # The first rank looks, all do: short waits, since a rank that waits in a collective times out.
            what, step = ranks.gather(watcher.look() if watcher else None)[0]
            if what == "wait":
                time.sleep(work.config.val.look_every_s)
            elif what == "score":
                method = score_checkpoint(method, work, step, ranks=ranks, track=track)
            else:
                break
        if what == "dead":
            track.alert(
                "training is silent", f"{work.folder}: {SILENT.format(work.config.val.silence_minutes)}"
            )
            raise SystemExit(1)
        track.line(f"training is through after step {step}; every checkpoint that is there was scored")
        score_at_the_end(method, task, step, ranks=ranks, track=track)


SILENT = (
    "no checkpoint and no log row for {:g} minutes (val.silence_minutes), and training is not through; start it "
    "again, and then this job"
)


class Watcher:
    """Looks into the run folder, on the first rank."""

    def __init__(self, work: Work, track: Track) -> None:
        self.work, self.track = work, track
        self.idle_since = time.time()
        """Silence is counted from here at the earliest: not while this job itself was busy scoring."""
        self._busy = False
        self.done: dict[int, str] = {}
        """Step -> weights that were scored."""
        self._take_records(track)
        if self.done:
            track.line(f"scored before: {len(self.done)} checkpoints, the last of step {max(self.done)}")
        self._hashed: dict[tuple[int, int], str] = {}

    def _take_records(self, track: Track) -> None:
        """Learn what was scored before, by this job or inside training, and make up for what a kill left undone."""
        folder, val = self.work.folder, self.work.config.val.split
        new = [
            one
            for one in scored_records(folder, val, identity=self.work.identity)
            if self.done.get(int(one["step"])) != one["weights"]
        ]
        if not new:
            return
        log_missing(new, self.work, track)
        self.done |= {int(one["step"]): one["weights"] for one in new}
        path = checkpoint.step_folder(folder, max(self.done))
        update_best(replace(self.work, step=max(self.done), checkpoint=path.name), track)

    def look(self) -> tuple[What, int]:
        """What to do now, and the step it is about."""
        if self._busy:
            self.idle_since, self._busy = time.time(), False
        last = finished_step(self.work.folder)  # asked first: the checkpoints are then all there
        newest = 0.0
        paths = checkpoint.complete_checkpoints(self.work.folder)
        if self.work.config.val.every_epochs:
            # Training scores on its own behind a checkpoint: what it left out is known when the next one is there.
            self._take_records(self.track)
            paths = paths if last is not None else paths[:-1]
        for path in paths:
            step, weights = checkpoint.step_of(path), checkpoint.evaluated_weights(path)
            try:
                newest = max(newest, weights.stat().st_mtime)
                if self.done.get(step) != self._sha256(step, weights):
                    self.done[step] = self._sha256(step, weights)
                    self._busy = True
                    return "score", step
            except FileNotFoundError:  # removed by training in this moment
                continue
        if last is not None:
            return "finished", last
        newest = max(newest, self.idle_since, *(log.stat().st_mtime for log in self._logs()))
        silent = time.time() - newest > self.work.config.val.silence_minutes * 60
        return ("dead" if silent else "wait"), 0

    def _logs(self) -> list[Path]:
        """Of training, and of the runs that come before it."""
        own = self.work.folder / METRICS_FILE["train"]
        before = (self.work.folder / BEFORE_FOLDER).glob(f"*/{own.name}")
        return [*([own] if own.is_file() else []), *before]

    def _sha256(self, step: int, weights: Path) -> str:
        key = (step, weights.stat().st_mtime_ns)
        if key not in self._hashed:
            self._hashed[key] = sha256_of(weights)
        return self._hashed[key]


def score_checkpoint(
    method: Method | None, work: Work, step: int, *, ranks: Ranks, track: Track
) -> Method | None:
    """Score one checkpoint on the held-out split and see whether it is the best; the method for the next one."""
    with held(work, step, ranks) as work_of_step:
        if work_of_step is None:
            track.line(f"step {step} was removed before it could be scored (train.keep_checkpoints)")
            return method
        method = with_weights(method, work_of_step, ranks)
        score_val(method, work_of_step, ranks=ranks, track=track)
        return method


def score_val(method: Method, work: Work, *, ranks: Ranks, track: Track) -> None:
    """Score the held-out split, say the one number that decides, and point at the best checkpoint."""
    split = work.config.val.split
    evaluation = score(method, work, split=split, ranks=ranks, threshold=thresholds.oracle(), track=track)
    check_broken(evaluation, work, track)
    if ranks.is_main:
        publish(evaluation, work, track, table=False)
        update_best(work, track)
    ranks.barrier()


@contextmanager
def held(work: Work, step: int, ranks: Ranks) -> Iterator[Work | None]:
    """The work for one checkpoint, which training does not remove meanwhile; None if it did before."""
    if not ranks.is_main:
        yield ranks.gather(None)[0]
        return
    with in_use(work.folder, step):
        try:
            there = at_checkpoint(work, checkpoint.step_folder(work.folder, step))
        except FileNotFoundError:  # perhaps in this very moment
            there = None
        yield ranks.gather(there)[0]


def at_checkpoint(work: Work, path: Path) -> Work:
    """The same work with the weights of a checkpoint."""
    weights = checkpoint.evaluated_weights(path)
    identity: Identity = replace(work.identity, weights=sha256_of(weights))
    return replace(
        work, identity=identity, weights=weights, step=checkpoint.step_of(path), checkpoint=path.name
    )


def with_weights(method: Method | None, work: Work, ranks: Ranks) -> Method:
    """The method with a checkpoint's weights: built once, filled for each."""
    if method is None:
        return load_method(work, ranks)[0]
    assert work.weights
    load_checked(method, read_state(work.weights), source=str(work.weights))
    return method


def score_at_the_end(
    method: Method | None, task: Following, last: int, *, ranks: Ranks, track: Track
) -> None:
    """Score the final splits with the best or the last checkpoint, unless that was done."""
    if not task.final_splits:
        return
    step: int = ranks.gather(_final_step(task, last, track) if ranks.is_main else None)[0]
    with held(task.work, step, ranks) as work:
        assert work is not None, step
        method = with_weights(method, work, ranks)
        for split in task.final_splits:
            threshold, why = threshold_for(split, work, None)
            before = _scored_before(work, split, threshold.to_json()) if ranks.is_main else None
            if ranks.gather(before is not None)[0]:
                if before is not None:
                    log_missing([before], work, track)
                track.line(f"{work.checkpoint} on {split}: was scored before with this threshold")
                continue
            track.line(f"{work.checkpoint} on {split}: {why}")
            evaluation = score(method, work, split=split, ranks=ranks, threshold=threshold, track=track)
            check_broken(evaluation, work, track)
            if ranks.is_main:
                publish(evaluation, work, track)
            ranks.barrier()


def _final_step(task: Following, last: int, track: Track) -> int:
    best = read_best(task.work.folder)
    if task.final == "best" and best and checkpoint.step_folder(task.work.folder, best["step"]).is_dir():
        track.line(f"the best checkpoint is of step {best['step']}: {best['metric']} {best['value']:.2f}")
        return int(best["step"])
    if task.final == "best":
        track.line(f"no checkpoint may be called the best; the last one, of step {last}, is scored")
    return last


def _scored_before(work: Work, split: str, threshold: dict[str, object]) -> dict[str, Any] | None:
    """The record of this step if it is of this very work."""
    for one in scored_records(work.folder, split, identity=work.identity):
        if one["step"] == work.step and one["weights"] == work.identity.weights:
            was: dict[str, object] = one["threshold"]
            if threshold["level"] == -1:  # the best of its own, or where that cannot be had the recipe's
                same = was["source"] == "oracle" or work.config.evaluate.select not in one["curves"]
            else:
                same = was == threshold
            return one if same else None
    return None
