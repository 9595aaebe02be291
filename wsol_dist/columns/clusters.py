"""Label maps of a packed data set's pixels as a derived column: read -> cluster -> tar.

Labels do not depend on the number of ranks. For the same reason a rank on a CPU computes with one thread, and several
cores are used by several ranks.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from wsol_dist.columns.fill import ColumnTask, Values, fill_column
from wsol_dist.columns.patch_embeddings import PatchEmbedder, embedding_settings
from wsol_dist.data.images.decode import DecodeError, decode_rgb
from wsol_dist.data.images.transforms import squash
from wsol_dist.data.shards.columns import About
from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.stream import PREFETCH, ShardReader
from wsol_dist.evaluator.work import Work
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
    """As of `ColumnTask`."""

    @property
    def column(self) -> ColumnTask:
        """What is filled."""
        return ColumnTask(
            out=self.out, about=self.about, value="label map", made_by=f"by {self.backend}", part=self.part
        )


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

    def open_values() -> Values:
        backend = backend_class(task.backend)(task.config, ranks.device)
        embedder = PatchEmbedder(task.embeddings, ranks) if task.embeddings else None

        def values(split: str, shards: Sequence[Sequence[int]]) -> Iterator[np.ndarray | None]:
            reader = ShardReader(index, split)
            return label_rows(reader, shards, backend, workers=task.workers, embedder=embedder)

        return values

    fill_column(ranks, index, task.column, open_values)


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
    reader: ShardReader,
    runs: Sequence[Sequence[int]],
    backend: Backend,
    *,
    workers: int,
    embedder: PatchEmbedder | None = None,
) -> Iterator[np.ndarray | None]:
    """Label maps of rows of a split, in their order; None for an image that does not decode.

    Args:
        runs: rows in runs that each begin a batch, such as those of a shard.
    """
    with _one_thread(backend.device):
        for items in _loader(reader, _batches(runs, backend.config.batch), backend, workers=workers):
            for item, label_HW in zip(items, labels_of(items, backend, embedder), strict=True):
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
