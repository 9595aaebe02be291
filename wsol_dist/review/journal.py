"""A person's choices: a file that is only appended to, each line on the disk before the page hears of it."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsol_dist.errors import UserError

if TYPE_CHECKING:
    from wsol_dist.review.cards import Cards

FILE = "review.jsonl"
SCHEMA = 1
ACCEPTED, REJECTED, OPEN = "accepted", "rejected", "open"
STATES = (ACCEPTED, REJECTED, OPEN)
Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was said of a card last."""

    state: str
    box: Box | None = None
    """The box as a person moved or drew it; None where it stayed as it was predicted."""

    def to_json(self) -> dict[str, Any]:
        return {"state": self.state, "box": None if self.box is None else list(self.box)}


def check_choice(raw: Any, *, size_wh: Sequence[int], has_box: bool) -> Choice:
    """A choice from outside.

    Args:
        has_box: whether a box was predicted.

    Raises:
        ValueError: an unknown state; a box that is none, or lies outside of its image; no box at all to accept.
    """
    state = raw.get("state") if isinstance(raw, dict) else None
    if state not in STATES:
        raise ValueError(f"state {state!r} given; allowed: {', '.join(STATES)}")
    box = raw.get("box")
    if box is None:
        if state == ACCEPTED and not has_box:
            raise ValueError("no box was found on this image; draw one to accept it")
        return Choice(state=state)
    numbers = isinstance(box, list) and len(box) == 4 and all(type(side) in (int, float) for side in box)
    if not numbers or not all(map(math.isfinite, box)):
        raise ValueError(f"box {box!r} given; four numbers x0, y0, x1, y1 expected")
    x0, y0, x1, y1 = map(float, box)
    if not (x0 >= 0 and x0 + 1 <= x1 <= size_wh[0] and y0 >= 0 and y0 + 1 <= y1 <= size_wh[1]):
        raise ValueError(
            f"box {box} given; inside of {size_wh[0]} x {size_wh[1]} px and a pixel large expected"
        )
    return Choice(state=state, box=(x0, y0, x1, y1))


class Journal:
    """The choices of a review by card. Many threads may write."""

    def __init__(self, path: Path, cards: Cards) -> None:
        """Read what is there, or begin.

        Args:
            cards: what is judged.

        Raises:
            UserError: the file is of other predictions, or is damaged elsewhere than at its end.
        """
        self.path, self.sizes_wh, self.num_boxes = path, cards.size_wh.tolist(), cards.num_boxes
        self.choices: dict[int, Choice] = {}
        self._lock = threading.Lock()
        self._head = {"schema": SCHEMA, "predictions_sha256": cards.sha256}
        whole = self._read() if path.exists() else 0
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        os.ftruncate(self._file, whole)  # a line that a crash cut short was never confirmed
        if whole == 0:
            self._append(self._head)
            _sync_folder(path.parent)

    def choose(self, card: int, raw: Any) -> Choice:
        """Put a choice on the disk; it counts when this returns.

        Raises:
            ValueError: no such card, or no such choice.
            OSError: it could not be written; the journal is as before.
        """
        choice = self._checked(card, raw)
        with self._lock:
            self._append({"card": card, **choice.to_json(), "time": round(time.time(), 3)})
            self.choices[card] = choice
        return choice

    def counts(self) -> dict[str, int]:
        """Cards by state; those that nobody looked at are left out."""
        states = [choice.state for choice in list(self.choices.values())]
        return {state: states.count(state) for state in (ACCEPTED, REJECTED)}

    def merge(self, path: Path) -> int:
        """Take over the choices of a page that was written as a folder; returns how many.

        Raises:
            UserError: the file is none of these predictions', or is damaged; nothing is taken then.
        """
        try:
            lines = [
                json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
            ]
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read as choices ({error})") from error
        self._check_head(lines[0] if lines else None, path)
        for number, line in enumerate(lines[1:], start=2):
            self._check_line(line, f"{path}: line {number}")
        for line in lines[1:]:
            self.choose(line["card"], line)
        return len({line["card"] for line in lines[1:]})

    def close(self) -> None:
        """No choice can be made after it."""
        os.close(self._file)

    def _checked(self, card: Any, raw: Any) -> Choice:
        if type(card) is not int or not 0 <= card < len(self.sizes_wh):
            raise ValueError(f"card {card!r} given; 0 to {len(self.sizes_wh) - 1} allowed")
        return check_choice(raw, size_wh=self.sizes_wh[card], has_box=card < self.num_boxes)

    def _append(self, line: dict[str, Any]) -> None:
        data = json.dumps(line, allow_nan=False).encode() + b"\n"
        before = os.fstat(self._file).st_size
        try:
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, before)
            # A failed write names no file.
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _read(self) -> int:
        """Replay the file; returns how many of its bytes are whole lines."""
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        lines = data[:whole].splitlines()
        if not lines:
            return 0
        for number, line in enumerate(lines, start=1):
            where = f"{self.path}: line {number}"
            try:
                content = json.loads(line)
            except ValueError as error:
                raise UserError(
                    f"{where}: damaged ({error}); remove the line, or the file to begin anew"
                ) from error
            if number == 1:
                self._check_head(content, self.path)
            else:
                self.choices[content["card"] if isinstance(content, dict) else -1] = self._check_line(
                    content, where
                )
        return whole

    def _check_head(self, content: Any, path: Path) -> None:
        if content != self._head:
            raise UserError(
                f"{path}: holds choices on other predictions than those there now; move it away to begin anew"
            )

    def _check_line(self, content: Any, where: str) -> Choice:
        try:
            return self._checked(content.get("card") if isinstance(content, dict) else None, content)
        except ValueError as error:
            raise UserError(f"{where}: no choice: {error}") from error


def _sync_folder(folder: Path) -> None:
    """The name of a new file is on the disk when its folder is."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
