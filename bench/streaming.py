"""Images a second delivered as training batches, against the decoder's limit and against plain public loaders.

`ours` is `training_batches`, the path of every training run, over shards that the project's packer wrote.
`decode` is the limit: as many processes as there are cores decode and transform the same images by the same
functions from memory, and deliver nothing. `imagefolder` is torchvision's ImageFolder with Pillow in a DataLoader,
`webdataset` stock webdataset with `.decode("pil")` over the same shards; both squash, crop, flip and normalise
with torchvision, as public training scripts do. All have as many loader processes as there are cores. A measurement
starts when the first batches have come, and repeats without the seam between epochs. Ratios are of images/s; those
that end in `-cpu` are of processor time an image, which other work on the machine disturbs less and which does not see
waiting.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import _pictures
import numpy as np
import torch
import tyro
import webdataset
from _measure import in_turn, machine, median_ratio, print_ratio
from torch.utils.data import DataLoader, RandomSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder

from wsol_dist.config.data import DataConfig
from wsol_dist.data.packing.pack import PackOptions, make_plan, pack
from wsol_dist.data.packing.parallel import num_cores
from wsol_dist.data.shards.index import Index
from wsol_dist.data.sources.folder import Options as FolderOptions
from wsol_dist.data.sources.folder import Source
from wsol_dist.data.stream.stream import TrainingOrder, training_batches

WARM_UP = 12
"""Batches of each process before a measurement: memory that is used again has then been touched."""
ENDLESS = 10**6
"""Steps: more than any measurement takes."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much is measured."""

    batch: int = 64
    """Images in a batch."""
    workers: int = num_cores()
    """Loader processes of each."""
    seconds: float = 2.0
    """Length of a measurement."""
    repeats: int = 7
    """Measurements of each, taken in turn; the median of the turns' ratios counts."""
    only: Literal["real", "64px"] | None = None
    """`real` or `64px`, to leave the other size out."""
    quick: bool = False
    """One tiny measurement of each, to see that the script runs."""


class Rate(NamedTuple):
    """Of delivering images."""

    images_s: float
    cpu_us: float
    """Processor time an image, of all processes together."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """One size of image, in class folders and packed."""

    options: Options
    folder: Path
    index: Index
    image_px: int

    @property
    def data(self) -> DataConfig:
        return DataConfig(workers=self.options.workers)

    @property
    def resize_px(self) -> int:
        return round(self.image_px * 8 / 7)


def ours(pictures: Pictures) -> Rate:
    """Rate of the project's stream."""
    return _rate(our_loader(pictures), pictures.options)


def our_loader(pictures: Pictures) -> DataLoader[Any]:
    """As the trainer makes it."""
    order = TrainingOrder(
        shard_of_row=pictures.index.rows("train").shard,
        data=pictures.data,
        seed=0,
        global_batch=pictures.options.batch,
        accumulation=1,
        rank=0,
        world=1,
        first_step=0,
        last_step=ENDLESS,
    )
    return training_batches(pictures.index, pictures.data, order=order, image_px=pictures.image_px)


def imagefolder(pictures: Pictures) -> Rate:
    """Rate of torchvision with Pillow."""
    dataset = ImageFolder(str(pictures.folder / "train"), _public_transform(pictures))
    sampler = RandomSampler(dataset, replacement=True, num_samples=ENDLESS * pictures.options.batch)
    loader = DataLoader(
        dataset,
        batch_size=pictures.options.batch,
        sampler=sampler,
        num_workers=pictures.options.workers,
        pin_memory=torch.cuda.is_available(),
    )
    return _rate(loader, pictures.options)


def plain_webdataset(pictures: Pictures) -> Rate:
    """Rate of stock webdataset with Pillow, over our shards."""
    urls = [str(pictures.index.path(number)) for number in range(len(pictures.index.shards))]
    dataset = (
        webdataset.WebDataset(urls, shardshuffle=100, seed=0)  # noqa: TID251 - what is compared with
        .shuffle(1000)
        .decode("pil")
        .to_tuple("jpg", "json")
        .map_tuple(_public_transform(pictures), lambda record: record["labels"][0])
        .repeat()
    )
    loader = DataLoader(
        dataset,
        batch_size=pictures.options.batch,
        num_workers=pictures.options.workers,
        pin_memory=torch.cuda.is_available(),
    )
    return _rate(loader, pictures.options)


