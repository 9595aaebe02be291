"""Label maps of a packed data set as a derived column: read -> cluster -> tar, shard by shard, on any number of ranks.

A shard is one rank's work from its first image to its last, in batches that begin with it. So labels do not depend
on who works on which shard, or in how many runs. For the same reason a rank on a CPU computes with one thread, and
several cores are used by several ranks.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from wsol_dist.columns.patch_embeddings import PatchEmbedder, embedding_settings
from wsol_dist.data.images.arrays import encode
from wsol_dist.data.images.decode import DecodeError, decode_rgb
from wsol_dist.data.images.transforms import squash
from wsol_dist.data.shards.columns import About, ColumnWriter
from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.stream import PREFETCH, ShardReader
from wsol_dist.evaluator.work import Work
from wsol_dist.log.progress import progress
from wsol_dist.processes.ranks import Ranks
from wsol_dist.regions.cluster import COLUMN_NAME, Backend, ClusterConfig, backend_class, image_seed


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """What the ranks are to do; picklable."""

    index: str
    out: Path
    about: About
    backend: str
    config: ClusterConfig
    workers: int
    """Loader processes of a rank; 0 reads in its own."""
    embeddings: Work | None = None
    """The localizer whose patch embeddings the backend gets."""
    part: tuple[int, int] = (0, 1)
    """(i, n): every n-th shard from the i-th on, for the tasks of a job array; the column's index is then left to a
    run without."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An image on its way from a loader process."""

    image_HWC: np.ndarray
    prepared: np.ndarray
    seed: int
    decoded: bool


def label_column(
    index: Index,
    splits: tuple[str, ...],
    *,
    backend: str,
    config: ClusterConfig,
    command: str,
    embeddings: Work | None = None,
) -> About:
    """What the column is: everything that decides a label."""
    return About(
        name=COLUMN_NAME,
        extension="png",
        splits=splits,
        source=index.sha256,
        settings={
            "backend": backend,
            **asdict(config),
            **(embedding_settings(embeddings.identity) if embeddings else {}),
        },
        command=command,
    )


def label_shards(ranks: Ranks, task: Labelling) -> None:
    """Make the missing label maps. All ranks call it.

    Raises:
        UserError: the folder holds another column, or cannot be written.
    """
    index = Index.load(task.index)
    ranks.main_first(lambda: _begin(index, task))
    writer = ColumnWriter(task.out, index, task.about)
    # The first rank's list is everybody's: shards are being finished while the others still look.
    todo: list[int] = ranks.gather(writer.todo() if ranks.is_main else [])[0]
    part, parts = task.part
    todo = [number for number in todo if number % parts == part]
    own = todo[ranks.rank :: ranks.world]
    total = sum(index.shards[number].num_samples for number in todo)
    with _one_thread(ranks.device), _watching(total, ranks) as watch:
        broken = Labeller(index, writer, task, ranks).write(own, watch)
    broken = [one for some in ranks.gather(broken) for one in some]
    if task.part == (0, 1):
        ranks.main_first(writer.finish)
    if ranks.is_main:
        _say_end(writer, task, len(todo), broken)


def _begin(index: Index, task: Labelling) -> None:
    writer = ColumnWriter(task.out, index, task.about)
    todo = writer.todo()
    if todo:
        there = len(writer.numbers) - len(todo)
        going_on = f", {there} are there already" if there else ""
        print(
            f"{task.out}: {len(writer.numbers)} shards of label maps by {task.backend}{going_on}", flush=True
        )


def _say_end(writer: ColumnWriter, task: Labelling, num_written: int, broken: list[str]) -> None:
    if broken:
        print(f"{len(broken)} images do not decode and have no label map: {', '.join(broken[:10])}")
    if not writer.finished:
        print(f"{task.out}: part {task.part[0] + 1}/{task.part[1]} done, {num_written} shards written")
    elif num_written:
        print(f"{task.out}: complete, {num_written} shards written")
    else:
        print(f"{task.out}: complete, nothing to do")


