"""Index -> batches. Samples are read by the index's offsets, so a position in the data is one integer."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wsol_dist.data.config import DataConfig
from wsol_dist.data.decode import DecodeError, decode_rgb
from wsol_dist.data.index import Index
from wsol_dist.data.order import epoch_order, rank_rows, steps_per_epoch
from wsol_dist.data.sample import Sample
from wsol_dist.data.shard import read_sample, to_sample
from wsol_dist.data.transforms import TrainTransform, squash
from wsol_dist.errors import UserError

MAX_OPEN_FILES = 128
"""Tars that a loader process holds open: more than an epoch's lanes, far fewer than a process may open."""


@dataclass(frozen=True, kw_only=True)
class TrainingBatch:
    """A micro-batch of one rank."""

    image_BCHW: Tensor
    """uint8."""
    label_B: Tensor
    """int64."""
    broken: list[str]
    """Ids of images that did not decode; the split's next readable one stands in for each."""


@dataclass(frozen=True, kw_only=True)
class EvaluationBatch:
    """Over all ranks every image of the split is there exactly once, besides marked padding."""

    image_BCHW: Tensor
    """uint8."""
    label_B: Tensor
    """int64."""
    valid_B: Tensor
    """bool; False is padding, not to be counted."""
    decoded_B: Tensor
    """bool; False did not decode (its pixels are zero) and counts as a miss."""
    truths: list[Sample]
    """Ids, boxes and masks; the image bytes are left out."""


class ShardReader:
    """Random access to the samples of a split; every loader process opens its own files."""

    def __init__(self, index: Index, split: str) -> None:
        self.paths = [index.path(number) for number in range(len(index.shards))]
        self.rows = index.rows(split)
        self._open: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, row: int) -> Sample:
        """The stored sample, image not decoded.

        Raises:
            DecodeError: the bytes at the row's place are not this sample.
        """
        try:
            sample = to_sample(read_sample(self._blob(row)))
        except (ValueError, KeyError) as error:
            raise DecodeError(f"{self.paths[self.rows.shard[row]]}: {error}") from error
        if sample.id != self.id(row):
            raise DecodeError(
                f"{self.paths[self.rows.shard[row]]}: holds {sample.id!r}, not {self.id(row)!r}"
            )
        return sample

    def id(self, row: int) -> str:
        """The id of a row."""
        return self.rows.ids[row].as_py()

    def _blob(self, row: int) -> bytes:
        file = self._file(int(self.rows.shard[row]))
        return os.pread(file, int(self.rows.bytes[row]), int(self.rows.offset[row]))

    def _file(self, shard: int) -> int:
        """The descriptor of a shard; the least recently used is closed when too many are open."""
        file = self._open.pop(shard, None)
        if file is None:
            if len(self._open) >= MAX_OPEN_FILES:
                os.close(self._open.pop(next(iter(self._open))))
            file = os.open(self.paths[shard], os.O_RDONLY)
        self._open[shard] = file
        return file

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def __del__(self) -> None:
        for file in self._open.values():
            os.close(file)


class TrainingSet(Dataset[tuple[Tensor, int, list[str]]]):
    """Transformed images of a split; an item is asked for by (epoch, row), so its augmentation needs no state."""

    def __init__(self, reader: ShardReader, transform: TrainTransform, *, seed: int) -> None:
        self.reader, self.transform, self.seed = reader, transform, seed

    def __getitem__(self, where: tuple[int, int]) -> tuple[Tensor, int, list[str]]:
        epoch, row = where
        broken: list[str] = []
        for stand_in in range(row, row + len(self.reader)):
            at = stand_in % len(self.reader)
            try:
                rgb = decode_rgb(self.reader.sample(at).image)
            except DecodeError:
                broken.append(self.reader.id(at))
                continue
            rng = np.random.default_rng([self.seed, epoch, row])
            return self.transform(rgb, rng), int(self.reader.rows.label[at]), broken
        raise UserError(
            f"no image of the split decodes, the first are {broken[:3]}; run shards/verify.py --deep"
        )


