"""The review server, for tests that ask it something."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsol_dist.review.cards import open_cards
from wsol_dist.review.journal import FILE, Journal
from wsol_dist.review.server import ReviewServer


@contextmanager
def serving(folder: Path) -> Iterator[ReviewServer]:
    """A server of these predictions on a free port, in a thread of this process."""
    cards = open_cards(folder)
    journal = Journal(folder / FILE, cards)
    server = ReviewServer(cards, journal, folder, port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        journal.close()