class Labeller:
    """One rank's work."""

    def __init__(self, index: Index, writer: ColumnWriter, task: Labelling, ranks: Ranks) -> None:
        self.index, self.writer, self.task = index, writer, task
        self.backend = backend_class(task.backend)(task.config, ranks.device)
        self.embedder = PatchEmbedder(task.embeddings, ranks) if task.embeddings else None

    def write(self, numbers: Sequence[int], watch: Callable[[int], None]) -> list[str]:
        """Write these shards; returns the ids of images that do not decode."""
        broken: list[str] = []
        for split in self.task.about.splits:
            of_split = [number for number in numbers if self.index.shards[number].split == split]
            if of_split:
                broken += self._write_split(split, of_split, watch)
        return broken

    def _write_split(self, split: str, numbers: list[int], watch: Callable[[int], None]) -> list[str]:
        reader = ShardReader(self.index, split)
        batches = _batches([self.writer.positions(number) for number in numbers], self.task.config.batch)
        loaded = iter(_loader(reader, batches, self.backend, workers=self.task.workers))
        broken: list[str] = []
        for number in numbers:
            positions = self.writer.positions(number)
            with self.writer.shard(number) as shard:
                row = positions.start
                while row < positions.stop:
                    items = next(loaded)
                    labels = labels_of(items, self.backend, self.embedder)
                    for at, (item, label_HW) in enumerate(zip(items, labels, strict=True)):
                        shard.add(encode(label_HW, "png") if item.decoded else None)
                        if not item.decoded:
                            broken.append(reader.id(row + at))
                    row += len(items)
                    watch(len(items))
        return broken


class PreparingSet(Dataset[Prepared]):
    """Images of a split, squashed and prepared for the backend: this runs in the loader processes."""

    def __init__(self, reader: ShardReader, backend: Backend) -> None:
        self.reader, self.backend = reader, backend

    def __getitem__(self, row: int) -> Prepared:
        config = self.backend.config
        try:
            # Scaled decoding: an image of many megapixels costs no more than it must.
            rgb_HWC = decode_rgb(self.reader.image(row), cover_px=config.size_px)
            image_HWC = squash(rgb_HWC, config.size_px).permute(1, 2, 0).contiguous().numpy()
        except DecodeError:
            rgb_HWC, image_HWC = None, np.zeros((config.size_px, config.size_px, 3), np.uint8)
        return Prepared(
            image_HWC=image_HWC,
            prepared=self.backend.prepare(image_HWC),
            seed=image_seed(config.seed, self.reader.id(row)),
            decoded=rgb_HWC is not None,
        )


def _batches(shards: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """Rows in batches that begin with each shard."""
    return [list(rows[at : at + size]) for rows in shards for at in range(0, len(rows), size)]


def _loader(reader: ShardReader, batches: list[list[int]], backend: Backend, *, workers: int) -> Any:
    return DataLoader(
        PreparingSet(reader, backend),
        batch_sampler=reader.ahead(batches),
        num_workers=workers,
        # Also where the rank itself was spawned, which its children inherit: they would all import torch again.
        multiprocessing_context=multiprocessing.get_context("fork") if workers else None,
        collate_fn=list,
        prefetch_factor=PREFETCH if workers else None,
    )


def label_rows(
    reader: ShardReader, rows: Sequence[int], backend: Backend, *, workers: int
) -> Iterator[np.ndarray | None]:
    """Label maps of some rows of a split, in their order; None for an image that does not decode."""
    with _one_thread(backend.device):
        for items in _loader(reader, _batches([rows], backend.config.batch), backend, workers=workers):
            for item, label_HW in zip(items, labels_of(items, backend), strict=True):
                yield label_HW if item.decoded else None


def labels_of(
    items: Sequence[Prepared], backend: Backend, embedder: PatchEmbedder | None = None
) -> np.ndarray:
    """Label maps of a batch: (B, S, S) uint8."""
    image_BHWC = np.stack([item.image_HWC for item in items])
    return backend.label(
        image_BHWC,
        [item.prepared for item in items],
        seeds=[item.seed for item in items],
        embedding_BDhw=None if embedder is None else embedder(image_BHWC),
    )


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """On a CPU sums are cut up by the number of threads, and DIC magnifies the last bit."""
    if device.type != "cpu":
        yield
        return
    import faiss

    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        faiss.omp_set_num_threads(before[1])


@contextmanager
def _watching(total: int, ranks: Ranks) -> Iterator[Callable[[int], None]]:
    """Called with images as they are done; the first rank shows its own pace times the number of ranks."""
    if not ranks.is_main or total == 0:
        yield lambda count: None
        return
    with progress("label maps", total) as told:
        yield lambda count: told(count * ranks.world)
