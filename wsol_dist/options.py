"""What commands do alike with flags of their own: tell them from a recipe's, check them, share them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

from wsol_dist.errors import UserError


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


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which weights of a run, and how its maps become boxes: what `prediction.opening.open_model` takes."""
    parser.add_argument(
        "--step", help="checkpoint of RUN, a number or best; default the best known, else the newest"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        help="in [0, 1); default: chosen on the run's held-out split, else the recipe's",
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


def add_column_options(
    parser: argparse.ArgumentParser, *, what: str, procs: int | None, procs_help: str
) -> None:
    """The flags of a command that writes a derived column."""
    parser.add_argument("--index", help="folder of the shards")
    parser.add_argument("--out", type=Path, help=f"folder of the {what}")
    parser.add_argument("--split", help="one or several, joined by commas; default all")
    parser.add_argument(
        "--procs", type=int, default=procs, help=f"processes on this machine; default {procs_help}"
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="reading processes for each of them; default 1"
    )


def check_column_options(own: argparse.Namespace, *, usage: str) -> None:
    """Refuse what no derived column can be written with.

    Raises:
        UserError: something is missing or too small; the column would lie among the shards.
    """
    if not own.index or not own.out:
        raise UserError(f"--index and --out are needed: {usage}")
    check_least(own, {"procs": 1, "workers": 0})
    if own.out.resolve() == Path(own.index).resolve():
        raise UserError(f"--out: {own.out} holds the shards themselves; give a folder of its own")
