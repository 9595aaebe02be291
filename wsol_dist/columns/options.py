"""The flags that all commands share which fill a column."""

from __future__ import annotations

import argparse
from pathlib import Path

from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.options import check_least, names_of


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


def open_source(own: argparse.Namespace, *, usage: str) -> tuple[Index, tuple[str, ...]]:
    """The shards that get a column, and the splits that it covers.

    Raises:
        UserError: a flag is missing or too small; the column would lie among the shards; there are no such shards or
            splits.
    """
    if not own.index or not own.out:
        raise UserError(f"--index and --out are needed: {usage}")
    check_least(own, {"procs": 1, "workers": 0})
    if own.out.resolve() == Path(own.index).resolve():
        raise UserError(f"--out: {own.out} holds the shards themselves; give a folder of its own")
    index = Index.load(own.index)
    return index, index.chosen_splits(names_of(own.split))
