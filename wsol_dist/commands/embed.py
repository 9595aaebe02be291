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
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from wsol_dist.config import split_arguments
from wsol_dist.data.index import Index
from wsol_dist.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from wsol_dist.embedding import Embedding


def main(argv: list[str]) -> int:
    """Entry of `wsol embed`."""
    parser = _parser()
    if not argv or "-h" in argv or "--help" in argv:
        from wsol_dist.embedding import EmbedConfig

        parser.print_help()
        print("\nThe knobs are flags too:\n")
        tyro.cli(EmbedConfig, args=["--help"], prog="wsol embed ...")
        return 0
    own, rest = split_arguments(parser, argv)
    task = plan(own, rest)
    from wsol_dist.embedding import embed_shards
    from wsol_dist.launching.processes import spawn

    spawn(embed_shards, own.procs, task)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsol embed", description=__doc__, allow_abbrev=False, add_help=False
    )
    add = parser.add_argument
    add("--index", help="folder of the shards")
    add("--out", type=Path, help="folder of the embeddings")
    add("--split", help="one or several, joined by commas; default all")
    add("--procs", type=int, default=1, help="processes on this machine; default 1")
    add("--workers", type=int, default=1, help="reading processes for each of them; default 1")
    return parser


def plan(own: argparse.Namespace, rest: list[str]) -> Embedding:
    """Check what was given.

    Raises:
        UserError: what does not exist or does not fit, and how to mend it.
    """
    if not own.index or not own.out:
        raise UserError("--index and --out are needed: wsol embed --index SHARDS --out EMBEDDINGS")
    for name, least in (("procs", 1), ("workers", 0)):
        if getattr(own, name) < least:
            raise UserError(f"--{name}: given {getattr(own, name)}, at least {least} is needed")
    index = Index.load(own.index)
    splits = tuple(own.split.split(",")) if own.split else tuple(index.splits)
    for split in splits:
        if split not in index.splits:
            raise UserError(
                f"--split: no split {split!r} in {own.index}; {did_you_mean(split, list(index.splits))}"
            )
    if own.out.resolve() == Path(own.index).resolve():
        raise UserError(f"--out: {own.out} holds the shards themselves; give a folder of its own")
    from wsol_dist.embedding import EmbedConfig, Embedding

    try:
        config = tyro.cli(EmbedConfig, args=rest, prog="wsol embed")
    except ValueError as error:
        raise UserError(str(error)) from error
    return Embedding(
        index=own.index,
        out=own.out,
        splits=splits,
        config=config,
        command=shlex.join(["wsol", *sys.argv[1:]]),
        workers=own.workers,
    )
