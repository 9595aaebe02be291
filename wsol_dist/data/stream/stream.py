"""Index -> batches. Samples are read by the index's offsets, so a position in the data is one integer."""

from __future__ import annotations

import dataclasses
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wsol_dist.config.data import DataConfig
from wsol_dist.data.images.decode import DecodeError, decode_rgb
from wsol_dist.data.images.transforms import TrainTransform, squash
from wsol_dist.data.shards.cache import MAX_OPEN_BOUNDED, cache_limit
from wsol_dist.data.shards.columns import Column
from wsol_dist.data.shards.index import Index, Rows
from wsol_dist.data.shards.label_maps import LabelMaps
from wsol_dist.data.shards.sample import Sample
from wsol_dist.data.shards.shard import StoredSample, changed, read_sample, to_sample
from wsol_dist.data.stream.ahead import Ahead
from wsol_dist.data.stream.order import TrainingOrder, rank_share
from wsol_dist.data.stream.ring import Request, Requests, Ring
from wsol_dist.errors import UserError

PREFETCH = 4
"""Batches that each loader process has ready or in work."""
MAX_OPEN_FILES = 128
"""Tars that a loader process holds open: more than an epoch's lanes, far fewer than a process may open."""


MAX_SOCKET_FOLDER = 107 - len("/pymp-12345678/listener-12345678")
"""Bytes of a folder's path in which `multiprocessing` makes its sockets; Linux allows 107 for all of a socket's."""


class Beside(NamedTuple):
    """What comes with the images of a batch."""

    label_B: np.ndarray
    embedding_BE: np.ndarray | None = None
    target_BHW: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingBatch:
    """A micro-batch of one rank."""

    image_BCHW: Tensor
    """uint8."""
    label_B: Tensor
    """int64; of a multi-label set (B, C) float32, 1 for each class of the image, else 0."""
    broken: list[str]
    """Ids of images that did not decode; for each stands in the next readable one of its class, of any class where
    none is left."""
    embedding_BE: Tensor | None = None
    """float32, where `data.embeddings` names some."""
    target_BHW: Tensor | None = None
    """uint8 label maps, where `data.targets` names some: 0 background, class + 1, 255 not to be learned."""

    def pin_memory(self) -> TrainingBatch:
        """Called by the loader where there is a GPU: copies to it then run beside the computation."""
        pinned: dict[str, Any] = {
            name: value.pin_memory() for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return dataclasses.replace(self, **pinned)


@dataclass(frozen=True, kw_only=True)
class EvaluationBatch:
    """Over all ranks every image of the split is there exactly once, besides marked padding."""

    image_BCHW: Tensor
    """uint8."""
    label_B: Tensor
    """int64; of several labels the first, all are in `truths`."""
    valid_B: Tensor
    """bool; False is padding, not to be counted."""
    decoded_B: Tensor
    """bool; False did not decode (its pixels are zero) and counts as a miss."""
    truths: list[Sample]
    """Ids, boxes and masks; the image bytes are left out."""
    row_B: Tensor
    """int64: the position of each image among the split's rows."""


class ShardReader:
    """Random access to the samples of a split; every loader process opens its own files."""

    def __init__(self, index: Index, split: str) -> None:
        self.index = index
        self.paths = [index.folder / shard.file for shard in index.shards]
        self.rows = index.rows(split)
        self.max_open = MAX_OPEN_BOUNDED if index.remote and cache_limit() else MAX_OPEN_FILES
        self._open: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, row: int) -> Sample:
        """The stored sample, its mask decoded, its image not.

        Raises:
            DecodeError: the bytes at the row's place are not this sample, or not those that were packed.
        """
        return self._decoded(row, self._stored(row, "image_crc32", "truth_crc32"))

    def truth(self, row: int) -> Sample:
        """The sample without its image's bytes, whatever became of them.

        Raises:
            DecodeError: as `sample`, but for damage of the image.
        """
        return dataclasses.replace(self._decoded(row, self._stored(row, "truth_crc32")), image=b"")

    def known_truth(self, row: int) -> Sample:
        """As `truth`; where that is damaged, what the index knows: id and labels."""
        try:
            return self.truth(row)
        except DecodeError:
            return Sample(id=self.id(row), image=b"", extension="", labels=self.rows.labels(row))

    def image(self, row: int) -> bytes:
        """The encoded image: all that training reads of a sample beside the index.

        Raises:
            DecodeError: the bytes at the row's place are not this sample, or not those that were packed.
        """
        return self._stored(row, "image_crc32").image

    def _stored(self, row: int, *crc32: str) -> StoredSample:
        """A sample of which the named checksums are those of its row: a damaged image may decode, to other pixels."""
        path = self.paths[self.rows.shard[row]]
        try:
            stored = read_sample(self._blob(row))
        except ValueError as error:
            raise DecodeError(f"{path}: {error}") from error
        if stored.record["id"] != self.id(row):
            raise DecodeError(f"{path}: holds {stored.record['id']!r}, not {self.id(row)!r}")
        for name in crc32:
            if problem := changed(stored, name, int(getattr(self.rows, name)[row])):
                raise DecodeError(f"{path}: {self.id(row)}: {problem}")
        return stored

    def _decoded(self, row: int, stored: StoredSample) -> Sample:
        try:
            return to_sample(stored)
        except (ValueError, KeyError) as error:
            raise DecodeError(f"{self.paths[self.rows.shard[row]]}: {error}") from error

    def ahead(self, batches: Any, row_of: Callable[[Any], int] = int) -> Any:
        """Batches of items as they are; of a remote folder, the shards of later ones are fetched meanwhile."""
        remote = self.index.remote
        if remote is None:
            return batches

        def missing(batch: Sequence[Any]) -> list[int]:
            shards = np.unique(self.rows.shard[[row_of(item) for item in batch]]).tolist()
            return [shard for shard in shards if not remote.has(self.index.shards[shard].file)]

        return Ahead(batches, missing=missing, fetch=self.index.path)

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
            if len(self._open) >= self.max_open:
                os.close(self._open.pop(next(iter(self._open))))
            file = self.index.open(shard)
        self._open[shard] = file
        return file

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def __del__(self) -> None:
        for file in self._open.values():
            os.close(file)