class EvaluationSet(Dataset[tuple[Tensor, bool, Sample]]):
    """Squashed images of a split with their truth."""

    def __init__(self, reader: ShardReader, image_px: int) -> None:
        self.reader, self.image_px = reader, image_px

    def __getitem__(self, row: int) -> tuple[Tensor, bool, Sample]:
        black = torch.zeros(3, self.image_px, self.image_px, dtype=torch.uint8)
        try:
            sample = self.reader.sample(row)
        except DecodeError:
            rows = self.reader.rows
            nothing = Sample(id=self.reader.id(row), image=b"", extension="", labels=rows.labels(row))
            return black, False, nothing
        truth = dataclasses.replace(sample, image=b"")
        try:
            return squash(decode_rgb(sample.image), self.image_px), True, truth
        except DecodeError:
            return black, False, truth


@dataclass(frozen=True, kw_only=True)
class TrainingOrder:
    """Which rows a rank reads from a global step on: the loader's batch sampler."""

    shard_of_row: np.ndarray
    data: DataConfig
    seed: int
    global_batch: int
    accumulation: int
    rank: int
    world: int
    first_step: int
    last_step: int
    """Exclusive."""

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        per_epoch = steps_per_epoch(len(self.shard_of_row), self.global_batch)
        known = (-1, np.empty(0, dtype=np.int64))
        for step in range(self.first_step, self.last_step):
            epoch, step_in_epoch = divmod(step, per_epoch)
            if known[0] != epoch:
                known = (epoch, self._epoch(epoch))
            rows = rank_rows(
                known[1], step=step_in_epoch, global_batch=self.global_batch, rank=self.rank, world=self.world
            )
            for micro in np.split(rows, self.accumulation):
                yield [(epoch, row) for row in micro.tolist()]

    def __len__(self) -> int:
        return (self.last_step - self.first_step) * self.accumulation

    def _epoch(self, epoch: int) -> np.ndarray:
        return epoch_order(
            self.shard_of_row, seed=self.seed, epoch=epoch, lanes=self.data.lanes, window=self.data.window
        )


def training_batches(
    index: Index,
    data: DataConfig,
    *,
    order: TrainingOrder,
    image_px: int,
) -> DataLoader[TrainingBatch]:
    """Micro-batches of one rank in the given order, decoded in `data.workers` processes."""
    reader = ShardReader(index, data.train_split)
    transform = TrainTransform(
        resize_px=data.resize_px or round(image_px * 8 / 7), image_px=image_px, flip=data.flip
    )
    dataset = TrainingSet(reader, transform, seed=order.seed)
    return _loader(dataset, order, data.workers, _collate_training)


def evaluation_batches(
    index: Index,
    *,
    split: str,
    rank: int,
    world: int,
    batch_size: int,
    workers: int,
    image_px: int,
) -> Iterator[EvaluationBatch]:
    """This rank's share of a split; all ranks get the same number of batches, filled up with marked padding."""
    reader = ShardReader(index, split)
    own = np.arange(rank, len(reader), world)
    per_rank = -(-len(reader) // world)
    # Padding repeats row 0: ranks then do equal numbers of forward passes, even with more ranks than images.
    padded = np.concatenate([own, np.zeros(per_rank - len(own), dtype=np.int64)])
    batches = [padded[at : at + batch_size].tolist() for at in range(0, per_rank, batch_size)]
    done = 0
    for image_BCHW, decoded_B, truths in _loader(
        EvaluationSet(reader, image_px), batches, workers, _collate_evaluation
    ):
        valid_B = torch.arange(done, done + len(truths)) < len(own)
        done += len(truths)
        label_B = torch.tensor([truth.labels[0] for truth in truths])
        yield EvaluationBatch(
            image_BCHW=image_BCHW, label_B=label_B, valid_B=valid_B, decoded_B=decoded_B, truths=truths
        )


def _loader(dataset: Dataset[Any], batches: Any, workers: int, collate: Any) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        # Also where the rank itself was spawned, which its children inherit: they would all import torch again.
        multiprocessing_context="fork" if workers else None,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if workers else None,
    )


def _collate_training(items: list[tuple[Tensor, int, list[str]]]) -> TrainingBatch:
    images, labels, broken = zip(*items, strict=True)
    return TrainingBatch(
        image_BCHW=torch.stack(images),
        label_B=torch.tensor(labels),
        broken=[one for ids in broken for one in ids],
    )


def _collate_evaluation(items: list[tuple[Tensor, bool, Sample]]) -> tuple[Tensor, Tensor, list[Sample]]:
    images, decoded, truths = zip(*items, strict=True)
    return torch.stack(images), torch.tensor(decoded), list(truths)
