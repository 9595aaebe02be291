"""Whether the loader processes' batches fit into this machine, told before the training and not by a killed process.

Batches of training lie in slots of anonymous shared memory (`data/stream/ring.py`), which /dev/shm does not limit;
those of scoring travel through /dev/shm, as torch sends them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from wsol_dist.data.stream.order import micro_batch
from wsol_dist.errors import UserError
from wsol_dist.recipe import Config

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - only looked at
MEMORY_INFO = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")
GIB = 2**30


def check_memory(config: Config, *, image_px: int, world: int) -> None:
    """Refuse more waiting batches than the machine can hold.

    Raises:
        UserError: what they need, what there is, and what to lower.
    """
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    images = micro_batch(config.train.global_batch, world=world, accumulation=config.train.accumulation)
    training = Waiting("data.workers", local, config.data.workers, images, image_px)
    for name, free in free_memory():
        training.check(name, free, cure="lower data.workers or train.global_batch, raise train.accumulation")
    if config.val.every_epochs and SHARED_MEMORY.is_dir():
        evaluate = config.evaluate
        scoring = Waiting("evaluate.workers", local, evaluate.workers, evaluate.batch_size, image_px)
        free = shutil.disk_usage(SHARED_MEMORY).free
        scoring.check(str(SHARED_MEMORY), free, cure="lower evaluate.workers or evaluate.batch_size")


class Waiting(NamedTuple):
    """Batches that loader processes hold ready on this machine."""

    option: str
    ranks: int
    workers: int
    batch: int
    image_px: int

    def check(self, name: str, free: int, *, cure: str) -> None:
        """Refuse what does not fit into the free bytes of a memory of that name."""
        from wsol_dist.data.stream.stream import PREFETCH  # late: `free_memory` is asked without torch, too

        needed = self.ranks * self.workers * PREFETCH * self.batch * 3 * self.image_px**2
        if needed > free:
            raise UserError(
                f"{self.option}: {self.ranks} x {self.workers} loader processes with {PREFETCH} batches of "
                f"{self.batch} images of {self.image_px} px each need {needed / GIB:.2f} GiB of {name}, "
                f"{free / GIB:.2f} GiB are free; {cure}, or give more of it"
            )


def free_memory() -> Iterator[tuple[str, int]]:
    """Bytes that this machine, and the container or job that this runs in, have left."""
    if MEMORY_INFO.is_file():
        fields = _numbers(MEMORY_INFO)
        if "MemAvailable:" in fields:
            yield "memory", fields["MemAvailable:"] * 1024
    limit, used, parts = GROUP / "memory.max", GROUP / "memory.current", GROUP / "memory.stat"
    if limit.is_file() and limit.read_text(encoding="ascii").strip().isdigit():
        # What is used counts files in the page cache, which make room for anything else.
        cached = sum(_numbers(parts).get(name, 0) for name in ("active_file", "inactive_file"))
        taken = int(used.read_text(encoding="ascii")) - cached
        yield "memory (limit of this container or job)", int(limit.read_text(encoding="ascii")) - taken


def _numbers(path: Path) -> dict[str, int]:
    """A file of lines `name number ...`."""
    lines = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) > 1}
