"""Look through predictions and correct them: wsol review O [--port N | --static FOLDER | --export FOLDER].

O is an output folder of `wsol predict`. The page is served to this machine only; a choice is in O/review.jsonl before
the page shows it, and the next start goes on. --export writes what was accepted as labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from pydantic import Field

from wsol_dist.errors import UserError
from wsol_dist.log.progress import progress
from wsol_dist.options import Switch, names_of
from wsol_dist.review.journal import FILE, Journal

if TYPE_CHECKING:
    from wsol_dist.review.cards import Cards


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of `wsol review`."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="O")]
    """Output folder of wsol predict."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8787
    """Of the page; 0: any that is free."""
    merge: Path | None = None
    """Take over the choices of a page written as a folder, from its file."""
    static: Path | None = None
    """Write the page as a folder that needs no server."""
    export: Path | None = None
    """Write the accepted boxes as labels into this folder."""
    formats: str = "coco,yolo,voc"
    """Of --export."""
    with_open: Switch = False
    """Export also the boxes that nobody has judged."""


def run(options: Options) -> int:
    """Serve the page, or write what was asked for."""
    if options.with_open and not options.export:
        raise UserError("--with-open: goes with --export")
    if options.static and options.export:
        raise UserError("--static and --export: give one of them")
    from wsol_dist.review.cards import open_cards
    from wsol_dist.runs.lock import Lock, RunLock

    cards = open_cards(options.folder)
    lock = RunLock(Lock(file="review.lock", job="review of these predictions is open", cure="end it first"))
    lock.take(options.folder)
    journal = Journal(options.folder / FILE, cards)
    try:
        if options.merge:
            print(f"{options.merge}: {journal.merge(options.merge)} choices taken over")
        if options.static:
            return _write_static(options.static, options.folder, cards, journal)
        if options.export:
            return _export(options.export, options, cards, journal)
        return 0 if options.merge else _serve(options, cards, journal)
    finally:
        journal.close()
        lock.release()


def _serve(options: Options, cards: Cards, journal: Journal) -> int:
    from wsol_dist.review.server import ReviewServer

    server = ReviewServer(cards, journal, options.folder, port=options.port)
    done = journal.counts()
    without = f", {cards.num_without} images without a box" if cards.num_without else ""
    print(f"{cards.num_boxes} boxes{without}; {sum(done.values())} judged before")
    print(
        f"review page  {server.url}   (this machine only; Ctrl-C ends, every choice is saved at once)",
        flush=True,
    )
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        done = journal.counts()
        print(f"\n{done['accepted']} accepted, {done['rejected']} rejected, in {journal.path}")
    finally:
        server.server_close()
    return 0


def _write_static(out: Path, folder: Path, cards: Cards, journal: Journal) -> int:
    from wsol_dist.review.page import PAGE, write_static

    with progress("drawing", len(cards.images)) as told:
        problems = write_static(cards, journal.choices, out, folder=folder, progress=told)
    print("".join(f"{problem}\n" for problem in problems), end="")
    print(f"Review page  {(out / PAGE).resolve()}   (its choices come back with --merge FILE)")
    return 0


def _export(out: Path, options: Options, cards: Cards, journal: Journal) -> int:
    from wsol_dist.review.export import export

    formats = names_of(options.formats)
    done = export(cards, journal.choices, out, formats=formats, with_open=options.with_open)
    print(
        f"{done.out}: {done.num_boxes} boxes of {done.num_images} images as {', '.join(formats)}; "
        f"{done.num_moved} of them moved or drawn by hand"
    )
    return 0
