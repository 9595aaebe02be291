"""Samples a second that `wsol shards pack` writes, against GNU tar on the same files.

`ours` is the whole of a packing: list the class folders, shuffle, read, check, write, checksum, index. Its processes
are as many as there are cores. `tar` is one `tar` over a folder that holds exactly the members of our shards (images
and records), so that both write the same bytes; `tar-images` one over the images alone; `tar-sha256` the first with
`sha256sum` behind it, as every shard's checksum is in our index. All files are in the page
cache, and the disk has what is written when the clock stops: packing syncs each shard, tar's file is synced behind
it. First it is asserted that tar, given the members of a shard in its order, makes a tar like that shard.
Ratios are of samples/s.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal

import _pictures
import tyro

from wsol_dist.data.packing.pack import PackOptions, make_plan, pack
from wsol_dist.data.packing.parallel import num_cores
from wsol_dist.data.shards.index import Index
from wsol_dist.data.sources.folder import Options as FolderOptions
from wsol_dist.data.sources.folder import Source

SIZES = {"real": (_pictures.large, 1024, 4, "packing"), "64px": (_pictures.small, 20_000, 1, "packing-64px")}
"""Pictures, how many, how often each is taken (as hard links), how the ratios are named."""
PEERS = {
    "tar": "GNU-tar-writing-the-same-bytes",
    "tar-images": "GNU-tar-of-the-images-alone",
    "tar-sha256": "GNU-tar-writing-the-same-bytes-and-sha256sum-of-them",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much is measured, and where."""

    workers: int = num_cores()
    """Processes of ours."""
    repeats: int = 5
    """Measurements of each, taken in turn; the median of the turns' ratios counts."""
    only: Literal["real", "64px"] | None = None
    """`real` or `64px`, to leave the other size out."""
    scratch: Path = Path(tempfile.gettempdir())
    """Folder on the disk to measure; about 2 GB are written below it and removed."""
    quick: bool = False
    """One tiny measurement of each, to see that the script runs."""


@dataclass(frozen=True, kw_only=True)
class Files:
    """One size of image: as class folders, and as the members of our shards."""

    options: Options
    scratch: Path
    num_samples: int

    @property
    def images(self) -> Path:
        return self.scratch / "images"

    @property
    def members(self) -> Path:
        return self.scratch / "members"


def ours(files: Files) -> float:
    """Rate of the project's packing, from the listing to the index."""
    out = files.scratch / "ours"
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    start = time.perf_counter()
    packed(files, out)
    return files.num_samples / (time.perf_counter() - start)


def packed(files: Files, out: Path) -> Index:
    """The class folders as a folder of shards."""
    source_options = FolderOptions(root=files.images)
    options = PackOptions(out=out, val_fraction=0, workers=files.options.workers)
    source = Source(source_options)
    return pack(make_plan("folder", source, source_options, options), source, options)


def tar(files: Files, folder: Path, *, sha256: bool = False) -> float:
    """Rate of `tar` over a folder, its file synced and, if wanted, its checksum taken."""
    out = files.scratch / "peer.tar"
    out.unlink(missing_ok=True)
    os.sync()
    start = time.perf_counter()
    subprocess.run(["tar", "--format=ustar", "--hard-dereference", "-C", folder, "-cf", out, "."], check=True)
    with out.open("rb") as file:
        os.fsync(file.fileno())
    if sha256:
        subprocess.run(["sha256sum", out], check=True, stdout=subprocess.DEVNULL)
    return files.num_samples / (time.perf_counter() - start)


def check_same_bytes(files: Files, index: Index) -> None:
    """The members of every shard to `files.members`, of which tar makes the first shard as ours is."""
    files.members.mkdir()
    order: list[str] = []
    for number in range(len(index.shards)):
        subprocess.run(["tar", "-C", files.members, "-xf", index.path(number)], check=True)
        if not order:
            with tarfile.open(index.path(number)) as shard:
                order = shard.getnames()
    listed, made = files.scratch / "order", files.scratch / "first.tar"
    listed.write_text("\n".join(order))
    subprocess.run(
        ["tar", "--format=ustar", "--blocking-factor=1", "-C", files.members, "-cf", made, "-T", listed],
        check=True,
    )
    assert made.stat().st_size == index.shards[0].bytes
    assert _members(made) == _members(index.path(0)), "tar writes other members than ours"


def _members(path: Path) -> list[tuple[int, str, bytes]]:
    """All that is in a tar, and where."""
    with tarfile.open(path) as tar:
        return [(one.offset, one.name, tar.extractfile(one).read()) for one in tar]


def _multiply(folder: Path, times: int) -> int:
    """Hard links to every image; returns how many images there are then."""
    found = sorted(folder.rglob("*.jpg"))
    for path in found:
        for number in range(1, times):
            os.link(path, path.with_name(f"{path.stem}-{number}.jpg"))
    return len(found) * times


def measure(options: Options, size: str) -> dict[str, float]:
    """All contestants on one size: name of the ratio -> value."""
    from _measure import in_turn, median_ratio  # see main

    write, count, times, name = SIZES[size]
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        images = Path(scratch, "images")
        what = write(images, 64 if options.quick else count)
        num_samples = _multiply(images, 1 if options.quick else times)
        files = Files(options=options, scratch=Path(scratch), num_samples=num_samples)
        index = packed(files, Path(scratch, "first"))
        check_same_bytes(files, index)
        num_bytes = sum(shard.bytes for shard in index.shards)
        print(f"{name}: {what}, {num_samples} files; {len(index.shards)} shards, {num_bytes / 2**20:.0f} MiB")
        measures = {
            "ours": partial(ours, files),
            "tar": partial(tar, files, files.members),
            "tar-images": partial(tar, files, files.images),
            "tar-sha256": partial(tar, files, files.members, sha256=True),
        }
        rates = in_turn(measures, repeats=options.repeats)
    for contestant, taken in rates.items():
        samples_s = median(taken)
        mib_s = samples_s * num_bytes / num_samples / 2**20
        print(f"{name} {contestant}: {samples_s:.0f} samples/s, {mib_s:.0f} MiB/s")
    return {f"{name}-{peer}": median_ratio(rates["ours"], rates[peer]) for peer in PEERS}


def main(options: Options) -> None:
    """Measure and print."""
    # Imported late: the processes of packing import this file, and torch would cost each of them seconds.
    from _measure import machine, print_ratio

    if options.quick:
        options = Options(workers=1, repeats=1, scratch=options.scratch, quick=True)
    print(f"{machine()}; {options.workers} processes of ours, one of tar, in {options.scratch}")
    sizes = [options.only] if options.only else list(SIZES)
    ratios = {key: value for size in sizes for key, value in measure(options, size).items()}
    for name, value in ratios.items():
        peer = name.removeprefix("packing-").removeprefix("64px-")
        print_ratio(name, value, peer=PEERS[peer])


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
