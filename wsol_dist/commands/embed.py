"""Embed images or captions once: wsol embed --index SHARDS --out FOLDER [--what image|caption] [knobs].

The embeddings become a derived column, tars beside the shards' own, which `data.embeddings` of a recipe names: training
reads them with the images and never computes them again. Killed and started again it goes on; where all is there it
does nothing. Images go through CLIP's image encoder (--encoder open_clip) or a timm CNN (--encoder timm); a caption is
made of an image's class names.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING

from wsol_dist.columns.options import add_column_options, open_source
from wsol_dist.options import parse_knobs, split_arguments

if TYPE_CHECKING:
    from wsol_dist.columns.embedding import Embedding


def main(argv: list[str]) -> int:
    """Entry of `wsol embed`."""
    parser = _parser()
    if not argv or "-h" in argv or "--help" in argv:
        from wsol_dist.columns.embedding import EmbedConfig

        parser.print_help()
        print("\nThe knobs are flags too:\n")
        parse_knobs(EmbedConfig, ["--help"], prog="wsol embed ...")
        return 0
    own, rest = split_arguments(parser, argv)
    task = plan(own, rest)
    from wsol_dist.columns.embedding import embed_shards
    from wsol_dist.processes.spawn import spawn

    spawn(embed_shards, own.procs, task)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsol embed", description=__doc__, allow_abbrev=False, add_help=False
    )
    add_column_options(parser, what="embeddings", procs=1, procs_help="1")
    return parser


def plan(own: argparse.Namespace, rest: list[str]) -> Embedding:
    """Check what was given.

    Raises:
        UserError: what does not exist or does not fit, and how to mend it.
    """
    _, splits = open_source(own, usage="wsol embed --index SHARDS --out EMBEDDINGS")
    from wsol_dist.columns.embedding import EmbedConfig, Embedding

    config = parse_knobs(EmbedConfig, rest, prog="wsol embed")
    return Embedding(
        index=own.index,
        out=own.out,
        splits=splits,
        config=config,
        command=shlex.join(["wsol", *sys.argv[1:]]),
        workers=own.workers,
    )
