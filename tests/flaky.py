"""A web server on this machine that answers as networks and stores do on a bad day."""

from __future__ import annotations

import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

import fsspec
from fsspec.spec import AbstractFileSystem

from wsol_dist.data.shards import remote

KINDS = ("drop", "truncate", "stall", "slow", "busy", "refuse", "other")
"""Closes after half of the file; sends half of it as if that were all; says nothing more after half; comes late; 503;
403; sends other bytes of the same length."""


class FlakyServer:
    """Serves a folder; `faults[name]` are what happens to the next requests for that file, one after another."""

    def __init__(self, folder: Path) -> None:
        self.faults: defaultdict[str, list[str]] = defaultdict(list)
        self.always: dict[str, str] = {}
        """What happens to every request for a file."""
        self.asked: Counter[str] = Counter()
        """GET requests by file."""
        self.late_s = 0.3
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self, folder))

    @property
    def address(self) -> str:
        """Host, port and the folder's name, for behind `PROTOCOL://`."""
        return f"127.0.0.1:{self._server.server_address[1]}/shards"

    def __enter__(self) -> FlakyServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        # Forked loader processes hold the socket too: closed here only, it would still take their connections.
        self._server.socket.shutdown(socket.SHUT_RDWR)
        self._server.server_close()  # waits for the threads


class _Server(ThreadingHTTPServer):
    """Its threads end with it.

    A thread left over may collect garbage of other tests, tensors among it, while the interpreter ends: C++ then
    ends the process with `terminate called without an active exception`.
    """

    daemon_threads = False
    request_queue_size = 128
    """Of connections not taken yet; what comes beyond 5, the default, is dropped and tried again a second later."""


def _handler(flaky: FlakyServer, folder: Path) -> type[SimpleHTTPRequestHandler]:
    class Handler(SimpleHTTPRequestHandler):
        timeout = 60  # a client that is killed before it asks holds the server no longer

        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            flaky.asked[name] += 1
            kind = flaky.faults[name].pop(0) if flaky.faults[name] else flaky.always.get(name, "")
            path = folder / name
            if kind in ("busy", "refuse") or not path.is_file():
                self.send_error({"busy": 503, "refuse": 403}.get(kind, 404))
                return
            data = path.read_bytes()
            if kind == "slow":
                time.sleep(flaky.late_s)
            if kind == "other":
                data = bytes(255 - byte for byte in data)
            half = data[: len(data) // 2]
            self.send_response(200)
            self.send_header("Content-Length", str(len(half if kind == "truncate" else data)))
            self.end_headers()
            self.wfile.write(half if kind in ("drop", "truncate", "stall") else data)
            if kind == "stall":
                self.wfile.flush()
                flaky.closing.wait(60)
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


class PlainHttp(AbstractFileSystem):
    """http by the standard library, where fsspec's own lacks aiohttp: `plain-http://HOST:PORT/PATH`."""

    protocol = "plain-http"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:  # type: ignore[override]
        return path

    def cat_file(self, path: str, *_: Any, **__: Any) -> bytes:
        with self._asked(path) as answer:
            return answer.read()

    def get_file(self, rpath: str, lpath: str, *_: Any, **__: Any) -> None:
        with self._asked(rpath) as answer, open(lpath, "wb") as file:
            shutil.copyfileobj(answer, file)

    def _asked(self, path: str) -> Any:
        try:
            return urllib.request.urlopen(path.removeprefix("plain-"), timeout=remote.STALL_S)  # noqa: S310 - of a test
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise FileNotFoundError(path) from error
            raise


fsspec.register_implementation("plain-http", PlainHttp, clobber=True)
