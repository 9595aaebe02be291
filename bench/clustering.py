"""Pixel clusters: many networks at once against one after the other, faiss against faiss, and what it costs at scale.

`loop` is deep image clustering as public code has it, one image and a Python loop over superpixels; `one` is one
image with the vote by one scatter; `batched` is ours. That loop and batched give the same losses is asserted first.
Cost is measured over a few iterations, since all iterations cost the same; on a CPU it is this process's own time,
with one thread. The curve fits at lower resolutions, with labels enlarged, and stops after fewer iterations; its
adjusted Rand index (ARI) against the full fit stands beside that of two seeds.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice

import cv2
import faiss
import numpy as np
import torch
import tyro
from _measure import in_turn, machine, median_ratio, print_ratio, seconds
from _pictures import real_or_collage
from _plain_dic import plain_fit
from sklearn.cluster import KMeans as SklearnKMeans
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from wsol_dist.metrics.rand_index import adjusted_rand_index
from wsol_dist.regions.dic import DIC, DICConfig, Fits, enlarge_labels
from wsol_dist.regions.kmeans import KMeans, KMeansConfig

SHARES = (1.0, 0.75, 0.5, 0.375)
"""Of the full side, that the curve fits at."""
STOPS = (1.0, 0.5, 0.25, 0.12)
"""Of all iterations, that it stops at."""
MIN_LABELS = 4
SETS = {"ImageNet val": 50_000, "ImageNet train": 1_281_167}
DEVICES = (1, 8, 64)
MATMUL_SIDE = 8192


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured, and where."""

    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """cpu, or cuda."""
    px: int | None = None
    """Side of the full fit; by default 224 on a GPU and 64 on a CPU, where a full fit at 224 takes minutes."""
    batch: int | None = None
    """Networks at once; by default 32 on a GPU and 4 on a CPU."""
    images: int = 4
    """Images of the curve, each fitted whole at every resolution and with two seeds."""
    faiss_px: int = 224
    """Side of the images of k-means."""
    iterations: int = 100
    """Of a whole fit."""
    timed: int = 3
    """Iterations that are timed."""
    repeats: int = 3
    """Measurements of each, taken in turn."""
    quick: bool = False
    """One tiny measurement of each, to see that the script runs."""


def main(options: Options) -> None:
    """Measure, and print the ratios last."""
    options = resolved(options)
    if options.device == "cpu":
        torch.set_num_threads(1)  # as `wsol cluster` has it
        faiss.omp_set_num_threads(1)
    print(machine(options.device))
    what, images = real_or_collage(max(options.batch, options.images))
    print(f"{len(images)} images of {what}; DIC at {options.px} px, batch {options.batch}")
    ratios: list[tuple[str, float, str]] = []
    rate_dic = measure_dic(options, images, ratios)
    chosen = measure_curve(options, images, ratios)
    rate_faiss = measure_faiss(options, images, ratios)
    print_projection(
        {f"dic at {options.px} px": rate_dic, chosen[0]: chosen[1] * rate_dic, "faiss": rate_faiss}
    )
    for name, value, peer in ratios:
        print_ratio(name, value, peer=peer)


def resolved(options: Options) -> Options:
    """The options with defaults that depend on others filled in."""
    gpu = options.device.startswith("cuda")
    values = {"px": options.px or (224 if gpu else 64), "batch": options.batch or (32 if gpu else 4)}
    if options.quick:
        values |= {
            "px": 24,
            "batch": 2,
            "images": 2,
            "faiss_px": 32,
            "iterations": 3,
            "timed": 1,
            "repeats": 1,
        }
    return dataclasses.replace(options, **values)