def decode(pictures: Pictures) -> Rate:
    """Rate that the cores decode and transform by our functions, from memory and to nowhere."""
    dataset: Any = our_loader(pictures).dataset
    encoded = [dataset.reader.image(row) for row in range(min(len(dataset.reader), 1024))]
    context = multiprocessing.get_context("fork")
    num_processes = max(1, pictures.options.workers)
    barrier, rates = context.Barrier(num_processes), context.SimpleQueue()
    arguments = (dataset, encoded, pictures.options.seconds, barrier, rates)
    processes = [context.Process(target=_decode_alone, args=arguments) for _ in range(num_processes)]
    for process in processes:
        process.start()
    found = [rates.get() for _ in processes]
    for process in processes:
        process.join()
    done, _, cpu_s = (sum(column) for column in zip(*found, strict=True))
    return Rate(images_s=sum(one[0] / one[1] for one in found), cpu_us=cpu_s / done * 1e6)


def _decode_alone(dataset: Any, encoded: list[bytes], duration_s: float, barrier: Any, rates: Any) -> None:
    torch.set_num_threads(1)
    barrier.wait()
    done, start, cpu = 0, time.perf_counter(), time.process_time()
    while (passed := time.perf_counter() - start) < duration_s:
        dataset.transform(dataset.decode(encoded[done % len(encoded)]), np.random.default_rng([0, 0, done]))
        done += 1
    rates.put((done, passed, time.process_time() - cpu))


def _public_transform(pictures: Pictures) -> transforms.Compose:
    """That of public TS-CAM: squash, crop, flip, to float, normalise."""
    side = pictures.resize_px
    return transforms.Compose(
        [
            transforms.Resize((side, side)),
            transforms.RandomCrop(pictures.image_px),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )


def _rate(loader: Iterable[Any], options: Options) -> Rate:
    """Past the start: the queue of made batches is then empty, as nothing is done with them here."""
    batches = iter(loader)
    for _ in range(1 if options.quick else WARM_UP * options.workers):
        next(batches)
    done, start, cpu = 0, time.perf_counter(), _cpu_s()
    while time.perf_counter() - start < options.seconds:
        next(batches)
        done += options.batch
    passed, cpu = time.perf_counter() - start, _cpu_s() - cpu
    del batches
    gc.collect()
    return Rate(images_s=done / passed, cpu_us=cpu / done * 1e6)


def _cpu_s() -> float:
    """Processor time of this process and of its loader processes so far."""
    ticks = 0
    for process in multiprocessing.active_children():
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def packed(folder: Path, index_folder: Path, *, workers: int = 0) -> Index:
    """The class folders, packed by the project's packer."""
    source_options = FolderOptions(root=folder)
    source = Source(source_options)
    options = PackOptions(out=index_folder, val_fraction=0, workers=workers)
    return pack(make_plan("folder", source, source_options, options), source, options)


CONTESTANTS: dict[str, Callable[[Pictures], Rate]] = {
    "ours": ours,
    "decode": decode,
    "imagefolder": imagefolder,
    "webdataset": plain_webdataset,
}
PEERS = {
    "decode": "the-same-cores-decoding-from-memory",
    "imagefolder": "torchvision-ImageFolder-PIL",
    "webdataset": "plain-webdataset-PIL",
}
SIZES = {
    "real": (_pictures.large, 1024, 224, "streaming"),
    "64px": (_pictures.small, 4000, 64, "streaming-64px"),
}
"""Pictures, how many, side of the crop, how the ratios are named."""


def measure(options: Options, size: str) -> dict[str, float]:
    """All contestants on one size: name of the ratio -> value."""
    write, count, image_px, name = SIZES[size]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "folders")
        what = write(folder, 16 if options.quick else count)
        index = packed(folder, Path(scratch, "shards"), workers=1 if options.quick else 0)
        pictures = Pictures(options=options, folder=folder, index=index, image_px=image_px)
        print(f"{name}: {what} to {pictures.resize_px}, crop {image_px} px", flush=True)
        measures = {contestant: partial(run, pictures) for contestant, run in CONTESTANTS.items()}
        rates = in_turn(measures, repeats=options.repeats)
    for contestant, taken in rates.items():
        images_s, cpu_us = (median(column) for column in zip(*taken, strict=True))
        print(f"{name} {contestant}: {images_s:.0f} images/s, {cpu_us:.0f} us of processor time an image")
    ratios = {}
    for peer in PEERS:
        ratios[f"{name}-{peer}"] = median_ratio(*([r.images_s for r in rates[who]] for who in ("ours", peer)))
        ratios[f"{name}-{peer}-cpu"] = median_ratio(
            *([r.cpu_us for r in rates[who]] for who in (peer, "ours"))
        )
    return ratios


def main(options: Options) -> None:
    """Measure and print."""
    if options.quick:
        options = Options(batch=8, workers=1, seconds=0.1, repeats=1, quick=True)
    print(f"{machine()}; {options.workers} loader processes each, batches of {options.batch}")
    sizes = [options.only] if options.only else list(SIZES)
    ratios = {key: value for size in sizes for key, value in measure(options, size).items()}
    for name, value in ratios.items():
        print_ratio(name, value, peer=PEERS[name.removesuffix("-cpu").rsplit("-", 1)[1]])


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
