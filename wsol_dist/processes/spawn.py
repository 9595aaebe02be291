"""Several processes of this machine as ranks: start them, watch them, and end all of them with the first error."""

from __future__ import annotations

import math
import os
import pickle  # noqa: TID251 - a pipe from a process to its own children
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from wsol_dist.errors import RankError, UserError, as_user_error
from wsol_dist.processes import ranks
from wsol_dist.processes.first_error import FirstError
from wsol_dist.processes.ports import free_port

GRACE_S = 1.0
"""After one rank failed, the others have this long to tell of theirs: the first may only have lost its peer."""
LOOK_EVERY_S = 0.2
END_S = 5.0
"""How long a rank has between being asked to end and being killed."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a rank ended."""

    rank: int
    error: UserError | SystemExit | None = None
    """To be raised here as it is."""
    text: str = ""
    """A traceback, or what ended the process."""
    killed: bool = False
    """By a signal from outside."""


def cause(failures: Sequence[Failure]) -> Failure:
    """Which of them to tell: a mistake or a kill is a cause, an exception may only follow from another rank's end."""
    return min(failures, key=lambda failure: (failure.error is None, not failure.killed))


def was_killed(signal_name: str) -> bool:
    """Whether a signal is a cause: libraries abort a rank that lost its peer."""
    return signal_name != signal.SIGABRT.name


def spawn(function: Callable[..., None], procs: int, *args: Any, folder: Path | None = None) -> None:
    """Run `function(ranks, *args)` in several processes of this machine, or right here for one.

    The first rank that fails ends all of them.

    Args:
        function: a rank's work.
        procs: how many processes; 1 also where srun or torchrun started this one as one of several ranks.
        args: picklable.
        folder: where such ranks agree on which of them failed first; without one each tells its own error.

    Raises:
        UserError, SystemExit: as the rank raised it.
        RankError: another exception, with its traceback, or a rank was killed; the rank is named.
    """
    if procs == 1:
        try:
            own = ranks.from_environment()
            with FirstError(folder, own) if folder else nullcontext():
                function(own, *args)
        finally:
            ranks.stop_group()
        return
    processes, connections = _start(function, procs, args)
    try:
        failures = _watch(processes, connections)
    finally:
        _end(processes)
    if failures:
        raise _as_error(cause(failures), procs)


def _start(
    function: Callable[..., None], procs: int, args: tuple[Any, ...]
) -> tuple[list[BaseProcess], list[Connection]]:
    context = get_context("spawn")
    port = free_port()
    # Read by the rank where it can tell what does not import; the process machinery would only print it.
    task = pickle.dumps((function, args))
    processes: list[BaseProcess] = []
    connections: list[Connection] = []
    for rank in range(procs):
        here, there = context.Pipe(duplex=False)
        # No daemons: those may not have children, and the ranks' data loaders are children.
        process = context.Process(target=_run_rank, args=(there, rank, procs, port, task))
        process.start()
        there.close()
        processes.append(process)
        connections.append(here)
    return processes, connections


def _watch(processes: list[BaseProcess], connections: list[Connection]) -> list[Failure]:
    """Wait for all ranks to end, or for the first failure and GRACE_S more."""
    failures: list[Failure] = []
    running = set(range(len(processes)))
    until = math.inf
    while running and time.monotonic() < until:
        # Looked at again and again: the pipes of a killed rank stay open as long as its data loaders live.
        wait([connections[rank] for rank in running], timeout=LOOK_EVERY_S)
        for rank in sorted(running):
            alive = processes[rank].is_alive()  # asked before the pipe, which is then complete
            failure = _told(connections[rank])
            if failure is None and alive:
                continue
            running.remove(rank)
            failure = failure or _silent_end(rank, processes[rank])
            if failure is not None:
                failures.append(failure)
                until = min(until, time.monotonic() + GRACE_S)
    return failures


def _told(connection: Connection) -> Failure | None:
    """What a rank said of its failure, if it did."""
    try:
        return connection.recv() if connection.poll() else None
    except EOFError:
        return None


def _silent_end(rank: int, process: BaseProcess) -> Failure | None:
    """Why a rank ended that said nothing; None if it ended well."""
    code = process.exitcode or 0
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; the machine may be out of memory" if name == "SIGKILL" else ""
        return Failure(rank=rank, text=f"was ended by signal {name}{hint}", killed=was_killed(name))
    return Failure(rank=rank, text=f"ended with exit code {code}") if code else None


def _end(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    until = time.monotonic() + END_S
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


def _as_error(failure: Failure, procs: int) -> BaseException:
    if failure.error is not None:
        return failure.error
    return RankError(f"rank {failure.rank} of {procs} {failure.text}")


def _run_rank(
    connection: Connection,
    rank: int,
    procs: int,
    port: int,
    task: bytes,
) -> None:
    """What a process does: it becomes a rank and runs the function; a failure goes to the parent, in words."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(procs),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // procs))
    try:
        function, args = pickle.loads(task)  # noqa: S301 - from the process that started this one
        function(ranks.start_group(), *args)
        ranks.stop_group()
        return
    except SystemExit as error:
        if not error.code:
            return
        failure = Failure(rank=rank, error=error)
    except KeyboardInterrupt:
        failure = Failure(rank=rank, error=SystemExit(130))
    except BaseException as error:
        mistake = as_user_error(error)
        text = "" if mistake else f"raised an exception:\n{traceback.format_exc().rstrip()}"
        failure = Failure(rank=rank, error=mistake, text=text)
    connection.send(failure)
    connection.close()
    sys.stdout.flush()
    # Without the usual end, in which a rank could wait for ranks that are no more.
    os._exit(1)


def _end_with_parent() -> None:
    """A rank without its parent would hold its port and its memory for half an hour."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
