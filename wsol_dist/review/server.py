"""The review page over HTTP, for this machine only. No request holds a path of a file: images go by card number."""

from __future__ import annotations

import base64
import errno
import hmac
import json
import secrets
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from wsol_dist.errors import UserError, as_user_error
from wsol_dist.review.cards import Cards
from wsol_dist.review.export import export
from wsol_dist.review.journal import Journal
from wsol_dist.review.page import render
from wsol_dist.review.pictures import SIDES_PX, Outside, Pictures

HOST = "127.0.0.1"
TOKEN_HEADER = "X-Review-Token"  # noqa: S105 - a header's name
MOST_BYTES = 65536
"""Of a request's body."""
MOST_PICTURES = 64
"""Of one answer."""
POLICY = (
    "default-src 'none'; img-src data:; connect-src 'self'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
EXPORTED = "reviewed"
"""Folder below that of the predictions into which the page exports."""


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class ReviewServer(ThreadingHTTPServer):
    """One review; `serve_forever` answers."""

    daemon_threads = True
    # A second server on one port would take its requests.
    allow_reuse_address = True
    allow_reuse_port = False

    def __init__(self, cards: Cards, journal: Journal, folder: Path, *, port: int) -> None:
        """Take the port.

        Raises:
            UserError: it is in use, or may not be taken.
        """
        self.cards, self.journal, self.folder = cards, journal, folder
        self.pictures = Pictures(cards)
        self.token = secrets.token_urlsafe(32)
        self.exporting = threading.Lock()
        self.cards_json = json.dumps(cards.to_json(), allow_nan=False).encode()
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise _port_error(error, port) from error
        names = {HOST, "localhost"}
        self.hosts = {f"{name}:{self.port}" for name in names}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hung up is no error; of anything else the traceback is shown."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/"


def _port_error(error: Exception, port: int) -> UserError:
    code = error.errno if isinstance(error, OSError) else None
    what = {errno.EADDRINUSE: "is in use on this machine", errno.EACCES: "may not be taken by you"}
    said = what.get(code or 0, f"cannot be taken ({error})")
    return UserError(f"--port: {port} {said}; give another one, or 0 for any that is free")


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"  # a gallery asks for many pictures over few connections
    timeout: ClassVar[float] = 60.0

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal shows what a person should know."""

    def _answer(self, respond: Any) -> None:
        """Anything but a page, a picture or a saved choice is a status with a line of text."""
        try:
            # By its address a page elsewhere cannot reach this one, but by a name that it makes point here.
            if self.headers.get("Host", "") not in self.server.hosts:
                raise Refused(HTTPStatus.FORBIDDEN, "another Host than this machine's")
            respond()
        except Refused as refused:
            self._send(refused.status, str(refused).encode(), "text/plain; charset=utf-8", close=True)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True

    def _get(self) -> None:
        parts = urlsplit(self.path)
        match parts.path.split("/")[1:]:
            case [""]:
                page = render(self.server.cards, folder=self.server.folder, token=self.server.token)
                self._send(HTTPStatus.OK, page.encode(), "text/html; charset=utf-8")
            case ["cards.json"]:
                self._send(HTTPStatus.OK, self.server.cards_json, "application/json")
            case ["choices.json"]:
                choices = {card: one.to_json() for card, one in list(self.server.journal.choices.items())}
                self._send(HTTPStatus.OK, json.dumps(choices).encode(), "application/json")
            case ["pictures.json"]:
                content = json.dumps(self._pictures(parts.query)).encode()
                self._send(HTTPStatus.OK, content, "application/json")
            case _:
                raise Refused(HTTPStatus.NOT_FOUND, "there is nothing here")

    def _pictures(self, query: str) -> dict[int, dict[str, str]]:
        """By card a picture, or why there is none. Many in one answer: a browser takes far longer for many answers."""
        given = parse_qs(query)
        side, numbers = given.get("side", [""])[0], given.get("cards", [""])[0].split(",")
        cards = [
            int(number) for number in numbers if number.isascii() and number.isdigit() and len(number) < 10
        ]
        known = len(cards) == len(numbers) <= MOST_PICTURES and all(
            card < len(self.server.cards) for card in cards
        )
        if not known or side not in map(str, SIDES_PX):
            raise Refused(HTTPStatus.NOT_FOUND, "there are no such pictures")
        return {card: self._picture(card, int(side)) for card in cards}

    def _picture(self, card: int, side_px: int) -> dict[str, str]:
        try:
            data = self.server.pictures.jpeg(card, side_px)
        except (Outside, UserError, OSError) as error:
            return {"problem": str(error)}
        return {"src": f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"}

    def _post(self) -> None:
        content = self._body()
        match urlsplit(self.path).path.split("/")[1:]:
            case ["choose"]:
                self._choose(content)
            case ["export"]:
                self._export(content)
            case _:
                raise Refused(HTTPStatus.NOT_FOUND, "there is nothing here")

    def _body(self) -> dict[str, Any]:
        """The request's JSON, if the page itself sent it: other sites neither know the token nor may set a header."""
        given = self.headers.get(TOKEN_HEADER, "")
        origin = self.headers.get("Origin")
        if not hmac.compare_digest(given.encode(), self.server.token.encode()):
            raise Refused(HTTPStatus.FORBIDDEN, "not from the review page; load it again")
        if origin is not None and urlsplit(origin).netloc not in self.server.hosts:
            raise Refused(HTTPStatus.FORBIDDEN, f"from another site: {origin}")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length) > MOST_BYTES:
            raise Refused(HTTPStatus.BAD_REQUEST, f"a body of at most {MOST_BYTES} bytes expected")
        try:
            content = json.loads(self.rfile.read(int(length)))
        except ValueError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, f"no JSON: {error}") from error
        if not isinstance(content, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "a JSON object expected")
        return content

    def _choose(self, content: dict[str, Any]) -> None:
        try:
            choice = self.server.journal.choose(content.get("card", -1), content)
        except ValueError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from error
        except OSError as error:
            reason = as_user_error(error) or error
            raise Refused(HTTPStatus.INSUFFICIENT_STORAGE, f"not saved: {reason}") from error
        self._send(HTTPStatus.OK, json.dumps(choice.to_json()).encode(), "application/json")

    def _export(self, content: dict[str, Any]) -> None:
        out = self.server.folder / EXPORTED
        try:
            with self.server.exporting:
                done = export(
                    self.server.cards,
                    dict(self.server.journal.choices),
                    out,
                    with_open=content.get("with_open") is True,
                )
        except (UserError, OSError) as error:
            raise Refused(HTTPStatus.CONFLICT, str(as_user_error(error) or error)) from error
        said = {
            "out": str(done.out),
            "boxes": done.num_boxes,
            "moved": done.num_moved,
            "images": done.num_images,
        }
        self._send(HTTPStatus.OK, json.dumps(said).encode(), "application/json")

    def _send(self, status: HTTPStatus, data: bytes, kind: str, *, close: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        # The next review has the same address, and other pictures.
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        if close:
            self.close_connection = True  # what the request still holds is not the next one
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)