@dataclass(frozen=True, kw_only=True)
class InSlot:
    """A batch on its way out of a loader process: its pixels stay in their slot, it arrives as a `TrainingBatch`."""

    ring: int
    slot: int
    beside: Beside
    broken: list[str]

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self.ring, self.slot, self.beside, self.broken)


def _arrived(ring: int, slot: int, beside: Beside, broken: list[str]) -> TrainingBatch:
    return _batch(Ring.of(ring).read(slot), beside, broken)


def _batch(image_BCHW: Tensor, beside: Beside, broken: list[str]) -> TrainingBatch:
    tensors: dict[str, Any] = {
        name: None if array is None else torch.from_numpy(array) for name, array in beside._asdict().items()
    }
    return TrainingBatch(image_BCHW=image_BCHW, broken=broken, **tensors)


class TruthReader:
    """What comes beside the images of a split: labels of either kind, and embeddings and label maps if there are."""

    def __init__(self, index: Index, rows: Rows, split: str, embeddings: str, targets: str = "") -> None:
        self.rows, self.split = rows, split
        self.num_classes = len(index.classes) if index.multi_label else None
        self.column = Column.open(Path(embeddings), index) if embeddings else None
        self.targets = LabelMaps.open(targets, index, split) if targets else None

    def read(self, rows: Sequence[int]) -> Beside:
        """Labels (B,) int64 or (B, C) float32 and embeddings (B, E) float32 or None, of rows of the split."""
        if self.num_classes is None:
            labels = self.rows.label[np.asarray(rows, np.int64)]
        else:
            labels = np.zeros((len(rows), self.num_classes), np.float32)
            for place, row in enumerate(rows):
                labels[place, list(self.rows.labels(row))] = 1
        return Beside(
            labels, None if self.column is None else np.stack([self._embedding(row) for row in rows])
        )

    def _embedding(self, row: int) -> np.ndarray:
        assert self.column is not None
        value = self.column.value(self.split, row)
        if value is None:
            raise UserError(
                f"data.embeddings: {self.column.folder} has none for {self.rows.ids[row].as_py()}, which decodes now; "
                "make the column again"
            )
        return value.astype(np.float32)


