"""What a person reads when one of many ranks fails: the first error, once, at the end of the main log and in W&B.

Each failing rank leaves a record in `RUN/logs/error-ATTEMPT/` before it lets go of its peers, so that what only follows
from its end comes later. One of them is the first, by a hard link that only one rank can make. Rank 0 tells it,
from a thread, since it may be waiting in a collective for the very rank that failed; where rank 0 is no more, the
rank itself does. All others end without a word. `told_once` does the same for ranks that do not know of each other
yet, or that fail in a command without `FirstError`: there the first rank tells it.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from wsol_dist.errors import as_user_error
from wsol_dist.files import write_atomically

if TYPE_CHECKING:
    from wsol_dist.processes.ranks import Ranks

HEADER = "first error: "
"""How the first line begins; local jobs look for it in logs."""
LOOK_EVERY_S = 0.5
TELL_S = 10.0
"""A failing rank waits this long for rank 0 to tell the error, then tells it itself."""
SILENT_S = 2.0
"""Where the first error is a lost peer, the other ranks have this long to tell of theirs."""
LOST_PEER = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")
"""What libraries say on a rank whose peer is gone."""
MAIN_LOG = "WSOL_MAIN_LOG"
"""Environment variable that names rank 0's log, where each rank has a log of its own."""

alerts: list[Callable[[str, str], None]] = []
"""Called with title and text of a failure; the open log of a job is here."""
_current: FirstError | None = None


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a rank runs."""

    rank: int
    world: int
    host: str
    gpu: str
    """Number and name, or `CPU`; empty where it is not known."""

    @classmethod
    def of(cls, own: Ranks) -> Place:
        """The place of this process."""
        gpu = "CPU"
        if own.device.type == "cuda":
            import torch

            gpu = f"GPU {own.device.index} ({torch.cuda.get_device_name(own.device)})"
        return cls(rank=own.rank, world=own.world, host=socket.gethostname(), gpu=gpu)

    @classmethod
    def of_slurm(cls) -> Place:
        """The place of this process as SLURM says it."""
        rank, world, local = (
            int(os.environ.get(f"SLURM_{name}", "0")) for name in ("PROCID", "STEP_NUM_TASKS", "LOCALID")
        )
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        gpu = f"GPU {visible[local % len(visible)]}" if visible else ""
        return cls(rank=rank, world=world, host=socket.gethostname(), gpu=gpu)

    def __str__(self) -> str:
        return ", ".join(filter(None, (f"rank {self.rank} of {self.world}", f"node {self.host}", self.gpu)))


@dataclass(frozen=True, kw_only=True)
class Record:
    """Why a rank failed."""

    place: Place
    process: int
    time: float
    mistake: bool
    """A person can mend it: `text` says how, and is no traceback."""
    text: str

    @classmethod
    def of(cls, error: BaseException, place: Place) -> Record:
        """What to keep of an exception."""
        known = as_user_error(error)
        lines = str(known).splitlines() if known else []
        text = "\n".join(f"error: {line}" for line in lines) or _traceback(error)
        return cls(place=place, process=os.getpid(), time=time.time(), mistake=known is not None, text=text)

    @classmethod
    def read(cls, path: Path) -> Record:
        """What another rank wrote."""
        raw = json.loads(path.read_bytes())
        return cls(**{**raw, "place": Place(**raw["place"])})

    @property
    def header(self) -> str:
        """The line above the text."""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.time))
        return f"{HEADER}{self.place} (process {self.process}, {when})"

    @property
    def code(self) -> Literal[1, 2]:
        """Exit code of every rank."""
        return 2 if self.mistake else 1


class FirstError:
    """Around a rank's work, on all ranks: an exception ends the rank with SystemExit 1 or 2, told once for all.

    A single process keeps its exception, with a note on where it ran. SystemExit and KeyboardInterrupt pass.
    """

    def __init__(self, folder: Path, own: Ranks) -> None:
        self.folder, self.own, self.place = folder, own, Place.of(own)
        self.places: list[Place] = [self.place]
        self._roots: list[Path] = []
        self._record: Record | None = None
        self._is_first = False
        self._alerted = self._told = False
        self._lock = threading.Lock()
        self._end = threading.Event()

    def __enter__(self) -> Self:
        global _current
        attempt = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        gathered = self.own.gather((attempt, self.place))
        self.places = [place for _, place in gathered]
        # Where the run folder takes no more, a full disk say, the ranks of a node still agree.
        self._roots = [
            self.folder / "logs" / f"error-{gathered[0][0]}",
            Path(tempfile.gettempdir()) / f"wsol-{gathered[0][0]}",
        ]
        if self.own.world > 1 and self.own.is_main:
            threading.Thread(target=self._watch, daemon=True, name="first error").start()
        _current = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _current
        _current = None
        if not isinstance(error, Exception):
            self._end.set()
            return
        self.failed(error)
        if self.own.world == 1:
            error.add_note(str(self.place))
            return
        if self.own.is_main or not self._wait_until_told():
            self._tell()
        self._end.set()
        raise SystemExit(self.first().code) from None

    def failed(self, error: BaseException) -> tuple[str, str]:
        """Keep this rank's error; title and text of the first one of all ranks. A second call changes nothing."""
        with self._lock:
            if self._record is None:
                self._record = Record.of(error, self.place)
                if self.own.world > 1:
                    self._write(self._record)
        return _alert_of(self.first())

    def first(self) -> Record:
        """The first record of any rank, as far as this one knows."""
        found = self._find("first")
        try:
            record = Record.read(found) if found else self._record
        except (OSError, ValueError, KeyError, TypeError):
            record = self._record
        assert record is not None, "asked before any rank failed"
        return record

    def _write(self, record: Record) -> None:
        """Leave the record where the other ranks see it, and try to be the first."""
        self._is_first = _is_first(record, self._roots)

    def _find(self, name: str) -> Path | None:
        return next((root / name for root in self._roots if (root / name).exists()), None)

    def _watch(self) -> None:
        """Rank 0's thread: its main thread may wait in a collective for the rank that failed."""
        while not self._end.wait(LOOK_EVERY_S):
            if self._find("first"):
                self._tell()
                return

    def _wait_until_told(self) -> bool:
        until = time.monotonic() + TELL_S
        while time.monotonic() < until:
            if self._find("told"):
                return True
            time.sleep(LOOK_EVERY_S / 5)
        # Of those that wait in vain the first one speaks.
        return not self._is_first

    def _tell(self) -> None:
        """W&B first, the log last; once, whoever calls it."""
        with self._lock:
            if self._told or self._find("told"):
                return
            self._told = True
            record = self.first()
            note = self._silent(record)
            self._alert(record)
            _say("\n".join([record.header, *note, record.text]), is_main=self.own.is_main)
            found = self._find("first")
            if found:
                (found.parent / "told").touch()

    def _alert(self, record: Record) -> None:
        for alert in list(alerts):
            alert(*_alert_of(record))

    def _silent(self, record: Record) -> list[str]:
        """Name the ranks that may have been killed: the others lost a peer, and these say nothing."""
        if record.mistake or not any(words in record.text for words in LOST_PEER):
            return []
        until = time.monotonic() + SILENT_S
        while (silent := self._without_record()) and time.monotonic() < until:
            time.sleep(LOOK_EVERY_S / 5)
        if not silent:
            return []
        names = "; ".join(str(place) for place in silent[:4]) + ("; ..." if len(silent) > 4 else "")
        return [f"it lost a peer. Without a word, killed (out of memory?) or still waiting: {names}"]

    def _without_record(self) -> list[Place]:
        known = {path.name for root in self._roots for path in root.glob("rank-*.json")}
        return [
            place
            for place in self.places
            if f"rank-{place.rank:05d}.json" not in known and place.rank != self.place.rank
        ]


