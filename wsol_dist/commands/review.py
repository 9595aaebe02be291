"""Look through predictions and correct them: wsol review O [--port N | --static FOLDER | --export FOLDER].

O is an output folder of `wsol predict`. The page is served to this machine only; a choice is in O/review.jsonl before
the page shows it, and the next start goes on. --export writes what was accepted as labels.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from wsol_dist.errors import UserError
from wsol_dist.log.progress import progress
from wsol_dist.options import names_of
from wsol_dist.review.journal import FILE, Journal

if TYPE_CHECKING:
    from wsol_dist.review.cards import Cards

PORT = 8787


def main(argv: list[str]) -> int:
    """Entry of `wsol review`."""
    own = _parser().parse_args(argv)
    if not 0 <= own.port < 65536:
        raise UserError(f"--port: given {own.port}; allowed: 0 (any that is free) to 65535")
    if own.with_open and not own.export:
        raise UserError("--with-open: goes with --export")
    from wsol_dist.review.cards import open_cards
    from wsol_dist.runs.lock import Lock, RunLock

    cards = open_cards(own.folder)
    lock = RunLock(Lock(file="review.lock", job="review of these predictions is open", cure="end it first"))
    lock.take(own.folder)
    journal = Journal(own.folder / FILE, cards)
    try:
        if own.merge:
            print(f"{own.merge}: {journal.merge(own.merge)} choices taken over")
        if own.static:
            return _write_static(own, cards, journal)
        if own.export:
            return _export(own, cards, journal)
        return 0 if own.merge else _serve(own, cards, journal)
    finally:
        journal.close()
        lock.release()


def _serve(own: argparse.Namespace, cards: Cards, journal: Journal) -> int:
    from wsol_dist.review.server import ReviewServer

    server = ReviewServer(cards, journal, own.folder, port=own.port)
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


def _write_static(own: argparse.Namespace, cards: Cards, journal: Journal) -> int:
    from wsol_dist.review.page import PAGE, write_static

    with progress("drawing", len(cards.images)) as told:
        problems = write_static(cards, journal.choices, own.static, folder=own.folder, progress=told)
    print("".join(f"{problem}\n" for problem in problems), end="")
    print(f"Review page  {(own.static / PAGE).resolve()}   (its choices come back with --merge FILE)")
    return 0


def _export(own: argparse.Namespace, cards: Cards, journal: Journal) -> int:
    from wsol_dist.review.export import export

    done = export(cards, journal.choices, own.export, formats=own.formats, with_open=own.with_open)
    print(
        f"{done.out}: {done.num_boxes} boxes of {done.num_images} images as {', '.join(own.formats)}; "
        f"{done.num_moved} of them moved or drawn by hand"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wsol review", description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path, metavar="O", help="output folder of wsol predict")
    parser.add_argument(
        "--port", type=int, default=PORT, help=f"of the page; 0: any that is free; default {PORT}"
    )
    parser.add_argument(
        "--merge", type=Path, metavar="FILE", help="take over the choices of a page written as a folder"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--static", type=Path, metavar="FOLDER", help="write the page as a folder that needs no server"
    )
    what.add_argument("--export", type=Path, metavar="FOLDER", help="write the accepted boxes as labels")
    parser.add_argument(
        "--formats", type=names_of, default=("coco", "yolo", "voc"), help="of --export; default coco,yolo,voc"
    )
    parser.add_argument(
        "--with-open", action="store_true", help="export also the boxes that nobody has judged"
    )
    return parser
