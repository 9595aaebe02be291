"""The flags that all commands share which fill a column."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt

from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.options import names_of


@dataclass(frozen=True, kw_only=True)
class ColumnOptions:
    """What is read and written."""

    index: str | None = None
    """Folder of the shards; needed."""
    out: Path | None = None
    """Folder of the column; needed."""
    split: str | None = None
    """One or several, joined by commas; by default all."""
    procs: PositiveInt | None = None
    """Processes on this machine; by default 1."""
    workers: NonNegativeInt = 1
    """Reading processes for each of them."""

    def source(self, *, usage: str) -> tuple[Index, Path, tuple[str, ...]]:
        """The shards that get a column, the column's folder, and the splits that it covers.

        Raises:
            UserError: a flag is missing; the column would lie among the shards; there are no such shards or splits.
        """
        if not self.index or not self.out:
            raise UserError(f"--index and --out are needed: {usage}")
        if self.out.resolve() == Path(self.index).resolve():
            raise UserError(f"--out: {self.out} holds the shards themselves; give a folder of its own")
        index = Index.load(self.index)
        return index, self.out, index.chosen_splits(names_of(self.split))
