"""What the commands share that look into shards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class ShardsOptions:
    """Which shards are looked into."""

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the shards, or its address."""


@dataclass(frozen=True, kw_only=True)
class SampleOptions(ShardsOptions):
    """Which sample of them."""

    id: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ID")]
    """The sample's id, or the number of its row in samples.parquet, from 0."""
