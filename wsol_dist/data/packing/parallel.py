"""One function over many tasks in processes, results in the order of the tasks."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from wsol_dist.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")
_shared: Any = None
"""What every task of this process needs; sent once to a process and not with every task."""


def num_cores() -> int:
    """Cores that this process may use, which is less than the machine's inside a job."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(
    function: Callable[[Any, Task], Result], tasks: Sequence[Task], *, shared: Any, num_workers: int
) -> Iterator[Result]:
    """Yield `function(shared, task)` for each task.

    Args:
        function: at module level, so that another process finds it.
        shared: picklable; the first argument of every call.
        num_workers: 1 works in this process.

    Raises:
        UserError: raised by a task; or a process was killed.
    """
    if num_workers <= 1 or len(tasks) <= 1:
        yield from (function(shared, task) for task in tasks)
        return
    # A fork of this process would copy the locks of threads that OpenCV or pyarrow may have started; the server's
    # processes are forks of a fresh one, which imports once what all of them need.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", function.__module__])
    num_workers = min(num_workers, len(tasks))
    pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_start, initargs=(shared,))
    try:
        for future in [pool.submit(_call, function, task) for task in tasks]:
            yield future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed, perhaps for lack of memory; give fewer --workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(shared: Any) -> None:
    import cv2

    global _shared
    _shared = shared
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)  # the processes are the parallelism


def _end_with_parent() -> None:
    """A killed parent tells nobody: without this its workers would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(function: Callable[[Any, Task], Result], task: Task) -> Result:
    return function(_shared, task)
