"""Write one sample's image, record or mask to stdout, as it is stored: wsol shards cat FOLDER ID [--member json]."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

from wsol_dist.data.inspection.options import SampleOptions


@dataclass(frozen=True, kw_only=True)
class Options(SampleOptions):
    """The flags of `wsol shards cat`."""

    member: Literal["image", "json", "mask"] = "image"
    """Which of its files."""


def run(options: Options) -> int:
    """Write it byte for byte."""
    from wsol_dist.data.inspection.look import find_sample, member
    from wsol_dist.data.shards.index import Index

    _, stored = find_sample(Index.load(options.folder), options.id)
    sys.stdout.buffer.write(member(stored, options.member))
    sys.stdout.buffer.flush()
    return 0
