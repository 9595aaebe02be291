"""Processes that are gloo ranks and run functions on demand."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Self

from wsol_dist.processes import ranks
from wsol_dist.processes.ports import free_port


class RankPool:
    """`run(function, *args)` calls `function(ranks, *args)` on every rank and returns their results in order."""

    def __init__(self, world: int) -> None:
        context = multiprocessing.get_context("spawn")
        port = free_port()
        self.connections: list[Connection] = []
        self.processes = []
        for rank in range(world):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, rank, world, port), daemon=False)
            process.start()
            self.connections.append(here)
            self.processes.append(process)

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Call an importable function on every rank; an exception on any rank is raised here with its traceback."""
        for connection in self.connections:
            connection.send((function, args))
        results = [connection.recv() for connection in self.connections]
        failures = [text for ok, text in results if not ok]
        if failures:
            raise AssertionError("\n".join(failures))
        return [value for _, value in results]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for connection in self.connections:
            with contextlib.suppress(OSError):  # of a rank that died; the others are still to end
                connection.send(None)
        for process in self.processes:
            process.join(timeout=20)
            if process.is_alive():
                process.kill()


def _serve(connection: Connection, rank: int, world: int, port: int) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    import torch

    torch.set_num_threads(1)
    own = ranks.start_group()
    while (task := connection.recv()) is not None:
        function, args = task
        try:
            connection.send((True, function(own, *args)))
        except BaseException:
            connection.send((False, f"rank {rank}:\n{traceback.format_exc()}"))
    ranks.stop_group()