@contextmanager
def told_once(folder: Path) -> Iterator[None]:
    """Around what the ranks of a SLURM step do before they know of each other: the first that fails tells it.

    Elsewhere nothing names one start among others, and each process tells its own error, as a single one does.

    Args:
        folder: of the run; where there is none, the ranks of a node agree.

    Raises:
        SystemExit: 1 or 2, for any exception of a rank of several.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except Exception as error:
        place = Place.of_slurm()
        names = [os.environ.get(f"SLURM_{name}", "") for name in ("JOB_ID", "STEP_ID", "RESTART_COUNT")]
        if place.world < 2 or not all(names[:2]):
            raise
        attempt = "-".join(["slurm", *filter(None, names)])
        record = Record.of(error, place)
        shared = [folder / "logs" / f"error-{attempt}"] if folder.is_dir() else []
        if _is_first(record, [*shared, Path(tempfile.gettempdir()) / f"wsol-{attempt}"]):
            _say(f"{record.header}\n{record.text}", is_main=place.rank == 0)
        raise SystemExit(record.code) from None


def _is_first(record: Record, roots: list[Path]) -> bool:
    """Leave a record where the other ranks see it, and try to be the first."""
    for root in roots:
        path = root / f"rank-{record.place.rank:05d}.json"
        try:
            root.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(asdict(record), indent=1).encode())
            os.link(path, root / "first")
        except FileExistsError:
            return False
        except OSError:
            continue
        return True
    return True  # nobody can be asked


def failed(error: BaseException) -> tuple[str, str]:
    """Title and text to alert of when this process ends with an error: of the rank that failed first, if known."""
    if _current is not None:
        return _current.failed(error)
    return _alert_of(Record.of(error, Place(rank=0, world=1, host=socket.gethostname(), gpu="")))


def _alert_of(record: Record) -> tuple[str, str]:
    last = record.text.strip().splitlines()[-1] if record.text.strip() else "no reason given"
    return last[:200], f"{record.header}\n{record.text}"


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip()


def _say(text: str, *, is_main: bool) -> None:
    """To the end of the main log: rank 0's, or the one that all ranks share."""
    sys.stdout.flush()
    main_log = os.environ.get(MAIN_LOG)
    if main_log and not is_main:
        try:
            with Path(main_log).open("a", encoding="utf-8") as file:
                file.write(f"{text}\n")
            return
        except OSError:
            pass
    print(text, file=sys.stderr, flush=True)
