"""Boxes of all levels and pixel histograms of an image against the field's way: 1000 thresholds, each traced.

The peer is the plain form of public code (wsolevaluation): the map enlarged and min-maxed; for each of 1000
thresholds `cv2.threshold` and `cv2.findContours`, once for MaxBoxAcc, which takes the box of the largest contour, and
once for MaxBoxAccV2, which takes those of all, since there they are two runs; IoU with the ground truth, all
thresholds at a time; `numpy.histogram` of the scores at positive and negative pixels. Both start from the same grids
of scores and end with the same hits and histograms, which is asserted before anything is timed. Times are of one
core: CPU time of one thread. Half of the maps are CAM-like (blobs and little noise), half are plain noise, which has
the most components that a grid can hold.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import tyro
from _measure import in_turn, machine, median_ratio, print_ratio

from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.data.packing.pack import PackOptions, make_plan, pack
from wsol_dist.data.shards.sample import Item, Sample
from wsol_dist.metrics.base import Scored
from wsol_dist.metrics.max_box_acc import DELTAS, MaxBoxAcc
from wsol_dist.metrics.pxap import EDGES, PxAP
from wsol_dist.regions import boxes
from wsol_dist.regions.boxes import level_of
from wsol_dist.regions.compiled import load

PEER = "1000-traced-thresholds"
THRESHOLDS = np.arange(1000) / 1000
FRAME_WH = (500, 375)
FIRST_USE = "from wsol_dist.regions.compiled import load; load('wsol_dist.regions.components')"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    grids: tuple[int, ...] = (14, 28, 112)
    """Sides of the score grids."""
    size_px: int = 224
    """Side of the square that they are brought to."""
    images: int = 6
    """Maps of each grid, half of them noise."""
    repeats: int = 3
    """Measurements of each, taken in turn; the median counts."""
    memory: tuple[int, ...] = ()
    """Numbers of small images: the peak memory of scoring them, of a process each, and nothing else."""
    quick: bool = False
    """One tiny measurement, to see that the script runs."""


def main(options: Options) -> None:
    if options.quick:
        options = Options(grids=(14, 28), size_px=64, images=2, repeats=1, quick=True)
    if options.memory:
        return measure_memory(options.memory)
    cv2.setNumThreads(1)
    print(f"{machine()}, OpenCV {cv2.__version__}; ms of one core an image at {options.size_px} px")
    if not options.quick:
        cold, warm = first_use_seconds()
        print(f"first use of the compiled code: {cold:.1f} s, then {warm:.1f} s a process")
    ratios = {f"evaluator-{grid}": measure(grid, options) for grid in options.grids}
    for name, value in ratios.items():
        print_ratio(name, value, peer=PEER)


def measure(grid: int, options: Options) -> float:
    """How many times faster ours is on a grid; prints the times."""
    images = [make_image(grid, seed, options.size_px) for seed in range(options.images)]
    ties = sum(check_same(image) for image in images)
    measures: dict[str, Callable[[], float]] = {}
    for kind, which in (("blobs", images[0::2]), ("noise", images[1::2])):
        measures[f"ours {kind}"] = partial(cpu_ms, ours, which)
        measures[f"ours {kind}, without compiled code"] = partial(cpu_ms, ours_without_compiled, which)
        measures[f"peer {kind}"] = partial(cpu_ms, peer, which)
    taken = in_turn(measures, repeats=options.repeats)
    for name, ms in taken.items():
        print(f"  {grid:>3} x {grid:<3}  {name:<35} {statistics.median(ms):8.2f} ms")
    print(
        f"  {grid:>3} x {grid:<3}  levels with two largest contours: {ties} of {255 * len(images)}",
        flush=True,
    )
    both = [
        [sum(turn) for turn in zip(taken[f"{way} blobs"], taken[f"{way} noise"], strict=True)]
        for way in ("peer", "ours")
    ]
    return median_ratio(*both)


def make_image(grid: int, seed: int, size_px: int) -> Scored:
    """A score grid with two boxes and a mask; odd seeds give noise."""
    rng = np.random.default_rng(seed)
    map_hw = rng.standard_normal((grid, grid))
    if seed % 2 == 0:
        y, x = np.mgrid[:grid, :grid] / grid
        blobs = zip(rng.random((3, 2)), rng.uniform(0.1, 0.3, 3), strict=True)
        parts = [np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / width**2 / 2) for (cx, cy), width in blobs]
        map_hw = np.sum(parts, axis=0) + 0.05 * map_hw
    mask = np.zeros(FRAME_WH[::-1], np.uint8)
    mask[60:300, 40:280] = 1
    return Scored(
        id=str(seed),
        label=0,
        prob_C=np.ones(2, np.float32),
        map_hw=map_hw.astype(np.float32),
        size_px=size_px,
        boxes_xyxy=np.array([[40.0, 60, 280, 300], [300, 20, 480, 200]]),
        box_frame_wh=FRAME_WH,
        mask=mask,
    )


def ours(image: Scored) -> tuple[np.ndarray, np.ndarray]:
    """Hits (4, 255) of MaxBoxAcc and of V2 at its three IoUs by level, and histograms (2, 1002)."""
    # A copy without the maps and boxes that the image may remember.
    image = Scored(**{name: getattr(image, name) for name in Scored.__dataclass_fields__})
    config = EvaluateConfig(size_px=image.size_px)
    metrics = MaxBoxAcc(config, num_classes=2), PxAP(config, num_classes=2)
    for metric in metrics:
        metric.update(image)
    return metrics[0].counts[1:], metrics[1].counts


def ours_without_compiled(image: Scored) -> tuple[np.ndarray, np.ndarray]:
    """The same as where numba does not work."""
    boxes.load = lambda module: None  # type: ignore[assignment]
    try:
        return ours(image)
    finally:
        boxes.load = load


def peer(image: Scored) -> tuple[np.ndarray, np.ndarray]:
    """Hits (4, 1000) by threshold, and histograms (2, 1002)."""
    size = image.size_px
    score = cv2.resize(image.map_hw.astype(np.float64), (size, size), interpolation=cv2.INTER_CUBIC)
    score -= score.min()
    score /= score.max()
    gray = (score * 255).astype(np.uint8)
    largest, every, owner = [], [], []
    for number, threshold in enumerate(THRESHOLDS):
        largest.append(box_of(max(contours_above(gray, threshold), key=cv2.contourArea), size))
        contours = contours_above(gray, threshold)
        every += [box_of(contour, size) for contour in contours]
        owner += [number] * len(contours)
    assert image.boxes_xyxy is not None
    assert image.mask is not None
    truth = (image.boxes_xyxy * size / np.array(FRAME_WH * 2)).astype(np.int64)
    best = np.zeros(len(THRESHOLDS))
    np.maximum.at(best, owner, iou(np.array(every), truth).max(axis=1))
    hits = [iou(np.array(largest), truth).max(axis=1) >= 0.5, *(best >= delta for delta in DELTAS)]
    mask = cv2.resize(image.mask, (size, size), interpolation=cv2.INTER_NEAREST)
    return np.array(hits), np.stack([np.histogram(score[mask == kind], bins=EDGES)[0] for kind in (1, 0)])


def contours_above(gray: np.ndarray, threshold: float) -> list[np.ndarray]:
    _, binary = cv2.threshold(gray, int(threshold * gray.max()), 255, cv2.THRESH_BINARY)
    return list(cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0])


def box_of(contour: np.ndarray, size: int) -> list[int]:
    x, y, width, height = cv2.boundingRect(contour)
    return [x, y, min(x + width, size - 1), min(y + height, size - 1)]


def iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N, M) of boxes with both ends included."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    inter = np.maximum(high - low + 1, 0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1) for boxes in (one, other)]
    return inter / (areas[0][:, None] + areas[1] - inter)


def check_same(image: Scored) -> int:
    """Both give the same numbers; returns how many levels have several contours of the largest area."""
    levels = [level_of(threshold) for threshold in THRESHOLDS]
    hits, histograms = peer(image)
    for way in (ours, ours_without_compiled):
        our_hits, our_histograms = way(image)
        assert np.array_equal(our_hits[:, levels], hits)
        assert np.array_equal(our_histograms, histograms)
    gray = boxes.to_uint8(image.bicubic_map)
    ties = 0
    for level in range(255):
        contours = contours_above(gray, boxes.threshold_of(level))
        areas = sorted(cv2.contourArea(contour) for contour in contours)
        ties += areas[-2:-1] == areas[-1:]
    return ties


def cpu_ms(way: Callable[[Scored], object], images: list[Scored]) -> float:
    """Median CPU time an image."""
    taken = []
    for image in images:
        start = time.thread_time()
        way(image)
        taken.append(time.thread_time() - start)
    return float(np.median(taken)) * 1000


def first_use_seconds() -> tuple[float, float]:
    """Wall time of a process that compiles everything, and of one that finds it on disk; start-up included."""
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"NUMBA_CACHE_DIR": folder}
        times = []
        for _ in range(2):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", FIRST_USE], env=env, check=True)
            times.append(time.perf_counter() - start)
    return times[0], times[1]


MEMORY_PX = 32


class MadeUp:
    """Splits `n1000`, `n20000`, ... of so many images with a box and a mask."""

    classes = ("thing",)
    known_counts: Mapping[str, int] = {}

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self.numbers = numbers
        self.png = cv2.imencode(".png", np.zeros((MEMORY_PX, MEMORY_PX, 3), np.uint8))[1].tobytes()
        self.mask = np.zeros((MEMORY_PX, MEMORY_PX), np.uint8)
        self.mask[4:20, 4:20] = 1

    def items(self) -> Iterator[Item]:
        for count in self.numbers:
            for number in range(count):
                yield Item(id=f"{count}/{number:06d}", split=f"n{count}", labels=(0,), where=number)

    def read(self, item: Item) -> Sample:
        box, frame = np.array([[4.0, 4, 19, 19]]), (MEMORY_PX, MEMORY_PX)
        truth = {"boxes_xyxy": box, "box_frame_wh": frame, "mask": self.mask}
        return Sample(id=item.id, image=self.png, extension="png", labels=item.labels, **truth)


def measure_memory(numbers: tuple[int, ...]) -> None:
    """Print the peak of each process; its own best threshold, so that rows of all levels are kept until the end."""
    print(f"{machine()}; wsol score, float32 maps 8 x 8, scored at {MEMORY_PX} px, oracle threshold")
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        source, shards = MadeUp(numbers), PackOptions(out=Path(folder, "shards"), workers=1, val_fraction=0)
        with contextlib.redirect_stdout(None):
            pack(make_plan("made-up", source, Options(), shards), source, shards)
        for count in numbers:
            maps = Path(folder, "maps", f"{count}")
            maps.mkdir(parents=True)
            for number in range(count):
                np.save(maps / f"{number:06d}.npy", rng.random((8, 8), np.float32))
            size = ["--evaluate.size-px", str(MEMORY_PX), "--threshold", "oracle", "--split", f"n{count}"]
            given = ["--maps", str(maps.parent), "--index", str(shards.out), "--out", f"{folder}/{count}"]
            command = [sys.executable, "-m", "wsol_dist.cli", "score", *given, *size]
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            assert status == 0, command
            took_s = time.perf_counter() - start
            print(f"  {count:>7} images: peak {used.ru_maxrss / 1024:.0f} MiB, {took_s:.0f} s", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
