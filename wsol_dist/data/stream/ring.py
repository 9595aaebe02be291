"""Shared memory that batches are written into again and again; between processes only a slot's number is sent.

Memory that is new to a process costs a page fault for every 4 KiB, which for a batch of pictures is a tenth of
decoding them. A slot is free again when the last tensor that looks into it is gone, so a batch may be kept as
long as one likes; when no slot is free, a batch travels in memory of its own.
"""

from __future__ import annotations

import itertools
import math
import mmap
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

Item = TypeVar("Item")
_numbers = itertools.count()
_rings: weakref.WeakValueDictionary[int, Ring] = weakref.WeakValueDictionary()
"""A forked process finds its parent's rings here."""


class Ring:
    """Slots of equal size. Made before the processes fork that write into it; takes and frees in the parent only."""

    def __init__(self, *, num_slots: int, shape: tuple[int, ...]) -> None:
        """`shape` of a slot, uint8."""
        self.number = next(_numbers)
        self.shape = shape
        self._bytes = math.prod(shape)
        self._memory = mmap.mmap(-1, max(1, num_slots * self._bytes))
        # The slot freed last is taken first: fewer are ever touched, and its pages are still in the caches.
        self._free = deque(range(num_slots))
        _rings[self.number] = self

    @staticmethod
    def of(number: int) -> Ring:
        """The ring of that number, in the process that made it or in one forked from it."""
        return _rings[number]

    @property
    def num_free(self) -> int:
        """Slots that nobody looks into."""
        return len(self._free)

    def take(self) -> int | None:
        """A slot to be written, None when all are in use."""
        try:
            return self._free.pop()
        except IndexError:
            return None

    def write(self, slot: int) -> Tensor:
        """The slot for the process that fills it."""
        return torch.from_numpy(self._array(slot)).view(self.shape)

    def read(self, slot: int) -> Tensor:
        """The filled slot; it is free again once this tensor and all its views are gone."""
        array = self._array(slot)
        weakref.finalize(array, self._free.append, slot).atexit = False
        return torch.from_numpy(array).view(self.shape)

    def _array(self, slot: int) -> np.ndarray:
        return np.frombuffer(self._memory, dtype=np.uint8, count=self._bytes, offset=slot * self._bytes)


@dataclass(frozen=True, kw_only=True)
class Request(Generic[Item]):
    """A batch that a loader process is asked for, and where to put it."""

    items: Sequence[Item]
    ring: int = -1
    slot: int | None = None
    """None: into memory of its own."""


class Requests(Generic[Item]):
    """Batches of items -> requests, each with a slot where one is free: a batch sampler for torch's DataLoader.

    The loader keeps it, and with it the ring, for as long as batches arrive. Slots that a loop asked for and left
    before they came are lost to later loops over the same loader, which then use more memory of their own.
    """

    def __init__(self, batches: Iterable[Sequence[Item]], *, num_slots: int, shape: tuple[int, ...]) -> None:
        """`shape` of a batch; `num_slots` is 0 for a loader without processes."""
        self.batches = batches
        self._ring = Ring(num_slots=num_slots, shape=shape) if num_slots else None

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Request[Item]]:
        for items in self.batches:
            if self._ring is None:
                yield Request(items=items)
            else:
                yield Request(items=items, ring=self._ring.number, slot=self._ring.take())
