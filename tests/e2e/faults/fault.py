"""A row of the table of faults: what goes wrong, what is said, and which test tries it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

GOOD = """name: good
method: {name: molt, scales_px: [16, 32], backbone: {width: 32, heads: 2, depth: 2, patch_px: 8}}
data: {index: '{shards}', workers: 1}
train: {global_batch: 16, epochs: 1}
evaluate: {size_px: 32, cases: 1}
track: {wandb: 'off'}
"""
"""A recipe without mistakes; its shards are those of the fixture `own_shards`."""
REFUSED = "exit 2 before anything is written"
TABLE_TEST = "test_table.py::test_one_clear_line_and_nothing_written"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One row. `{tmp}` stands for a folder, `{shards}` for a folder of shards in it."""

    what: str
    """Names the row."""
    command: str
    """A whole command line where `TABLE_TEST` runs it, words about the situation elsewhere."""
    message: str
    """Exactly what is said behind `error: `, but `...` for what other libraries and longer lists say."""
    fix: str
    then: str = REFUSED
    """What happens."""
    recipe: str = GOOD
    """Written to `{tmp}/recipe.yaml`."""
    damage: Callable[[Path], object] = lambda tmp: None
    test: str = TABLE_TEST
    """FILE::FUNCTION in this folder."""

    @property
    def runs(self) -> bool:
        """Whether the table's own test runs the command."""
        return self.test == TABLE_TEST

    def pattern(self, tmp: Path, **words: object) -> re.Pattern[str]:
        """What matches the message. `words` fill further `{names}` of it."""
        filled = fill(self.message, tmp)
        for name, value in words.items():
            filled = filled.replace(f"{{{name}}}", str(value))
        return re.compile(re.escape(filled).replace(re.escape("..."), ".*"))


def fill(text: str, tmp: Path) -> str:
    """The text with the folders in it."""
    return text.replace("{shards}", str(tmp / "shards")).replace("{tmp}", str(tmp))


def render(sections: dict[str, tuple[str, list[Fault]]]) -> str:
    """`docs/faults.md`: for each section its title, what applies to all of it, and its rows."""
    lines = [
        "# Faults",
        "",
        "What goes wrong, what then happens, and what to do. This page is written by "
        "`python -m tests.e2e.faults.table` from",
        "the tests: each row names the one in `tests/e2e/faults/` that tries it and holds its message to the letter;",
        "`...` stands for lists and for what other libraries say. A message is one line on stderr, behind `error: `.",
        "Exit codes: 0 fine, 1 a failure or problems found, 2 a mistake in what was given.",
    ]
    head = ("fault", "given", "what happens", "message", "how to fix it", "test")
    for title, (about, faults) in sections.items():
        lines += ["", f"## {title}", "", about, "", _row(head), _row(("---",) * len(head))]
        for fault in faults:
            test = "" if fault.runs else f"`{fault.test}`"
            given = f"`{_plain(fault.command)}`" if fault.runs else _plain(fault.command)
            cells = (
                fault.what,
                given,
                fault.then,
                f"`{_plain(fault.message)}`",
                fault.fix,
                test or "the table",
            )
            lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    return text.replace("{tmp}/", "").replace("{tmp}", "FOLDER").replace("{shards}", "shards")


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