class TrainingSet(Dataset[TrainingBatch]):
    """Batches of transformed images; an image is asked for by (epoch, row), so its augmentation needs no state."""

    def __init__(
        self,
        reader: ShardReader,
        truths: TruthReader,
        transform: TrainTransform,
        *,
        seed: int,
        scaled: bool,
    ) -> None:
        self.reader, self.truths, self.transform, self.seed = reader, truths, transform, seed
        self.cover_px = (transform.resize_max_px or transform.resize_px) if scaled else None

    def __getitems__(self, request: Request[tuple[int, int]]) -> TrainingBatch | InSlot:
        """The loader's way to ask for a whole batch at once."""
        side = self.transform.image_px
        if request.slot is None:
            image_BCHW = torch.empty(len(request.items), 3, side, side, dtype=torch.uint8)
        else:
            image_BCHW = Ring.of(request.ring).write(request.slot)
        rows: list[int] = []
        broken: list[str] = []
        targets: list[np.ndarray] = []
        for image_CHW, (epoch, row) in zip(image_BCHW, request.items, strict=True):
            rgb_HWC, at = self._readable(row, broken)
            image_CHW.copy_(self.transform(rgb_HWC, np.random.default_rng([self.seed, epoch, row])))
            rows.append(at)
            if self.truths.targets is not None:
                again = np.random.default_rng([self.seed, epoch, row])
                targets.append(self.transform.labels(self.truths.targets.read(at), again).numpy())
        beside = self.truths.read(rows)
        if targets:
            beside = beside._replace(target_BHW=np.stack(targets))
        if request.slot is None:
            return _batch(image_BCHW, beside, broken)
        return InSlot(ring=request.ring, slot=request.slot, beside=beside, broken=broken)

    def decode(self, encoded: bytes) -> np.ndarray:
        """Pixels (H, W, 3) uint8, no fewer than the transform needs where the image has them."""
        return decode_rgb(encoded, cover_px=self.cover_px)

    def _readable(self, row: int, broken: list[str]) -> tuple[np.ndarray, int]:
        """Pixels of the first candidate that decodes, and its row; ids of those before it are added to `broken`."""
        tried: list[str] = []
        for at in self._candidates(row):
            try:
                rgb_HWC = self.decode(self.reader.image(at))
            except DecodeError:
                tried.append(self.reader.id(at))
                continue
            broken += tried
            return rgb_HWC, at
        raise UserError(
            f"no image of the split decodes, the first are {tried[:3]}; run shards/verify.py --deep"
        )

    def _candidates(self, row: int) -> Iterator[int]:
        """The row, then what stands in for it: the next rows of its class, so that pairs stay pairs, then any."""
        yield row
        label = self.reader.rows.label
        after = np.roll(np.arange(len(label)), -row - 1)[:-1]
        same = label[after] == label[row]
        yield from np.concatenate([after[same], after[~same]]).tolist()


