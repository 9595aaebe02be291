"""How often, when and with what a test split was scored: it should be looked at once, and this says whether it was."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from wsol_dist.evaluator.evaluation import Evaluation

TEST_SCORINGS_FILE = "test-scorings.jsonl"
HEADLINES = ("gt_known", "top1_loc", "max_box_acc_v2", "miou", "max_miou", "pxap", "cls_top1")
"""The first of these that a split has is its headline."""


def note_scoring(evaluation: Evaluation, folder: Path, *, step: int, checkpoint: str) -> int:
    """Append a line on a scored test split to the run folder; returns the number of scorings so far."""
    found = {number.name: number for number in evaluation.records}
    headline = next((found[name] for name in HEADLINES if name in found), None)
    line = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "split": evaluation.split,
        "step": step,
        "checkpoint": checkpoint,
        "threshold": evaluation.threshold.to_json(),
        "headline": headline.to_json() if headline else None,
    }
    path = folder / TEST_SCORINGS_FILE
    # One write of one line in append mode: lines of two jobs do not mix.
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, (json.dumps(line, allow_nan=False) + "\n").encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    with path.open(encoding="utf-8") as file:
        return sum(f'"split": "{evaluation.split}"' in one for one in file)