class Prepared:
    """Images and superpixels at one resolution, on the device."""

    def __init__(self, options: Options, images: list[np.ndarray], *, side: int, **knobs: int) -> None:
        self.config = DICConfig(
            size_px=options.px, fit_px=side, segments=min(300, side * side // 12), **knobs
        )
        self.backend = DIC(self.config, torch.device(options.device))
        square = np.stack([squared(image, options.px) for image in images])
        self.image_BCHW = self.backend._small(square).to(options.device)
        self.slic_s = spent(lambda: self.backend.prepare(square[0]), "cpu")
        segments = [self.backend.prepare(image_HWC) for image_HWC in square]
        self.segment_BHW = torch.from_numpy(np.stack(segments)).to(options.device)

    def fit(self, images: slice, seeds: list[int], iterations: int | None = None) -> Fits:
        """Ours on some images."""
        fits = Fits(self.image_BCHW[images], self.segment_BHW[images], config=self.config, seeds=seeds)
        for _ in islice(fits.steps(), iterations):
            pass
        return fits

    def labels(self, seeds: list[int], stops: tuple[int, ...]) -> dict[int, Stopped]:
        """What there is after some numbers of iterations."""
        found = {stop: Stopped(labels=[], iterations=0) for stop in stops}
        for b, seed in enumerate(seeds):
            at = slice(b, b + 1)
            fits = Fits(self.image_BCHW[at], self.segment_BHW[at], config=self.config, seeds=[seed])
            steps, asked, made = fits.steps(), 0, 0
            for stop in sorted(stops):
                made += sum(1 for _ in islice(steps, stop - asked))
                asked = stop
                label_HW = enlarge_labels(fits.label_BHW, self.config.size_px)[0].cpu().numpy()
                found[stop].labels.append(label_HW)
                found[stop].iterations += made
        return found


@dataclass
class Stopped:
    """Images that were stopped after a number of iterations, if they did not stop before."""

    labels: list[np.ndarray]
    """Of each image at the full side."""
    iterations: int
    """That all of them made together."""


def measure_dic(options: Options, images: list[np.ndarray], ratios: list[tuple[str, float, str]]) -> float:
    """Times of the three forms; returns images a second of the batched one, for whole fits."""
    batch, timed = options.batch, options.timed
    ready = Prepared(options, images[:batch], side=options.px, iterations=timed, min_labels=1)
    seeds = list(range(batch))

    def loop() -> list[Tensor]:
        return [
            torch.tensor([loss for loss, _ in plain_fit(image, segment, config=ready.config, seed=seed)])
            for image, segment, seed in zip(ready.image_BCHW, ready.segment_BHW, seeds, strict=True)
        ]

    def one() -> None:
        for b in seeds:
            ready.fit(slice(b, b + 1), [b])

    losses_B = torch.stack(loop())[:, -1]
    torch.testing.assert_close(ready.fit(slice(None), seeds).loss_B.cpu(), losses_B, atol=1e-3, rtol=1e-3)
    forms: dict[str, Callable[[], object]] = {"loop": loop, "one": one}
    forms["batched"] = lambda: ready.fit(slice(None), seeds)
    taken = in_turn({n: partial(spent, f, options.device) for n, f in forms.items()}, repeats=options.repeats)
    for name, times in taken.items():
        whole_s = statistics.median(times) / batch / timed * options.iterations
        print(
            f"{name:8} {1 / whole_s:9.4f} images/s ({options.iterations} iterations of each, none stopped early)"
        )
    ratios.append(("dic-batched", median_ratio(taken["loop"], taken["batched"]), "one-at-a-time-loop"))
    ratios.append(("dic-scatter-vote", median_ratio(taken["loop"], taken["one"]), "one-at-a-time-loop"))
    whole_s = statistics.median(taken["batched"]) / batch / timed * options.iterations
    print(
        f"SLIC {ready.slic_s:.3f} s an image: {100 * ready.slic_s / (ready.slic_s + whole_s):.1f} % of the time alone"
    )
    if options.device.startswith("cuda"):
        print_matmul_share(options, ready, seeds, statistics.median(taken["batched"]))
    return 1 / whole_s


def print_matmul_share(options: Options, ready: Prepared, seeds: list[int], batched_s: float) -> None:
    """What of the card's measured matmul rate the batched form reaches."""
    with FlopCounterMode(display=False) as counter:
        ready.fit(slice(None), seeds)
    a, b = torch.randn(2, MATMUL_SIDE, MATMUL_SIDE, device=options.device)
    mm_s = statistics.median(seconds(lambda: torch.mm(a, b), options.device) for _ in range(5))
    reached, possible = counter.get_total_flops() / batched_s, 2 * MATMUL_SIDE**3 / mm_s
    print(
        f"batched: {reached / 1e12:.1f} of {possible / 1e12:.1f} T operations/s ({100 * reached / possible:.0f} %)"
    )


def measure_curve(
    options: Options, images: list[np.ndarray], ratios: list[tuple[str, float, str]]
) -> tuple[str, float]:
    """Speed and ARI by resolution and number of iterations; returns the fastest that stays near the full fit, and
    how much faster it is."""
    images, seeds, whole = images[: options.images], list(range(options.images)), options.iterations
    stops = tuple(sorted({max(1, round(whole * share)) for share in STOPS}))
    full = Prepared(options, images, side=options.px, iterations=whole, min_labels=MIN_LABELS)
    of_full = full.labels(seeds, stops)
    wanted = of_full[whole]
    other = full.labels([seed + 1000 for seed in seeds], (whole,))[whole]
    between = statistics.median(map(adjusted_rand_index, wanted.labels, other.labels))
    print(
        f"ARI between two seeds of the full fit {between:.3f} (median), to be at least {between - 0.05:.3f}"
    )
    best = (f"dic at {options.px} px, {whole} iterations", 1.0)
    for share in SHARES:
        side = max(8, round(options.px * share))
        ready, by_stop, cost = full, of_full, 1.0
        if side != options.px:
            ready = Prepared(options, images, side=side, iterations=whole, min_labels=MIN_LABELS)
            by_stop = ready.labels(seeds, stops)
            cost = iteration_s(full, options) / iteration_s(ready, options)
        for stop, found in by_stop.items():
            if (side, stop) == (options.px, whole):
                continue
            ari = statistics.median(map(adjusted_rand_index, wanted.labels, found.labels))
            faster = cost * wanted.iterations / found.iterations
            print(f"fit at {side:3} px, {stop:3} iterations: {faster:6.2f} times as fast, ARI {ari:.3f}")
            if ari >= between - 0.05 and faster > best[1]:
                best = (f"dic fitted at {side} px, {stop} iterations", faster)
    ratios.append(("dic-cheaper-fit", best[1], "full-resolution-fit-of-all-iterations"))
    print(f"chosen: {best[0]}")
    return best


def iteration_s(ready: Prepared, options: Options) -> float:
    """Time of a few iterations of one image."""
    taken = [
        spent(lambda: ready.fit(slice(0, 1), [0], options.timed), options.device)
        for _ in range(options.repeats)
    ]
    return statistics.median(taken)


def spent(run: Callable[[], object], device: str) -> float:
    """Seconds of a call: on a CPU those of this process, which computes with one thread, so that what else the
    machine does does not count."""
    if device.startswith("cuda"):
        return seconds(run, device)
    start = time.process_time()
    run()
    return time.process_time() - start


def measure_faiss(options: Options, images: list[np.ndarray], ratios: list[tuple[str, float, str]]) -> float:
    """k-means of ours, of one `faiss.Kmeans` an image on all pixels and sub-sampled, and of scikit-learn, sub-sampled;
    images a second of ours with colours."""
    config = KMeansConfig(size_px=options.faiss_px, samples_per_cluster=16 if options.quick else 128)
    backend = KMeans(config, torch.device(options.device))
    square = np.stack([squared(image, options.faiss_px) for image in images])
    prepared = [backend.prepare(image_HWC) for image_HWC in square]
    feature_Bnd, seeds = backend.features(np.stack(prepared)), list(range(len(square)))

    faiss_peer = partial(
        peer_of_faiss, config, feature_Bnd, gpu=options.device != "cpu" and faiss.get_num_gpus() > 0
    )
    forms = {
        "ours": lambda: backend.cluster(feature_Bnd, seeds),
        "faiss-all-pixels": lambda: faiss_peer(most=10**9),
        "faiss-subsampled": lambda: faiss_peer(most=config.samples_per_cluster),
        "scikit-learn": lambda: peer_of_sklearn(config, feature_Bnd),
    }
    error = {name: sum(map(inertia, feature_Bnd, form())) for name, form in forms.items()}
    taken = in_turn({n: partial(spent, f, options.device) for n, f in forms.items()}, repeats=options.repeats)
    for name, times in taken.items():
        rate, more = (
            len(square) / statistics.median(times),
            100 * (error[name] / error["faiss-all-pixels"] - 1),
        )
        print(f"{name:17} {rate:8.1f} images/s, inertia {more:+.1f} %")
    for name in ("faiss-all-pixels", "faiss-subsampled", "scikit-learn"):
        ratios.append(
            (f"kmeans-vs-{name}", median_ratio(taken[name], taken["ours"]), f"one-Kmeans-an-image,{name}")
        )
    whole_s = spent(lambda: backend(square, seeds=seeds), options.device)
    return len(square) / whole_s


def peer_of_faiss(config: KMeansConfig, feature_Bnd: np.ndarray, *, most: int, gpu: bool) -> np.ndarray:
    """One `faiss.Kmeans` an image, fitted on so many pixels of a cluster at most: (B, n)."""
    found = []
    for seed, feature_nd in enumerate(feature_Bnd):
        kmeans = faiss.Kmeans(
            feature_nd.shape[1],
            config.clusters,
            niter=config.iterations,
            seed=seed + 1,
            max_points_per_centroid=most,
            gpu=gpu,
        )
        kmeans.train(feature_nd)
        found.append(kmeans.index.search(feature_nd, 1)[1][:, 0])
    return np.stack(found)


def peer_of_sklearn(config: KMeansConfig, feature_Bnd: np.ndarray) -> np.ndarray:
    """scikit-learn's k-means of each image, fitted on as many of its pixels as ours: (B, n)."""
    found = []
    for seed, feature_nd in enumerate(feature_Bnd):
        number = min(config.clusters * config.samples_per_cluster, len(feature_nd))
        sample_md = np.random.default_rng(seed).choice(feature_nd, number, replace=False)
        kmeans = SklearnKMeans(
            config.clusters, n_init=1, init="random", max_iter=config.iterations, random_state=seed
        )
        found.append(kmeans.fit(sample_md).predict(feature_nd))
    return np.stack(found)


def inertia(point_nd: np.ndarray, label_n: np.ndarray) -> float:
    """Squared distances to the means of the clusters."""
    return sum(
        float(((group_md - group_md.mean(axis=0)) ** 2).sum())
        for group_md in (point_nd[label_n == label] for label in np.unique(label_n))
    )


def print_projection(rates: dict[str, float]) -> None:
    """Hours for whole data sets on devices like this one, reading and decoding not counted."""
    for name, rate in rates.items():
        for of, count in SETS.items():
            hours = ", ".join(f"{count / rate / n / 3600:.2f} h on {n}" for n in DEVICES)
            print(f"projected, {name}: {of} ({count:,} images) {hours} of these devices")


def squared(image_HWC: np.ndarray, side: int) -> np.ndarray:
    """The whole image on a square."""
    return cv2.resize(image_HWC, (side, side), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
