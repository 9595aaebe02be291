"""The fork server of the tests: python -m tests.forkserver.server FOLDER LISTENER OWNER.

Its clients are in FOLDER/bin, and connect to the socket LISTENER, a file descriptor. It imports what processes under
test will want, and forks for each of them. A forked process returns from `serve` with its request, and from then on is
what Python would be with these arguments. The server ends with the process OWNER, and so do all that it forked.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import os
import pkgutil
import selectors
import signal
import socket
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

from tests.forkserver.request import Request, end

THIRD_PARTY = (
    "cv2", "deepspeed", "faiss", "hypothesis", "multiprocessing.resource_tracker",
    "multiprocessing.spawn", "numba", "numpy", "open_clip", "pyarrow.parquet", "pytest", "rich.console",
    "scipy.ndimage", "skimage.measure", "submitit.core._submit", "timm", "torch", "torch.distributed.run",
    "torchvision", "tyro", "wandb",
)  # fmt: skip
MAX_FILES = 200
FORK_SAFE = "jemalloc_bg_thd"
"""pyarrow's allocator starts its thread again in a forked process."""


def preload() -> None:
    """Import the heavy packages and every module of this project."""
    import wsol_dist

    own = (info.name for info in pkgutil.walk_packages(wsol_dist.__path__, "wsol_dist."))
    for name in (*THIRD_PARTY, *own):
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(f"not imported: {name}: {error}", flush=True)
    names = {
        Path(f"/proc/self/task/{one}/comm").read_text().strip(): one for one in os.listdir("/proc/self/task")
    }
    others = [name for name, one in names.items() if int(one) != os.getpid() and name != FORK_SAFE]
    assert not others, f"threads that a fork would lose: {others}"


class Server:
    """Forks for clients, reports exit statuses to them, and hands their signals on."""

    def __init__(self, listener: int, owner: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(fileno=listener)
        self.owner = os.pidfd_open(owner)
        self.children: dict[int, tuple[int, socket.socket]] = {}
        """File descriptor of a forked process -> its id and its client."""

    def serve(self) -> Request | None:
        """Answer until the owner ends: then None. A forked process returns with its request."""
        self.selector.register(self.listener, selectors.EVENT_READ, "client")
        self.selector.register(self.owner, selectors.EVENT_READ, "owner")
        while True:
            for key, _ in self.selector.select():
                if key.data == "owner":
                    self._kill_all()
                    return None
                if key.data == "client":
                    request = self._accept()
                    if request is not None:
                        return request
                elif key.data == "signal":
                    self._signalled(key.fileobj)  # type: ignore[arg-type]
                elif key.fd in self.children:
                    self._ended(key.fd)

    def _accept(self) -> Request | None:
        client, _ = self.listener.accept()
        try:
            client.settimeout(30)
            request = receive(client)
        except (OSError, EOFError, ValueError) as error:
            print(f"a client went away: {error}", flush=True)
            client.close()
            return None
        pid = os.fork()
        if pid == 0:
            self._let_go(client)
            return request
        request.close()
        handle = os.pidfd_open(pid)
        self.children[handle] = (pid, client)
        self.selector.register(handle, selectors.EVENT_READ, "child")
        self.selector.register(client, selectors.EVENT_READ, "signal")
        return None

    def _let_go(self, client: socket.socket) -> None:
        """In a forked process: close what is the server's."""
        for handle, (_, other) in self.children.items():
            os.close(handle)
            other.close()
        client.close()
        self.selector.close()
        self.listener.close()
        os.close(self.owner)

    def _signalled(self, client: socket.socket) -> None:
        found = [(handle, pid) for handle, (pid, one) in self.children.items() if one is client]
        if not found:  # it ended in the same moment
            return
        handle, pid = found[0]
        try:
            numbers = client.recv(64)
        except OSError:
            numbers = b""
        for number in numbers:
            signal.pidfd_send_signal(handle, number)
        if not numbers:  # the client was killed
            self.selector.unregister(client)
            _kill(pid)

    def _ended(self, handle: int) -> None:
        pid, client = self.children.pop(handle)
        _, status = os.waitpid(pid, 0)
        self.selector.unregister(handle)
        os.close(handle)
        if client in self.selector.get_map():
            self.selector.unregister(client)
        with contextlib.suppress(OSError):
            client.send(status.to_bytes(4, "big"))
        client.close()

    def _kill_all(self) -> None:
        for pid, _ in self.children.values():
            _kill(pid)


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)


def receive(client: socket.socket) -> Request:
    """Read a request with the client's open files, which are closed again if it is not whole.

    Raises:
        EOFError, OSError, ValueError: the client ended before it was through.
    """
    files = array.array("i")
    try:
        head, ancillary, _, _ = client.recvmsg(4, socket.CMSG_SPACE(MAX_FILES * files.itemsize))
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                files.frombytes(data[: len(data) - len(data) % files.itemsize])
        if len(head) < 4:
            raise EOFError("no request")
        request = bytearray()
        while len(request) < int.from_bytes(head, "big"):
            part = client.recv(1 << 20)
            if not part:
                raise EOFError("half a request")
            request += part
        peer = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return Request.parse(bytes(request), list(files), int.from_bytes(peer[:4], sys.byteorder))
    except BaseException:
        for file in files:
            os.close(file)
        raise


def main() -> tuple[Request | None, list[TemporaryDirectory[str]]]:
    """Return in a forked process with its request, or at the end without; and the folders that imports made."""
    server = Server(int(sys.argv[2]), int(sys.argv[3]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        preload()
    folders = [one for one in gc.get_objects() if isinstance(one, TemporaryDirectory)]
    gc.freeze()  # a collection in a forked process would copy what it only looks at
    return server.serve(), folders


if __name__ == "__main__":
    own, inherited = main()
    if own is not None:
        own.become(ModuleType("__main__"), inherited)
        end(own.run)
