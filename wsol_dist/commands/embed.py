"""Embed images or captions once: wsol embed --index SHARDS --out FOLDER [--what image|caption] [knobs].

The embeddings become a derived column, tars beside the shards' own, which `data.embeddings` of a recipe names: training
reads them with the images and never computes them again. Killed and started again it goes on; where all is there it
does nothing. Images go through CLIP's image encoder (--encoder open_clip) or a timm CNN (--encoder timm); a caption is
made of an image's class names.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from typing import Annotated

from wsol_dist.columns.config import EmbedConfig
from wsol_dist.columns.options import ColumnOptions
from wsol_dist.options import FLAT


@dataclass(frozen=True, kw_only=True)
class Options(ColumnOptions):
    """The flags of `wsol embed`."""

    knobs: Annotated[EmbedConfig, FLAT] = field(default_factory=EmbedConfig)


def run(options: Options) -> int:
    """Fill the column."""
    index, out, splits = options.source(usage="wsol embed --index SHARDS --out EMBEDDINGS")
    from wsol_dist.columns.embedding import Embedding, embed_shards
    from wsol_dist.processes.spawn import spawn

    task = Embedding(
        index=index.place,
        out=out,
        splits=splits,
        config=options.knobs,
        command=shlex.join(["wsol", *sys.argv[1:]]),
        workers=options.workers,
    )
    spawn(embed_shards, options.procs or 1, task)
    return 0