class EvaluationSet(Dataset[tuple[Tensor, bool, Sample]]):
    """Squashed images of a split with their truth."""

    def __init__(self, reader: ShardReader, image_px: int) -> None:
        self.reader, self.image_px = reader, image_px

    def __getitem__(self, row: int) -> tuple[Tensor, bool, Sample]:
        black = torch.zeros(3, self.image_px, self.image_px, dtype=torch.uint8)
        try:
            sample = self.reader.sample(row)
            image_CHW = squash(decode_rgb(sample.image), self.image_px)
        except DecodeError:
            return black, False, self.reader.known_truth(row)
        return image_CHW, True, dataclasses.replace(sample, image=b"")


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
        resize_px=data.resize_px or round(image_px * 8 / 7),
        image_px=image_px,
        flip=data.flip,
        resize_max_px=data.resize_max_px,
    )
    truths = TruthReader(index, reader.rows, data.train_split, data.embeddings, data.targets)
    dataset = TrainingSet(reader, truths, transform, seed=order.seed, scaled=data.decoder == "scaled")
    requests = Requests(
        reader.ahead(order, row_of=lambda item: item[1]),
        # Those in work or ready, one that is just being handed over, one that the trainer holds.
        num_slots=data.workers * PREFETCH + 2 if data.workers else 0,
        shape=(order.micro_batch, 3, image_px, image_px),
    )
    return _loader(dataset, requests, data.workers, _as_it_is)


def evaluation_batches(
    index: Index,
    *,
    split: str,
    rank: int,
    world: int,
    batch_size: int,
    workers: int,
    image_px: int,
    positions: Sequence[int] | None = None,
) -> Iterator[EvaluationBatch]:
    """This rank's share of a split; all ranks get the same number of batches, filled up with marked padding.

    `positions` names the rows of the split that are wanted, at least one; None is all of them.
    """
    reader = ShardReader(index, split)
    wanted = np.arange(len(reader)) if positions is None else np.asarray(positions, np.int64)
    own = rank_share(wanted, rank=rank, world=world)
    per_rank = -(-len(wanted) // world)
    # Padding repeats the first row: ranks then do equal numbers of forward passes, even with more ranks than images.
    padded = np.concatenate([own, np.full(per_rank - len(own), wanted[0], dtype=np.int64)])
    batches = [padded[at : at + batch_size].tolist() for at in range(0, per_rank, batch_size)]
    done = 0
    for image_BCHW, decoded_B, truths in _loader(
        EvaluationSet(reader, image_px), reader.ahead(batches), workers, _collate_evaluation
    ):
        valid_B = torch.arange(done, done + len(truths)) < len(own)
        row_B = torch.from_numpy(padded[done : done + len(truths)])
        done += len(truths)
        label_B = torch.tensor([truth.labels[0] for truth in truths])
        yield EvaluationBatch(
            image_BCHW=image_BCHW,
            label_B=label_B,
            valid_B=valid_B,
            decoded_B=decoded_B,
            truths=truths,
            row_B=row_B,
        )


def _loader(dataset: Dataset[Any], batches: Any, workers: int, collate: Any) -> DataLoader[Any]:
    if workers:
        _check_socket_folder()
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        # Also where the rank itself was spawned, which its children inherit: they would all import torch again.
        multiprocessing_context="fork" if workers else None,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=PREFETCH if workers else None,
        worker_init_fn=_outlive_a_stop,
    )


def _check_socket_folder() -> None:
    """Refuse a temporary folder whose name is too long for the sockets by which loader processes hand tensors over.

    A loader process only prints that it cannot make one, and whoever waits for its batch waits for ever.

    Raises:
        UserError: with the length that is allowed.
    """
    folder = tempfile.gettempdir()
    length = len(os.fsencode(folder))
    if length > MAX_SOCKET_FOLDER:
        raise UserError(
            f"TMPDIR: {folder} has {length} bytes, at most {MAX_SOCKET_FOLDER} are allowed, since loader processes "
            "make sockets in it; set TMPDIR to a shorter path, or data.workers and evaluate.workers to 0"
        )


def _outlive_a_stop(worker: int) -> None:
    """In a loader process: what a scheduler signals to all processes of a job is for the rank, which ends its loaders.

    A second SIGTERM ends it: the rank's own, where it does not end otherwise.
    """
    for one in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(one, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _as_it_is(batch: Any) -> Any:
    return batch


def _collate_evaluation(items: list[tuple[Tensor, bool, Sample]]) -> tuple[Tensor, Tensor, list[Sample]]:
    images, decoded, truths = zip(*items, strict=True)
    return torch.stack(images), torch.tensor(decoded), list(truths)
