"""What commands do alike with flags of their own: tell them from a recipe's, check them, share them."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from wsol_dist.errors import UserError, did_you_mean

Knobs = TypeVar("Knobs")
_RULE = re.compile(r"^[─╰╯-]+$", re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def split_arguments(parser: argparse.ArgumentParser, argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """A command's own arguments, and the overrides: every flag that the command does not know, with what follows it.

    `parse_known_args` alone would take the value of an override for a positional argument.
    """
    own: list[str] = []
    overrides: list[str] = []
    current = own
    for word in argv:
        if word.startswith("--") or word == "-h":
            current = own if word.split("=")[0] in parser._option_string_actions else overrides
        current.append(word)
    return parser.parse_args(own), overrides


def parse_knobs(
    cls: type[Knobs],
    words: Sequence[str],
    *,
    prog: str,
    default: Knobs | None = None,
    description: str | None = None,
) -> Knobs:
    """A dataclass whose fields are flags; with `--help` among the words they are printed, and the program ends.

    Args:
        default: the values of fields without a flag; without it those of the class.
        description: what the help begins with; without it the class's docstring.

    Raises:
        UserError: a flag that there is not, or a value that cannot be.
    """
    import tyro

    given: dict[str, Any] = {"description": description} | ({} if default is None else {"default": default})
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed, unknown = tyro.cli(cls, args=words, prog=prog, return_unknown_args=True, **given)
    except SystemExit as end:
        if not end.code:
            raise
        raise UserError(_out_of_box(said.getvalue()).removeprefix(f"{cls.__name__}: ")) from None
    print(said.getvalue(), end="", file=sys.stderr)
    if unknown:
        flags = tyro.extras.get_parser(cls, **given)._option_string_actions
        raise UserError(_unknown(unknown[0], list(flags)))
    return parsed


def _out_of_box(box: str) -> str:
    """What tyro draws a box around, as one line: its first paragraph, and how the flag is written.

    Between title and paragraphs are rules, of ASCII where standard output takes nothing else.
    """
    rows = [_COLOUR.sub("", row).strip("│ ") for row in box.splitlines()][1:]
    first, *rest = [part for part in _RULE.split("\n".join(rows)) if part.strip()] or [box]
    message = " ".join(first.split()).removeprefix("Error parsing ").rstrip(".!")
    flag = next((row for part in rest for row in part.splitlines() if row.startswith("--")), "[")
    # A long flag continues on the next row.
    return f"{message}; write {flag}" if flag.count("[") == flag.count("]") else message


def _unknown(word: str, flags: list[str]) -> str:
    """A word that is no flag, with the flags of its section, or the nearest of all."""
    if not word.startswith("--"):
        return f"{word!r}: no flag takes this word; --help lists what each takes"
    section = word.rpartition(".")[0]
    near = [flag for flag in flags if flag.rpartition(".")[0] == section]
    return f"{word}: unknown flag; {did_you_mean(word, near or flags)}"


def check_least(own: argparse.Namespace, least: Mapping[str, int]) -> None:
    """Refuse numbers below the least that each may be; one that was not given is fine.

    Raises:
        UserError: the first of them.
    """
    for name, smallest in least.items():
        value = getattr(own, name)
        if value is not None and value < smallest:
            raise UserError(f"--{name.replace('_', '-')}: given {value}, at least {smallest} is needed")


def names_of(text: str | None) -> tuple[str, ...]:
    """The names in a list joined by commas, each once, without the blanks around them; none of None.

    Commas alone give the empty name, which is refused wherever names are looked up.
    """
    names = dict.fromkeys(name for part in (text or "").split(",") if (name := part.strip()))
    return tuple(names) or (("",) if text else ())


def part_of(text: str | None) -> tuple[int, int]:
    """The number of a part, counted from 0, of `I/N` with 1 <= I <= N, and N; (0, 1), the whole, for None.

    Raises:
        UserError: anything else.
    """
    if text is None:
        return 0, 1
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise UserError(f"--part: {text!r} given; I/N allowed, from 1/N to N/N, say 3/16")
    return number - 1, count


TARGET = "run folder, one checkpoint of it, folder of wsol export, name of a recipe, or .yaml file"
"""What `runs.opening.open_run` takes."""
MODEL = "run folder, one checkpoint of it, or folder of wsol export"


def add_weights_options(parser: argparse.ArgumentParser) -> None:
    """Which weights of a target: what `runs.opening.open_run` takes."""
    parser.add_argument("--init", type=Path, help="other weights than the target's: a file, or a run folder")
    _add_step_and_trust(parser)


def weights_given(own: argparse.Namespace) -> dict[str, Any]:
    """The values of `add_weights_options`, as `open_run` takes them."""
    return {"step": own.step, "init": own.init, "trust_code": own.trust_code or None}


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which weights of a run, and how its maps become boxes: what `prediction.opening.open_model` takes."""
    _add_step_and_trust(parser)
    parser.add_argument(
        "--threshold",
        type=float,
        help="in [0, 1); default: chosen on the run's held-out split, else the recipe's",
    )


def _add_step_and_trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--step", help="checkpoint of RUN: a number, best or last; default the best known, else the newest"
    )
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="import a method that the configuration names as module:Class",
    )


def check_top_k(top_k: int, *, num_classes: int) -> None:
    """Refuse more classes than a model has.

    Raises:
        UserError: with both numbers.
    """
    if top_k > num_classes:
        raise UserError(f"--top-k: given {top_k}, the model has {num_classes} classes")
