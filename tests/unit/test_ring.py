"""Shared slots: what a process writes arrives, and a slot that somebody looks into is never written again."""

from __future__ import annotations

import gc
import multiprocessing

import torch
from torch.utils.data import DataLoader, Dataset

from wsol_dist.data.stream.ring import Request, Requests, Ring


def test_a_forked_process_writes_what_its_parent_reads() -> None:
    ring = Ring(num_slots=2, shape=(3, 4))
    slot = ring.take()
    assert slot is not None

    def fill() -> None:
        Ring.of(ring.number).write(slot).copy_(torch.arange(12, dtype=torch.uint8).view(3, 4))

    process = multiprocessing.get_context("fork").Process(target=fill)
    process.start()
    process.join()
    assert torch.equal(ring.read(slot), torch.arange(12, dtype=torch.uint8).view(3, 4))


def test_a_slot_is_free_once_its_last_view_is_gone() -> None:
    ring = Ring(num_slots=2, shape=(2, 2))
    slots = [ring.take(), ring.take()]
    assert None not in slots
    assert ring.take() is None
    batch = ring.read(slots[0])
    view = batch[1].flip(0), batch[0]
    del batch
    gc.collect()
    assert ring.num_free == 0, "a view still looks into it"
    del view
    gc.collect()
    assert ring.num_free == 1
    assert ring.take() == slots[0]


def test_the_memory_outlives_its_ring() -> None:
    ring = Ring(num_slots=1, shape=(4,))
    slot = ring.take()
    ring.write(slot).fill_(7)
    batch = ring.read(slot)
    del ring
    gc.collect()
    assert batch.tolist() == [7, 7, 7, 7]


def test_requests_without_processes_have_no_slots() -> None:
    requests = Requests([[1, 2], [3]], num_slots=0, shape=(2,))
    assert len(requests) == 2
    assert list(requests) == [Request(items=[1, 2]), Request(items=[3])]


class Numbers(Dataset):
    """Batches that are their own items, in a slot or beside it."""

    def __getitems__(self, request):
        if request.slot is None:
            return torch.tensor(request.items, dtype=torch.uint8)
        Ring.of(request.ring).write(request.slot).copy_(torch.tensor(request.items, dtype=torch.uint8))
        return request.ring, request.slot


def test_a_consumer_that_keeps_every_batch_gets_them_all() -> None:
    batches = [[n, n + 1] for n in range(40)]
    requests = Requests(batches, num_slots=3, shape=(2,))
    loader = DataLoader(
        Numbers(),
        batch_sampler=requests,
        num_workers=2,
        collate_fn=lambda batch: batch,
        multiprocessing_context="fork",
    )
    kept, in_slots = [], 0
    for found in loader:
        in_slots += isinstance(found, tuple)
        kept.append(Ring.of(found[0]).read(found[1]) if isinstance(found, tuple) else found)
    assert [one.tolist() for one in kept] == batches
    assert in_slots == 3, "every slot is still looked into, so the others travelled on their own"
