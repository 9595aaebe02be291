"""Whether the loader processes' batches fit into this machine, told before the training and not by a killed process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from wsol_dist.config import Config
from wsol_dist.data.stream import PREFETCH
from wsol_dist.errors import UserError

SHARED_MEMORY = Path("/dev/shm")
MEMORY_INFO = Path("/proc/meminfo")
GROUP_LIMIT, GROUP_USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
GIB = 2**30


def check_memory(config: Config, *, image_px: int, world: int) -> None:
    """Refuse more waiting batches than the machine can hold.

    Raises:
        UserError: what they need, what there is, and what to lower.
    """
    workers = config.data.workers
    if workers == 0:
        return
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    micro_batch = config.train.global_batch // (world * config.train.accumulation)
    needed = local * workers * PREFETCH * micro_batch * 3 * image_px**2
    for name, free in _free_bytes():
        if needed > free:
            raise UserError(
                f"data.workers: {local} x {workers} loader processes with {PREFETCH} batches of {micro_batch} images "
                f"of {image_px} px each need {needed / GIB:.2f} GiB of {name}, {free / GIB:.2f} GiB are free; lower "
                "data.workers or train.global_batch, raise train.accumulation, or give more of it"
            )


def _free_bytes() -> Iterator[tuple[str, int]]:
    """What this machine, or the container or job that this runs in, has left."""
    if SHARED_MEMORY.is_dir():
        yield str(SHARED_MEMORY), shutil.disk_usage(SHARED_MEMORY).free
    if MEMORY_INFO.is_file():
        fields = dict(line.split(":", 1) for line in MEMORY_INFO.read_text(encoding="ascii").splitlines())
        if "MemAvailable" in fields:
            yield "memory", int(fields["MemAvailable"].split()[0]) * 1024
    if GROUP_LIMIT.is_file() and GROUP_LIMIT.read_text(encoding="ascii").strip().isdigit():
        limit, used = (int(path.read_text(encoding="ascii")) for path in (GROUP_LIMIT, GROUP_USED))
        yield "memory (limit of this container or job)", limit - used
